"""Files of embeddings: written in one piece, and continued after an interruption.

A file is a safetensors file with `embeddings` `(N, D)` float32, `names` (a JSON list of N strings as UTF-8 bytes),
`stamps` `(N, 2)` int64 (size in bytes and time of change in ns of each image file), and what made it as metadata.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .extractor import FeatureExtractor
from .images import iter_images

__all__ = ['EmbedReport', 'VectorFile', 'embed_to_file', 'load_vectors', 'save_vectors']

_logger = logging.getLogger(__name__)

_FORMAT = 'timm-dpa embeddings 1'
_ADVICE = '; write to another file, or replace it with --overwrite'


@dataclass
class VectorFile:
    """Content of a file of embeddings.

    Attributes:
        vectors: `(N, D)` float32 of unit length.
        names: N image paths, as they were given.
        stamps: `(N, 2)` int64, size in bytes and time of change in ns of each image file.
        metadata: what made the vectors, see `FeatureExtractor.describe`.
    """

    vectors: np.ndarray
    names: list[str]
    stamps: np.ndarray
    metadata: dict[str, str]


@dataclass(frozen=True)
class EmbedReport:
    """What `embed_to_file` did.

    Attributes:
        total: vectors in the file.
        embedded: those computed now; the others were there from an earlier run.
        failures: name -> reason of images that could not be read.
        failures_file: where these are listed, or None.
    """

    total: int
    embedded: int
    failures: dict[str, str]
    failures_file: Path | None


def save_vectors(
    path: str | os.PathLike[str], content: VectorFile, temporary: str | os.PathLike[str] | None = None
) -> None:
    """Write `content` to a temporary name, beside `path` unless given, then rename it.

    Raises:
        OSError: it cannot be written, as on a full disk; what was at `path` is still there.
    """
    temporary = Path(temporary or f'{os.fspath(path)}.tmp{os.getpid()}')
    tensors = {
        'embeddings': np.ascontiguousarray(content.vectors, np.float32),
        'names': np.frombuffer(json.dumps(content.names).encode(), np.uint8),
        'stamps': np.ascontiguousarray(content.stamps, np.int64),
    }
    # paths may be bytes that are not UTF-8, which a header cannot hold
    metadata = {key: value.encode('utf-8', 'backslashreplace').decode() for key, value in content.metadata.items()}
    try:
        save_file(tensors, temporary, metadata={**metadata, 'format': _FORMAT})
        with temporary.open('rb') as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name with no content
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f'{os.fspath(path)}: cannot be written ({error})') from error
    finally:
        temporary.unlink(missing_ok=True)


def load_vectors(path: str | os.PathLike[str]) -> VectorFile:
    """Read a file of embeddings.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of embeddings, or a damaged one.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{os.fspath(path)}: no such file of embeddings')
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = dict(file.metadata() or {})
            if metadata.pop('format', None) != _FORMAT:
                raise ValueError('it has another format')
            vectors, stamps = file.get_tensor('embeddings'), file.get_tensor('stamps')
            names = json.loads(file.get_tensor('names').tobytes())
        if vectors.ndim != 2 or not len(vectors) == len(names) == len(stamps):
            raise ValueError(f'it has {len(names)} names for {vectors.shape} vectors')
        if not np.isfinite(vectors).all():
            raise ValueError('it has numbers that are not finite')
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(
            f'{os.fspath(path)}: not a file of embeddings, or a damaged one ({error}); make one with: timm-dpa embed'
        ) from error
    return VectorFile(vectors, names, stamps, metadata)


def check_same_origin(stored: VectorFile, metadata: dict[str, str], path: str | os.PathLike[str], width: int) -> None:
    """Raise ValueError unless `stored`, read from `path`, was made by what `metadata` describes."""
    theirs, ours = stored.metadata.get('model', 'another model'), metadata['model']
    if stored.vectors.shape[1] != width:
        raise ValueError(
            f'{os.fspath(path)}: its vectors have {stored.vectors.shape[1]} numbers, those of {ours} {width}; use the '
            f'model that made them ({theirs})'
        )
    for key, value in metadata.items():
        if key == 'model' or stored.metadata.get(key) == value:
            continue
        if key == 'network_sha256':
            what = f'{theirs} with other weights' if theirs == ours else f'{theirs}, now {ours}'
        else:
            what = f'{key} {stored.metadata.get(key)}, now {value}'
        raise ValueError(f'{os.fspath(path)}: made with {what}; vectors of the two cannot be compared')


