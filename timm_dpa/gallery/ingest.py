"""Embedding image files, or what was found in a video, to a gallery."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..embedding.embed import file_stamp
from ..embedding.images import ImageItem, iter_images
from .facts import Facts, FactsTable
from .gallery import AddReport, Gallery
from .pictures import quality_of, thumbnail_of
from .rows import COLUMNS, GalleryRow

if TYPE_CHECKING:
    from ..embedding.extractor import FeatureExtractor

__all__ = [
    'BoxKeys',
    'IngestReport',
    'Listing',
    'Record',
    'add_records',
    'embed_to_gallery',
    'embedded_rows',
    'key_of',
    'list_images',
]

_logger = logging.getLogger(__name__)

_KEYS = 500  # asked for at once


@dataclass(frozen=True)
class IngestReport:
    """What `embed_to_gallery` did.

    Attributes:
        embedded: images that are new, or have changed.
        relabeled: images whose pixels are known, and of which something else is known now, such as the camera.
        unchanged: images that are as they were.
        failures: name -> reason of images that could not be read.
    """

    embedded: int
    relabeled: int
    unchanged: int
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """One vehicle in one frame of a video or of a folder of frames.

    Attributes:
        vector: `(D,)` float32 of length 1; one of zeros, of a box that could not be cut out, is left out.
        frame: number or name of the frame.
        track: name or number of the track in this video; None if unknown.
        time: seconds since the start; None or NaN if unknown.
        box: x1, y1, x2, y2 in pixels of the frame.
        crop: `(H, W, 3)` uint8 RGB, for thumbnail and quality; None for none.
        vehicle: number of the vehicle; None if unknown.
    """

    vector: np.ndarray
    frame: int | str
    track: int | str | None = None
    time: float | None = None
    box: Sequence[float] | None = None
    crop: np.ndarray | None = None
    vehicle: int | None = None


def key_of(path: str | os.PathLike[str]) -> str:
    """The key of an image file: its path as it was given; bytes that are not UTF-8 are written as `\\xff`."""
    return os.fspath(path).encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def embed_to_gallery(
    extractor: FeatureExtractor,
    images: Any,
    gallery: Gallery,
    *,
    facts: FactsTable | None = None,
    thumbnails: bool = True,
    on_error: str = 'report',
    save_every: int = 1000,
    progress: bool | None = None,
    on_commit: Callable[[Sequence[str]], None] | None = None,
) -> IngestReport:
    """Embed image files and folders to a gallery.

    An image whose key (path), size and time of change are known is not embedded again; where its facts differ now, they
    are replaced. After an interruption, whatever it was, the same call resumes, and several processes may add to one
    gallery. Images that are in the gallery and not among these stay.

    Args:
        extractor: makes the embeddings.
        images: a path or folder, or several.
        gallery: made with `origin=extractor.describe()`.
        facts: what is known of the images.
        thumbnails: keep a small JPEG of each.
        on_error: `'report'` leaves out images that cannot be read, also such that vanish meanwhile; `'raise'` stops.
        save_every: images that are committed together, and that an interruption may cost.
        progress: show a bar; None shows one on a terminal only.
        on_commit: called with the keys that are safe.

    Raises:
        ValueError: no images.
        StoreError: the gallery cannot be read or written; what was committed before is kept.
        ImageError, FileNotFoundError: as `FeatureExtractor.__call__`.
    """
    listing = list_images(gallery, images, facts, on_error=on_error)
    failures: dict[str, str] = {}
    rows: list[GalleryRow] = []
    embedded = 0

    def save() -> None:
        gallery.add(rows, on_commit=on_commit)
        rows.clear()

    try:
        for batch, failed in embedded_rows(
            extractor, listing.pending, on_error=on_error, thumbnails=thumbnails, progress=progress
        ):
            failures.update(failed)
            rows += batch
            embedded += len(batch)
            if len(rows) >= save_every:
                save()
    finally:  # after Ctrl-C as well
        if rows:
            save()
    for reason in failures.values():
        _logger.debug('left out: %s', reason)
    return IngestReport(embedded, listing.relabeled, listing.unchanged, failures)


@dataclass(frozen=True)
class Listing:
    """Images, compared with a gallery.

    Attributes:
        pending: those to embed, with their rows, in which vector, quality and thumbnail are missing.
        relabeled: known ones that were given new facts.
        unchanged: known ones that are as they were.
    """

    pending: list[tuple[ImageItem, GalleryRow]]
    relabeled: int
    unchanged: int


def list_images(gallery: Gallery, images: Any, facts: FactsTable | None = None, *, on_error: str = 'report') -> Listing:
    """What `embed_to_gallery` has to embed; known images whose facts differ now are given them.

    Raises:
        ValueError: no images.
        TypeError: images in memory.
    """
    facts = facts or FactsTable()
    items = list({key_of(item.name): item for item in iter_images(images, on_error=on_error)}.values())
    if not items:
        raise ValueError('no images to embed')
    if any(not isinstance(item.source, (str, os.PathLike)) for item in items):
        raise TypeError('only image files and folders can be embedded to a gallery; Gallery.add takes rows of others')
    stamps = {key_of(item.name): file_stamp(item.source) for item in items}  # before they are read
    pending, relabeled = _pending(gallery, items, stamps, facts)
    rows = []
    for item in pending:
        key = key_of(item.name)
        size, mtime_ns = stamps[key]
        rows.append((item, GalleryRow(key, image=key, size=size, mtime_ns=mtime_ns, **vars(facts.of(item.source)))))
    return Listing(rows, relabeled, len(items) - len(pending) - relabeled)


def embedded_rows(
    extractor: FeatureExtractor,
    pending: Sequence[tuple[ImageItem, GalleryRow]],
    *,
    on_error: str = 'report',
    thumbnails: bool = True,
    progress: bool | None = None,
) -> Iterator[tuple[list[GalleryRow], dict[str, str]]]:
    """Batches: rows with vector, quality and thumbnail, and name -> reason of images that could not be read.

    Each image is decoded once. Arguments and errors as `embed_to_gallery`.
    """
    by_name: dict[str, GalleryRow] = {}

    def items() -> Iterator[ImageItem]:
        for item, row in pending:
            by_name[item.name] = replace(row)  # thumbnails do not stay in memory
            yield replace(item, look=partial(_picture, by_name[item.name], thumbnails=thumbnails))

    for batch in extractor.stream(items(), on_error=on_error, progress=progress, total=len(pending)):
        rows = [by_name.pop(name) for name in batch.names]
        for row, vector in zip(rows, batch.vectors, strict=True):
            row.vector = vector
        yield rows, batch.failures


def _pending(
    gallery: Gallery, items: list[ImageItem], stamps: dict[str, tuple[int, int]], facts: FactsTable
) -> tuple[list[ImageItem], int]:
    """Images to embed; and how many known ones were given new facts."""
    pending, relabeled = [], 0
    iterator = iter(items)
    while some := list(islice(iterator, _KEYS)):
        stored = gallery.known([key_of(item.name) for item in some])
        changed: dict[str, Facts] = {}
        for item in some:
            key = key_of(item.name)
            row, known = stored.get(key), facts.of(item.source)
            if row is None or (row.size, row.mtime_ns) != stamps[key]:
                pending.append(item)
            elif known.or_else(_facts_in(row)) != _facts_in(row):
                changed[key] = known.or_else(_facts_in(row))
        if changed:
            whole = list(gallery.known(list(changed), COLUMNS).values())
            for row in whole:
                for name, value in vars(changed[row.key]).items():
                    setattr(row, name, value)
            gallery.add(whole)
            relabeled += len(whole)
    return pending, relabeled


def _facts_in(row: GalleryRow) -> Facts:
    return Facts(row.camera, row.time, row.track, row.vehicle, row.box)


def _picture(row: GalleryRow, image: Image.Image, *, thumbnails: bool) -> None:
    row.quality = quality_of(image)
    row.thumbnail = thumbnail_of(image) if thumbnails else None


def add_records(
    gallery: Gallery,
    records: Iterable[Record],
    source: str | os.PathLike[str],
    *,
    camera: str = '',
    start: int | None = None,
    thumbnails: bool = True,
    on_commit: Callable[[Sequence[str]], None] | None = None,
) -> AddReport:
    """Add the vehicles that were found in a video or in a folder of frames.

    Keys are `<source>#<frame>/<track>`, without a track `<source>#<frame>/box<place in the frame>`; tracks are
    `<name of the source>_<track>`, so that tracks of several sources differ.

    Args:
        gallery: made with the origin of the vectors.
        records: in any order; boxes of one frame without tracks always in the same order.
        source: path of the video or of the folder.
        camera: its camera.
        start: time of second 0 in milliseconds since 1970, see `parse_time`; None if unknown.
        thumbnails: keep a small JPEG of each crop.
        on_commit: called with the keys that are safe.

    Raises:
        ValueError, StoreError: as `Gallery.add`.
    """
    rows = _record_rows(records, source, camera, start, thumbnails)
    return gallery.add(rows, on_commit=on_commit)


class BoxKeys:
    """Keys of the boxes of one video or folder of frames, asked for in their order, see `add_records`.

    Args:
        name: `key_of` the video or folder.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._untracked: Counter[int | str] = Counter()

    def of(self, frame: int | str, track: int | str | None) -> str:
        """The key of the next box of a frame."""
        if track is not None:
            return f'{self._name}#{frame}/{track}'
        place = self._untracked[frame]
        self._untracked[frame] += 1
        return f'{self._name}#{frame}/box{place}'


def _record_rows(
    records: Iterable[Record], source: str | os.PathLike[str], camera: str, start: int | None, thumbnails: bool
) -> Iterator[GalleryRow]:
    name = key_of(source)
    stem = os.path.splitext(os.path.basename(os.path.normpath(name)))[0]
    size, mtime_ns = file_stamp(source)
    if size < 0:
        size, mtime_ns = 0, 0
    keys = BoxKeys(name)
    for record in records:
        key = keys.of(record.frame, record.track)
        if not np.any(record.vector):
            continue
        row = GalleryRow(
            key,
            np.asarray(record.vector, np.float32),
            image=name,
            camera=camera,
            track='' if record.track is None else f'{stem}_{record.track}',
            vehicle=record.vehicle,
            size=size,
            mtime_ns=mtime_ns,
        )
        if start is not None and record.time is not None and np.isfinite(record.time):
            row.time = start + round(record.time * 1000)
        if record.box is not None:
            x1, y1, x2, y2 = map(float, record.box)
            row.box = (x1, y1, x2, y2)
        if record.crop is not None:
            _picture(row, Image.fromarray(record.crop), thumbnails=thumbnails)
        yield row
