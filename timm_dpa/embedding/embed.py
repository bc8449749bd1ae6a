"""Embedding image files to a file, resumed after an interruption."""

from __future__ import annotations

import csv
import glob
import logging
import os
import shutil
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_file, locked
from .extractor import FeatureExtractor
from .files import (
    EmbeddingsFile,
    Sightings,
    check_format,
    check_same_origin,
    is_resumable,
    load_embeddings,
    save_embeddings,
    written_files,
)
from .images import ImageItem, iter_images

__all__ = ['EmbedReport', 'embed_to_file']

_logger = logging.getLogger(__name__)

_ADVICE = '; write to another file, or replace it with --overwrite'


@dataclass(frozen=True)
class EmbedReport:
    """What `embed_to_file` did.

    Attributes:
        total: embeddings in the file.
        embedded: those computed now; the others were there from an earlier run.
        failures: name -> reason of images that could not be read.
        failures_file: where these are listed, or None.
    """

    total: int
    embedded: int
    failures: dict[str, str]
    failures_file: Path | None


def embed_to_file(
    extractor: FeatureExtractor,
    images: Any,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_error: str = 'report',
    save_every: int = 1000,
    progress: bool | None = None,
) -> EmbedReport:
    """Embed image files and folders into a file; its suffix decides the format, see `save_embeddings`.

    After an interruption, whatever it was, the same call resumes: every `save_every` images are put aside in
    `<out>.partial/`. Embeddings that an embeddings file (safetensors) has already are kept, unless their image has
    changed. The other formats do not say what they were made of, and are made anew.

    Args:
        extractor: makes the embeddings.
        images: a path or folder, or several.
        out: the file to write.
        overwrite: replace an `out` that another model made, or that has other images, instead of refusing. Embeddings
            in it that are right are kept all the same. A safetensors file of another kind is never replaced.
        on_error: what happens to images that cannot be read: `'report'` lists them in `<out>.failures.csv`, `'raise'`
            stops at the first one.
        save_every: images that an interruption may cost.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        ValueError: a suffix that is no format; `out` holds other embeddings, or is no embeddings file; or no image can
            be read. `out` is not changed then.
        BlockingIOError: another process is writing `out`.
        OSError: `out` cannot be written.
        ImportError: Parquet without the package pyarrow.
        ImageError, FileNotFoundError: as `FeatureExtractor.__call__`.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f'{out}: is a folder; give the name of a file in it')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out.parent}: no such folder for {out.name}')
    check_format(out)
    items = list({item.name: item for item in iter_images(images, on_error=on_error)}.values())
    if not items:
        raise ValueError('no images to embed')
    if any(not isinstance(item.source, (str, os.PathLike)) for item in items):
        raise TypeError('only image files and folders can be embedded to a file; use FeatureExtractor for others')
    with locked(out.with_name(f'.{out.name}.lock'), out):
        stamps = np.array([file_stamp(item.source) for item in items], np.int64)
        work = EmbeddingRun(extractor, [item.name for item in items], stamps, out, overwrite, on_error)
        return work.run(lambda rows: (items[row] for row in rows), save_every, progress)


class EmbeddingRun:
    """Embeddings that go to a file and resume; one at a time for a file, which no other process disturbs.

    Args:
        extractor, out, overwrite, on_error: see `embed_to_file`.
        names: of N different images.
        stamps: `(N, 2)` int64, which change with the images.
        sightings: of the images, whose boxes have to be the same to be resumed, and whose times may be filled in during
            the run; None for files.
        settings: what decides the embeddings besides the extractor.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        names: list[str],
        stamps: np.ndarray,
        out: Path,
        overwrite: bool,
        on_error: str,
        sightings: Sightings | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.extractor, self.names, self.stamps, self.out, self.on_error = extractor, names, stamps, out, on_error
        self.sightings = sightings
        self.rows = {name: row for row, name in enumerate(self.names)}
        self.failures: dict[str, str] = {}
        metadata = {**extractor.describe(), **(settings or {})}
        self.made_by = {**extractor.origin, **metadata}
        self.vectors = np.empty((len(names), extractor.embedding_size), np.float32)
        self.done = np.zeros(len(names), bool)
        self.unsaved: list[int] = []
        self.partial = Path(f'{out}.partial')
        parts = sorted(self.partial.glob('[0-9]*.safetensors'))
        self.next_part = 1 + max((int(path.stem) for path in parts if path.stem.isdigit()), default=-1)
        for path in [*self._earlier(overwrite), *parts]:
            for content, k in _still_right(path, extractor, metadata, self.rows, overwrite, is_part=path != out):
                self._take(content, k)

    def _take(self, content: EmbeddingsFile, k: int) -> None:
        """Keep the k-th embedding of an earlier run, if its image is the same."""
        row = self.rows[content.names[k]]
        if tuple(content.stamps[k]) != tuple(self.stamps[row]):
            return
        if self.sightings is not None:
            theirs = content.sightings
            if theirs is None or not np.array_equal(theirs.boxes[k], self.sightings.boxes[row]):
                return
            self.sightings.times[row] = theirs.times[k]
        self.vectors[row], self.done[row] = content.vectors[k], True

    def _earlier(self, overwrite: bool) -> list[Path]:
        """`out`, where it is there and can be resumed."""
        if is_resumable(self.out):
            return [self.out] if self.out.exists() else []
        for path in written_files(self.out):
            if path.exists() and not overwrite:
                raise ValueError(f'{path}: exists, and only .safetensors files can be added to{_ADVICE}')
        return []

    def run(
        self, produce: Callable[[list[int]], Iterator[ImageItem]], save_every: int, progress: bool | None
    ) -> EmbedReport:
        """Embed what is not known yet.

        Args:
            produce: makes the images of rows, under their names; it may leave some out and note them in `failures`.
        """
        pending = np.flatnonzero(~self.done).tolist()
        self.partial.mkdir(exist_ok=True)  # a place that cannot be written to shows before the work
        failures = self.failures
        images = produce(pending)
        stream = self.extractor.stream(images, on_error=self.on_error, progress=progress, total=len(pending))
        try:
            for batch in stream:
                failures.update(batch.failures)
                for name, vector in zip(batch.names, batch.vectors, strict=True):
                    row = self.rows[name]
                    self.vectors[row], self.done[row] = vector, True
                    self.unsaved.append(row)
                if len(self.unsaved) >= save_every:
                    self._put_aside()
            if not self.done.any():
                first = next(iter(failures.values()))
                raise ValueError(f'none of the {len(self.names)} images can be read; the first: {first}')
            self._save()
        except BaseException:  # Ctrl-C as well
            if self.unsaved:
                self._put_aside()
            if not any(self.partial.iterdir()):
                self.partial.rmdir()
            raise
        shutil.rmtree(self.partial)
        listed = _write_failures(self.out, failures)
        return EmbedReport(int(self.done.sum()), len(pending) - len(failures), failures, listed)

    def _put_aside(self) -> None:
        save_embeddings(self.partial / f'{self.next_part:06d}.safetensors', self._content(self.unsaved))
        self.next_part += 1
        self.unsaved.clear()

    def _save(self) -> None:
        for path in written_files(self.out):
            for stale in path.parent.glob(f'.{glob.escape(path.name)}.tmp*'):  # of a process that was killed
                stale.unlink(missing_ok=True)
        content = EmbeddingsFile(self.vectors, self.names, self.stamps, self.made_by, self.sightings)
        if not self.done.all():
            content = self._content(np.flatnonzero(self.done).tolist())
        save_embeddings(self.out, content)

    def _content(self, rows: list[int]) -> EmbeddingsFile:
        names = [self.names[row] for row in rows]
        sightings = None if self.sightings is None else self.sightings.subset(rows)
        return EmbeddingsFile(self.vectors[rows], names, self.stamps[rows], self.made_by, sightings)


def file_stamp(path: Any) -> tuple[int, int]:
    """Size in bytes and time of change in ns of a file."""
    try:
        status = os.stat(path)
    except OSError:  # a broken link, reported when it is decoded
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _still_right(
    path: Path,
    extractor: FeatureExtractor,
    metadata: dict[str, str],
    wanted: Container[str],
    overwrite: bool,
    is_part: bool,
) -> Iterator[tuple[EmbeddingsFile, int]]:
    """What an earlier run left in `path`, and each row of it whose image is `wanted`."""
    try:
        content = load_embeddings(path)
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
        raise ValueError(
            f'{path}: has embeddings of {len(others)} images not in this run, such as {others[0]}{_ADVICE}'
        )
    for k, name in enumerate(content.names):
        if name in wanted:
            yield content, k


def _write_failures(out: Path, failures: dict[str, str]) -> Path | None:
    path = Path(f'{out}.failures.csv')
    if not failures:
        path.unlink(missing_ok=True)  # of an earlier run: they can be read now
        return None
    with (
        atomic_file(path) as temporary,
        temporary.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file,
    ):
        writer = csv.writer(file)
        writer.writerow(['path', 'reason'])
        writer.writerows(failures.items())
    return path
