"""Embedding the boxes of a video, or of a folder of frames, to a gallery."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..embedding.box_embeddings import ListedBoxes, frames_stamp, list_boxes
from ..embedding.boxes import crop_boxes
from ..embedding.images import ImageError
from .gallery import Gallery
from .ingest import BoxKeys, IngestReport, Record, add_records, key_of

if TYPE_CHECKING:
    from ..embedding.extractor import FeatureExtractor

__all__ = ['embed_boxes_to_gallery']

_TOGETHER = 256  # crops that are embedded at once


def embed_boxes_to_gallery(
    extractor: FeatureExtractor,
    frames: str | os.PathLike[str],
    boxes: str | os.PathLike[str],
    gallery: Gallery,
    *,
    format: str = 'auto',
    first_frame: int | None = None,
    rate: float | None = None,
    margin: float = 0.0,
    min_side: float = 2,
    camera: str = '',
    start: int | None = None,
    thumbnails: bool = True,
    on_error: str = 'report',
    on_commit: Callable[[Sequence[str]], None] | None = None,
) -> IngestReport:
    """Embed boxes of a video or of a folder of frames; keys and tracks are those of `add_records`.

    Boxes that the gallery has, of a video that has not changed since, are not embedded again, so that the same call
    resumes after an interruption.

    Args:
        extractor: makes the embeddings.
        frames, boxes, format, first_frame, rate, margin, min_side: as `embed_boxes_to_file`.
        gallery: made with `origin=extractor.describe()`.
        camera: that took the video.
        start: time of second 0 in milliseconds since 1970; None if unknown, and rows have no time then.
        thumbnails: keep a small JPEG of each box.
        on_error: `'report'` leaves out boxes that are no part of their frame; `'raise'` stops.
        on_commit: called with the keys that are safe.

    Raises:
        ValueError: as `embed_boxes_to_file`.
        StoreError: the gallery cannot be read or written; what was committed before is kept.
        ImageError: a box that is no part of its frame, and `on_error` is `'raise'`.
    """
    listed = list_boxes(frames, boxes, format=format, first_frame=first_frame, rate=rate)
    wanted = _missing(gallery, Path(frames), listed)
    failures: dict[str, str] = {}

    def records() -> Iterator[Record]:
        waiting: list[Record] = []
        for record in _records(listed, wanted, margin, min_side, gallery.width or extractor.embedding_size):
            if record.crop is None:
                where = f'frame {record.frame}' + (f', track {record.track}' if record.track else '')
                reason = f'{where}: the box is outside of the frame, or smaller than {min_side:g} pixels in it'
                if on_error == 'raise':
                    raise ImageError(f'{key_of(frames)}, {reason}')
                failures[f'{key_of(frames)}, {where}'] = reason
            waiting.append(record)
            if len(waiting) >= _TOGETHER:
                yield from _embedded(extractor, waiting)
                waiting = []
        yield from _embedded(extractor, waiting)

    report = add_records(
        gallery, records(), frames, camera=camera, start=start, thumbnails=thumbnails, on_commit=on_commit
    )
    embedded = report.added + report.updated + report.unchanged
    return IngestReport(embedded, 0, len(listed.rows) - len(wanted), failures)


def _records(listed: ListedBoxes, wanted: list[int], margin: float, min_side: float, width: int) -> Iterator[Record]:
    """One for each wanted box, with a vector of zeros; without a crop if the box is no part of its frame."""
    by_frame: dict[int, list[int]] = {}
    for row in wanted:
        by_frame.setdefault(listed.numbers[row], []).append(row)
    if not wanted:
        return
    for frame in listed.source.read({listed.rows[row].frame for row in wanted}):
        here = by_frame[frame.number]
        edges = np.array([listed.rows[row].box for row in here])
        crops, valid = crop_boxes(frame.pixels, edges, color='rgb', margin=margin, min_side=min_side)
        left = iter(crops)
        for row, corners, fine in zip(here, edges.reshape(len(here), -1, 2), valid, strict=True):
            outer = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
            track = listed.rows[row].track or None
            crop = next(left) if fine else None
            yield Record(np.zeros(width, np.float32), frame.number, track, frame.time, outer, crop)


def _embedded(extractor: FeatureExtractor, records: list[Record]) -> list[Record]:
    whole = [record for record in records if record.crop is not None]
    for record, vector in zip(whole, extractor([record.crop for record in whole]), strict=True):
        record.vector = vector
    return records


def _missing(gallery: Gallery, frames: Path, listed: ListedBoxes) -> list[int]:
    """Rows of the boxes of frames that the gallery lacks, or has of another state of the file; whole frames, so that
    boxes without a track keep their places."""
    stamp = frames_stamp(frames) if not frames.is_dir() else None
    names = BoxKeys(key_of(frames))
    keys = [names.of(number, row.track or None) for row, number in zip(listed.rows, listed.numbers, strict=True)]
    known = gallery.known(keys)
    there = {key for key, row in known.items() if stamp is None or (row.size, row.mtime_ns) == stamp}
    lacking = {number for key, number in zip(keys, listed.numbers, strict=True) if key not in there}
    return [row for row, number in enumerate(listed.numbers) if number in lacking]
