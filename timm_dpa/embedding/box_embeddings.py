"""Embedding the boxes of a video, or of a folder of frames, to a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import locked
from .box_files import choose_boxes, read_boxes
from .box_formats import BoxRow
from .boxes import crop_boxes
from .embed import EmbeddingRun, EmbedReport, file_stamp
from .extractor import FeatureExtractor
from .files import Sightings, check_format
from .images import ImageError, ImageItem
from .tracks import box_name
from .video import FolderFrames, VideoFrames, open_frames

__all__ = ['ListedBoxes', 'embed_boxes_to_file', 'frames_stamp', 'list_boxes']


class ListedBoxes(NamedTuple):
    """The boxes of a file, and the frames that they are in.

    Attributes:
        source: reads the frames.
        rows: the boxes to use, in the order of their frames.
        numbers: of the frame of each.
        first_frame: the number of the first frame of a video.
    """

    source: FolderFrames | VideoFrames
    rows: list[BoxRow]
    numbers: list[int]
    first_frame: int


def list_boxes(
    frames: str | os.PathLike[str],
    boxes: str | os.PathLike[str],
    *,
    format: str = 'auto',
    first_frame: int | None = None,
    rate: float | None = None,
) -> ListedBoxes:
    """Read a file of boxes, and open the frames that it belongs to; the arguments are those of `embed_boxes_to_file`.

    Raises:
        ValueError: as `embed_boxes_to_file`.
    """
    found = read_boxes(boxes, format)
    first = found.first_frame if first_frame is None else first_frame
    source = open_frames(frames, first=first, rate=rate)
    known = source.numbers() if isinstance(source, FolderFrames) else {}
    rows = sorted(choose_boxes(found), key=lambda row: (*_place(known.get(row.frame, row.frame)), row.line))
    if not rows:
        raise ValueError(f'{boxes}: all boxes are to be ignored, or of no vehicles')
    if len({len(row.box) for row in rows}) > 1:
        raise ValueError(f'{boxes}: some boxes have edges and some have corners; keep one kind')
    numbers = []
    for row in rows:
        number = known.get(row.frame, row.frame)
        if isinstance(number, str):
            raise ValueError(f'{found.where(row)}: there is no frame {number} in {frames}')
        numbers.append(number)
    return ListedBoxes(source, rows, numbers, first)


def embed_boxes_to_file(
    extractor: FeatureExtractor,
    frames: str | os.PathLike[str],
    boxes: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = 'auto',
    first_frame: int | None = None,
    rate: float | None = None,
    margin: float = 0.0,
    min_side: float = 2,
    overwrite: bool = False,
    on_error: str = 'report',
    save_every: int = 1000,
    progress: bool | None = None,
) -> EmbedReport:
    """Embed what is in the boxes of frames; otherwise as `embed_to_file`.

    Each embedding is called `<frames>#frame=<number>&track=<id>`, and the file says when and where it was seen, see
    `Sightings`. One frame at a time is in memory.

    Args:
        frames: a video, or a folder of images.
        boxes: the file of the boxes, see `read_boxes`. Those to be ignored are left out.
        out: the file to write.
        format: of the boxes.
        first_frame: number of the first frame of a video; None for what the boxes suggest.
        rate: frames a second of a folder, for the times.
        margin, min_side: see `crop_boxes`. Boxes that are not valid are among the failures.
        overwrite, on_error, save_every, progress: see `embed_to_file`.

    Raises:
        ValueError, FileNotFoundError: also for boxes or frames that cannot be read, or frames that are missing.
        ImportError: a video without PyAV.
        ImageError: a box that is not valid, and `on_error` is `'raise'`.
    """
    out, frames = Path(out), Path(frames)
    if out.is_dir():
        raise ValueError(f'{out}: is a folder; give the name of a file in it')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out.parent}: no such folder for {out.name}')
    check_format(out)
    listed = list_boxes(frames, boxes, format=format, first_frame=first_frame, rate=rate)
    source, rows, numbers = listed.source, listed.rows, listed.numbers
    of_frame: dict[int | str, int] = {}
    names = []
    for row, number in zip(rows, numbers, strict=True):
        of_frame[row.frame] = of_frame.get(row.frame, 0) + 1
        names.append(box_name(str(frames), number, row.track, of_frame[row.frame]))
    sightings = Sightings(
        [row.track for row in rows],
        np.array(numbers, np.int64),
        np.full(len(rows), math.nan),
        np.array([row.box for row in rows], np.float64),
        np.array([row.score for row in rows], np.float32),
    )
    settings = {'first_frame': f'{listed.first_frame}', 'margin': f'{margin}'}
    stamps = np.tile(np.array(frames_stamp(frames), np.int64), (len(rows), 1))
    with locked(out.with_name(f'.{out.name}.lock'), out):
        work = EmbeddingRun(extractor, names, stamps, out, overwrite, on_error, sightings, settings)

        def produce(wanted: list[int]) -> Iterator[ImageItem]:
            return _crops(work, source, rows, wanted, margin, min_side)

        return work.run(produce, save_every, progress)


def _crops(
    work: EmbeddingRun,
    source: FolderFrames | VideoFrames,
    rows: list[BoxRow],
    wanted: list[int],
    margin: float,
    min_side: float,
) -> Iterator[ImageItem]:
    by_frame: dict[int | str, list[int]] = {}
    for row in wanted:
        by_frame.setdefault(rows[row].frame, []).append(row)
    assert work.sightings is not None
    if not by_frame:
        return
    for frame in source.read(set(by_frame)):
        here = by_frame.get(frame.number, []) + by_frame.get(frame.name, [])
        numbers = np.array([rows[row].box for row in here])
        crops, valid = crop_boxes(frame.pixels, numbers, color='rgb', margin=margin, min_side=min_side)
        work.sightings.times[here] = frame.time
        left = iter(crops)
        for row, fine in zip(here, valid, strict=True):
            if fine:
                yield ImageItem(next(left), work.names[row])
                continue
            reason = f'{work.names[row]}: the box is outside of the frame, or smaller than {min_side:g} pixels in it'
            if work.on_error == 'raise':
                raise ImageError(reason)
            work.failures[work.names[row]] = reason


def _place(frame: int | str) -> tuple[int, str]:
    return (frame, '') if isinstance(frame, int) else (0, frame)


def frames_stamp(frames: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; of a folder those of all its images, and the latest."""
    if not frames.is_dir():
        return file_stamp(frames)
    stamps = [file_stamp(path) for path in FolderFrames(frames).files()]
    return sum(size for size, _ in stamps), max(changed for _, changed in stamps)
