"""Searching galleries: a file beside numpy's product, and a gallery in a folder beside numpy and faiss.

    python benchmarks/gallery.py [--rows 1000000] [--width 512] [--file-rows 100000] [--file-width 2048]
    python benchmarks/gallery.py --file-rows 0 --rows 100000 --width 2048 --dtype float16

The vectors are synthetic: identities of 20 copies with noise, as near as 0.78 to their neighbors. First an embeddings
file is searched, in turns with numpy's product of the memory-mapped array. Then a gallery without thumbnails is filled,
optimized and searched, by a process of its own for each kind of search: recall of ten matches against numpy's, median
latency of single queries, the most memory that the process had, and before it opened the gallery, and bytes on the
disk. The peers are numpy with the memory-mapped array, and faiss in memory where it is installed (pip install
faiss-cpu); --file-rows 0 and --rows 0 leave out the one or the other part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from timing import paired_ratio, seconds, show

from timm_dpa.embedding.files import EmbeddingsFile, load_embeddings, save_embeddings
from timm_dpa.embedding.search import nearest
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.places import TABLE
from timm_dpa.gallery.rows import GalleryRow

_TOP, _COPIES, _PART = 10, 20, 10_000
_ORIGIN = {'model': 'synthetic', 'network_sha256': '0' * 64}
_CAMERAS = (3, 7)  # of 20, in the search with a filter
_TIMES = (0.2, 0.5)  # of all
_KINDS = ('exact', 'index', 'filter, exact')


def make_vectors(first: int, count: int, width: int) -> np.ndarray:
    """Rows `first` to `first + count` of the data, which are the same however they are cut."""
    basis = np.random.default_rng(0).normal(size=(64, width)).astype(np.float32)
    parts = []
    for identity in range(first // _COPIES, -(-(first + count) // _COPIES)):
        rng = np.random.default_rng(identity + 1)
        center = rng.normal(size=64)
        copies = (center + 0.5 * rng.normal(size=(_COPIES, 64))).astype(np.float32) @ basis
        parts.append(copies + 1.0 * rng.normal(size=(_COPIES, width)).astype(np.float32))
    rows = np.concatenate(parts)[first % _COPIES :][:count]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def memory() -> int:
    """Megabytes, the most that this process has had; getrusage may give the peak of the parent process."""
    if sys.platform != 'linux':
        return 0
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM'))


def search_file(folder: Path, rows: int, width: int, repeats: int) -> None:
    path = folder / 'file.safetensors'
    names = [f'{index}.jpg' for index in range(rows)]
    parts = [make_vectors(start, min(_PART, rows - start), width) for start in range(0, rows, _PART)]
    save_embeddings(path, EmbeddingsFile(np.concatenate(parts), names, np.zeros((rows, 2), np.int64), _ORIGIN))
    del parts
    stored = load_embeddings(path, mapped=True)
    for count in (1, 100):
        queries = make_vectors(0, count, width)
        ratio = paired_ratio(
            lambda queries=queries: nearest(queries, stored.vectors, stored.names, _TOP),  # type: ignore[misc]
            lambda queries=queries: queries @ stored.vectors.T,  # type: ignore[misc]
            repeats,
        )
        show(f'file of {rows} x {width}, {count} queries / numpy product', ratio, 'at most 1.3')
    path.unlink()


def write_vectors(path: Path, rows: int, width: int) -> np.ndarray:
    """All vectors in a file, memory-mapped."""
    with path.open('wb') as file:
        for start in range(0, rows, _PART):
            file.write(make_vectors(start, min(_PART, rows - start), width).astype(np.float32, copy=False).tobytes())
    return np.memmap(path, np.float32, 'r', shape=(rows, width))


def make_rows(vectors: np.ndarray, start: int, stop: int) -> Iterator[GalleryRow]:
    for index in range(start, min(stop, len(vectors))):
        yield GalleryRow(f'{index}.jpg', vectors[index], camera=f'camera {index % 20}', time=index * 1000)


def matching(rows: int) -> np.ndarray:
    """Which rows the filter lets through."""
    index = np.arange(rows)
    return np.isin(index % 20, _CAMERAS) & (index >= _TIMES[0] * rows) & (index < _TIMES[1] * rows)


def fill(folder: Path, vectors: np.ndarray, dtype: str) -> None:
    rows, width = vectors.shape
    gallery = Gallery(folder, origin=_ORIGIN, create=True, width=width, dtype=dtype)
    cpu = time.process_time()
    parts = [
        seconds(lambda start=start: gallery.add(make_rows(vectors, start, start + _PART)))  # type: ignore[misc]
        for start in range(0, rows, _PART)
    ]
    print(
        f'filled with {rows} x {width} {dtype} in {sum(parts):.0f} s ({time.process_time() - cpu:.0f} s of CPU): '
        f'{rows / sum(parts):.0f} rows/s; the first {_PART} in {parts[0]:.1f} s, the last in {parts[-1]:.1f} s'
    )
    filled = gallery.info()['bytes']
    cpu = time.process_time()
    took = seconds(lambda: gallery.optimize(measure=False))
    info = gallery.info()
    print(
        f'optimized in {took:.0f} s ({time.process_time() - cpu:.0f} s of CPU); {info["indexed"]} rows in the index; '
        f'peak memory {memory()} MB'
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of readers of older versions: there are none
        table = importlib.import_module('lancedb').connect(folder).open_table(TABLE)
        table.optimize(cleanup_older_than=timedelta(0))  # as Gallery.optimize an hour later
    kept = gallery.info()['bytes']
    print(
        f'{filled / rows:.0f} bytes a row when filled, {info["bytes"] / rows:.0f} when optimized, {kept / rows:.0f} '
        f'without older versions, {np.dtype(dtype).itemsize * width} of them the vector',
        flush=True,
    )
    if info['indexed']:
        took = seconds(lambda: gallery.add([GalleryRow('new.jpg', vectors[0])]))
        print(f'one more row added in {took * 1000:.0f} ms', flush=True)
        gallery.remove(Filter(keys=['new.jpg']))


def search_alone(uri: str, kind: str) -> None:
    """What the process of one kind of search does; prints JSON."""
    imported = memory()
    gallery = Gallery(uri)
    asked = np.load(Path(uri).parent / 'asked.npy')
    rows = len(gallery)
    where = Filter(
        cameras=[f'camera {camera}' for camera in _CAMERAS],
        after=round(_TIMES[0] * rows) * 1000,
        before=round(_TIMES[1] * rows) * 1000,
    )
    options: dict[str, Any] = {'where': where} if kind.startswith('filter') else {'exact': kind == 'exact'}
    found: list[list[int]] = []
    times, cpu = [], time.process_time()
    for query in asked:
        start = time.perf_counter()
        (matches,) = gallery.search(query, top=_TOP, **options)
        times.append(time.perf_counter() - start)
        found.append([int(match.row.key[:-4]) for match in matches])
    print(
        json.dumps({'found': found, 'times': times, 'cpu': time.process_time() - cpu, 'memory': (memory(), imported)})
    )


def search_gallery(folder: Path, vectors: np.ndarray, queries: int) -> None:
    rows, width = vectors.shape
    asked = make_vectors(rows, queries, width)  # identities that are not in the gallery
    asked[: queries // 2] = make_vectors(0, queries // 2, width)
    np.save(folder.parent / 'asked.npy', asked)
    values = asked @ vectors.T
    best = np.argpartition(values, -_TOP)[:, -_TOP:]
    values[:, ~matching(rows)] = -2
    filtered = np.argpartition(values, -_TOP)[:, -_TOP:]
    del values
    for kind in _KINDS:
        done = subprocess.run(
            [sys.executable, __file__, '--search', str(folder), kind], check=True, capture_output=True, text=True
        )
        result = json.loads(done.stdout)
        wanted = (filtered if kind.startswith('filter') else best).tolist()
        recall = np.mean([len(set(a) & set(b)) / max(1, len(a)) for a, b in zip(wanted, result['found'], strict=True)])
        print(
            f'gallery, {kind:14s} recall {recall:.4f}   {statistics.median(result["times"]) * 1000:8.1f} ms a query '
            f'({result["cpu"] / queries * 1000:.1f} ms of CPU)   peak memory {result["memory"][0]} MB, '
            f'{result["memory"][1]} MB before it opened the gallery',
            flush=True,
        )


def search_peers(vectors: np.ndarray, queries: int) -> None:
    asked = make_vectors(0, queries, vectors.shape[1])
    times = [seconds(lambda query=query: np.argpartition(vectors @ query, -_TOP)) for query in asked]  # type: ignore[misc]
    size = vectors.nbytes / 2**20
    print(f'numpy, memory-mapped    recall 1.0000   {statistics.median(times) * 1000:8.1f} ms a query; {size:.0f} MiB')
    try:
        faiss = importlib.import_module('faiss')
    except ImportError:
        print('faiss is not installed')
        return
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), _PART):
        index.add(vectors[start : start + _PART])
    times = [seconds(lambda query=query: index.search(query[None], _TOP)) for query in asked]  # type: ignore[misc]
    print(f'faiss, flat, in memory  recall 1.0000   {statistics.median(times) * 1000:8.1f} ms a query; {size:.0f} MiB')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--width', type=int, default=512)
    parser.add_argument('--dtype', default='float32', choices=('float32', 'float16'))
    parser.add_argument('--queries', type=int, default=20)
    parser.add_argument('--file-rows', type=int, default=100_000)
    parser.add_argument('--file-width', type=int, default=2048)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--search', nargs=2, metavar=('URI', 'KIND'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search:
        search_alone(*args.search)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.file_rows:
            search_file(folder, args.file_rows, args.file_width, args.repeats)
        if args.rows:
            vectors = write_vectors(folder / 'vectors', args.rows, args.width)
            fill(folder / 'day', vectors, args.dtype)
            search_gallery(folder / 'day', vectors, args.queries)
            search_peers(vectors, args.queries)


if __name__ == '__main__':
    main()