def embed_to_file(
    extractor: FeatureExtractor,
    images: Any,
    out: str | os.PathLike[str],
    overwrite: bool = False,
    save_every: int = 1000,
    progress: bool | None = None,
) -> EmbedReport:
    """Embed image files and folders into a file of embeddings.

    Vectors that `out` has already are kept, unless their image has changed. After an interruption, whatever it was,
    the next call goes on where this one stopped: every `save_every` images are put aside in `<out>.partial/`.

    Args:
        extractor: makes the vectors.
        images: a path or folder, or several.
        out: the file to write.
        overwrite: replace an `out` that another model made, or that has other images, instead of refusing. Vectors in
            it that are right are kept all the same. A file of another kind is never replaced.
        save_every: images that an interruption may cost.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        ValueError: `out` holds other vectors, or is no file of embeddings; nothing is changed then.
        OSError: `out` cannot be written.
        ImageError, FileNotFoundError: as `FeatureExtractor.__call__`.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f'{out}: is a folder; give the name of a file in it')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out.parent}: no such folder for {out.name}')
    items = list({item.name: item for item in iter_images(images)}.values())
    if not items:
        raise ValueError('no images to embed')
    if any(not isinstance(item.source, (str, os.PathLike)) for item in items):
        raise TypeError('only image files and folders can be embedded to a file; use FeatureExtractor for others')
    names = [item.name for item in items]
    stamps = np.array([_stamp(item.source) for item in items], np.int64)
    metadata = extractor.describe()
    made_by = {**extractor.origin, **metadata}

    rows = {name: row for row, name in enumerate(names)}
    vectors = np.empty((len(items), extractor.embedding_size), np.float32)
    done = np.zeros(len(items), bool)
    partial = Path(f'{out}.partial')
    parts = sorted(partial.glob('*.safetensors'))
    for path in [out, *parts] if out.exists() else parts:
        for name, vector, stamp in _still_right(path, extractor, metadata, rows, overwrite, is_part=path != out):
            row = rows[name]
            if tuple(stamp) == tuple(stamps[row]):
                vectors[row], done[row] = vector, True
    pending = [item for item, known in zip(items, done, strict=True) if not known]

    partial.mkdir(exist_ok=True)  # a place that cannot be written to shows before the work
    next_part = 1 + max((int(path.stem) for path in parts if path.stem.isdigit()), default=-1)
    unsaved: list[int] = []
    failures: dict[str, str] = {}

    def put_aside() -> None:
        nonlocal next_part
        content = VectorFile(vectors[unsaved], [names[row] for row in unsaved], stamps[unsaved], made_by)
        save_vectors(partial / f'{next_part:06d}.safetensors', content)
        next_part += 1
        unsaved.clear()

    try:
        for batch in extractor.stream(iter(pending), progress=progress, total=len(pending)):
            failures.update(batch.failures)
            for name, vector in zip(batch.names, batch.vectors, strict=True):
                vectors[rows[name]], done[rows[name]] = vector, True
                unsaved.append(rows[name])
            if len(unsaved) >= save_every:
                put_aside()
        if not done.any():
            raise ValueError(f'none of the {len(items)} images can be read; the first: {next(iter(failures.values()))}')
        content = VectorFile(vectors, names, stamps, made_by)
        if not done.all():
            kept = [name for name, known in zip(names, done, strict=True) if known]
            content = VectorFile(vectors[done], kept, stamps[done], made_by)
        # the temporary name is in a folder that goes away, now or after the next run
        save_vectors(out, content, temporary=partial / f'tmp{os.getpid()}')
    except BaseException:  # Ctrl-C as well
        if unsaved:
            put_aside()
        if not any(partial.iterdir()):
            partial.rmdir()
        raise
    shutil.rmtree(partial)
    return EmbedReport(len(content.names), len(pending) - len(failures), failures, _write_failures(out, failures))


def _stamp(path: Any) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a broken link, reported when it is decoded
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _still_right(
    path: Path, extractor: FeatureExtractor, metadata: dict, wanted: Container[str], overwrite: bool, is_part: bool
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, vector and stamp of what an earlier run left in `path`, of the images that are `wanted`."""
    try:
        content = load_vectors(path)
    except ValueError as error:
        if not is_part:
            raise ValueError(f'{error}; or delete it, or write to another file') from error
        _logger.warning('left out: %s', error)  # a part is a copy of work that can be done again
        return
    try:
        check_same_origin(content, metadata, path, extractor.embedding_size)
    except ValueError as error:
        if overwrite:
            return
        raise ValueError(f'{error}{_ADVICE}') from error
    others = [name for name in content.names if name not in wanted]
    if others and not overwrite:
        raise ValueError(f'{path}: has vectors of {len(others)} images not in this run, such as {others[0]}{_ADVICE}')
    for name, vector, stamp in zip(content.names, content.vectors, content.stamps, strict=True):
        if name in wanted:
            yield name, vector, stamp


def _write_failures(out: Path, failures: dict[str, str]) -> Path | None:
    path = Path(f'{out}.failures.csv')
    if not failures:
        path.unlink(missing_ok=True)  # of an earlier run: they can be read now
        return None
    temporary = Path(f'{path}.tmp{os.getpid()}')
    with temporary.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file)
        writer.writerow(['path', 'reason'])
        writer.writerows(failures.items())
    os.replace(temporary, path)
    return path
