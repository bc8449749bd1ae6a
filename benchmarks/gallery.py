"""Searching galleries: a file beside numpy's product, and a gallery in a folder beside numpy and faiss.

    python benchmarks/gallery.py [--rows 1000000] [--width 512] [--file-rows 100000] [--file-width 2048]

The vectors are synthetic: identities of 20 copies with noise, as near as 0.78 to their neighbors. First an embeddings
file is searched, in turns with numpy's product of the memory-mapped array. Then a gallery is filled, optimized and
searched: recall of ten matches against numpy's, median latency, memory of the process, and bytes on the disk. faiss is
shown where it is installed (pip install faiss-cpu).
"""

from __future__ import annotations

import argparse
import importlib
import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
from timing import paired_ratio, seconds, show

from timm_dpa.embedding.files import EmbeddingsFile, load_embeddings, save_embeddings
from timm_dpa.embedding.search import nearest
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.rows import GalleryRow

_TOP, _COPIES, _PART = 10, 20, 10_000
_ORIGIN = {'model': 'synthetic', 'network_sha256': '0' * 64}


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
    """Megabytes, the most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


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


def fill(folder: Path, rows: int, width: int) -> Gallery:
    gallery = Gallery(folder / 'day', origin=_ORIGIN, create=True, width=width)

    def add() -> None:
        for start in range(0, rows, _PART):
            vectors = make_vectors(start, min(_PART, rows - start), width)
            gallery.add(
                GalleryRow(f'{index}.jpg', vector, camera=f'camera {index % 20}', time=index * 1000)
                for index, vector in enumerate(vectors, start)
            )

    took = seconds(add)
    print(f'filled with {rows} rows in {took:.0f} s, vectors made and rows made durable: {rows / took:.0f} rows/s')
    took = seconds(lambda: gallery.optimize(measure=False))
    info = gallery.info()
    print(
        f'optimized in {took:.0f} s; {info["indexed"]} rows in the index; {info["bytes"] / 2**20:.0f} MiB on the disk'
    )
    return gallery


def search_gallery(gallery: Gallery, rows: int, width: int, queries: int) -> None:
    asked = make_vectors(rows, queries, width)  # identities that are not in the gallery
    asked[: queries // 2] = make_vectors(0, queries // 2, width)
    values = np.concatenate(
        [asked @ make_vectors(start, min(_PART, rows - start), width).T for start in range(0, rows, _PART)],
        axis=1,
    )
    best = [set(np.argsort(-row, kind='stable')[:_TOP].tolist()) for row in values]
    where = Filter(cameras=['camera 3', 'camera 7'], after=rows * 200, before=rows * 500)
    for name, options in (
        ('exact', {'exact': True}),
        ('index', {'exact': False}),
        ('filter, exact', {'where': where}),
    ):
        found: list[set[int]] = []
        times = []
        for query in asked:
            times.append(
                seconds(
                    lambda query=query, options=options, found=found: found.append(  # type: ignore[misc]
                        {int(match.row.key[:-4]) for match in gallery.search(query, top=_TOP, **options)[0]}
                    )
                )
            )
        if 'where' in options:
            allowed = np.array([where.matches(row) for row in _facts(rows)])
            wanted = [set(np.argsort(-np.where(allowed, row, -2), kind='stable')[:_TOP].tolist()) for row in values]
        else:
            wanted = best
        recall = np.mean([len(a & b) / max(1, len(a)) for a, b in zip(wanted, found, strict=True)])
        median = statistics.median(times) * 1000
        print(f'gallery, {name:14s} recall {recall:.4f}   {median:8.1f} ms a query   peak memory {memory()} MB')


def _facts(rows: int) -> list[GalleryRow]:
    return [GalleryRow(str(index), camera=f'camera {index % 20}', time=index * 1000) for index in range(rows)]


def search_peers(rows: int, width: int, queries: int) -> None:
    vectors = np.empty((rows, width), np.float32)
    for start in range(0, rows, _PART):
        vectors[start : start + _PART] = make_vectors(start, min(_PART, rows - start), width)
    asked = make_vectors(0, queries, width)
    times = [seconds(lambda query=query: np.argpartition(vectors @ query, -_TOP)) for query in asked]  # type: ignore[misc]
    print(f'numpy, in memory    recall 1.0000   {statistics.median(times) * 1000:8.1f} ms a query')
    try:
        faiss = importlib.import_module('faiss')
    except ImportError:
        print('faiss is not installed')
        return
    index = faiss.IndexFlatIP(width)
    index.add(vectors)
    times = [seconds(lambda query=query: index.search(query[None], _TOP)) for query in asked]  # type: ignore[misc]
    print(f'faiss, in memory    recall 1.0000   {statistics.median(times) * 1000:8.1f} ms a query')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--width', type=int, default=512)
    parser.add_argument('--queries', type=int, default=20)
    parser.add_argument('--file-rows', type=int, default=100_000)
    parser.add_argument('--file-width', type=int, default=2048)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        search_file(Path(folder), args.file_rows, args.file_width, args.repeats)
        if args.rows:
            gallery = fill(Path(folder), args.rows, args.width)
            search_gallery(gallery, args.rows, args.width, args.queries)
            search_peers(args.rows, args.width, args.queries)


if __name__ == '__main__':
    main()
