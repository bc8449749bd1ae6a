"""Frames of a video, or of a folder of images, one after the other."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .images import ImageItem, image_suffixes, load_rgb

__all__ = ['FolderFrames', 'Frame', 'VideoFrames', 'open_frames']

_logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """A frame.

    Attributes:
        number: as the boxes count.
        name: of its image without suffix; empty for a video.
        time: seconds since the first frame; NaN where it is not known.
        pixels: `(H, W, 3)` uint8 RGB, upright.
    """

    number: int
    name: str
    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class FolderFrames:
    """Images in a folder, whose names end in the number of the frame, or are named by the boxes.

    Args:
        path: the folder. Folders in it are not searched.
        rate: frames a second, from which the times follow; None if it is not known.
    """

    path: Path
    rate: float | None = None

    @property
    def length(self) -> int:
        """How many frames there are."""
        return len(self.files())

    def read(self, wanted: Collection[int | str]) -> Iterator[Frame]:
        """The `wanted` frames, by number or by name, in the order of the names; one at a time is in memory.

        Raises:
            ValueError: a frame that is not there, or names that do not tell the numbers.
            ImageError: an image cannot be read.
        """
        files = self.files()
        numbers = self._numbers(files)
        by_name = {path.stem: path for path in files}
        if any(isinstance(frame, int) for frame in wanted) and not numbers:
            raise ValueError(f'{self.path}: names such as {files[0].name} do not tell the number of the frame')
        missing = [frame for frame in wanted if frame not in (by_name if isinstance(frame, str) else numbers.values())]
        if missing:
            raise ValueError(
                f'{self.path}: has no frame {missing[0]}, which the boxes name ({len(missing)} missing; the folder has '
                f'{len(files)} images, {files[0].name} to {files[-1].name})'
            )
        first = min(numbers.values(), default=0)
        for index, path in enumerate(files):
            number = numbers.get(path, index)
            if path.stem in wanted or (path in numbers and number in wanted):
                time = (number - first) / self.rate if self.rate else math.nan
                yield Frame(number, path.stem, time, np.asarray(load_rgb(ImageItem(path, str(path)))))

    def numbers(self) -> dict[int | str, int]:
        """Name of each image, without suffix, -> number of its frame."""
        files = self.files()
        numbers = self._numbers(files)
        return {path.stem: numbers.get(path, index) for index, path in enumerate(files)}

    def files(self) -> list[Path]:
        """The images, by name."""
        names = sorted(name for name in os.listdir(self.path) if name.lower().endswith(image_suffixes()))
        files = [self.path / name for name in names if not name.startswith('.')]
        if not files:
            raise ValueError(f'{self.path}: no image in this folder of frames')
        return files

    def _numbers(self, files: list[Path]) -> dict[Path, int]:
        """The number at the end of each name; nothing where one has none, or two have the same."""
        found = {path: match for path in files if (match := re.search(r'[0-9]+$', path.stem))}
        numbers = {path: int(match[0]) for path, match in found.items()}
        return numbers if len(set(numbers.values())) == len(files) else {}


@dataclass(frozen=True)
class VideoFrames:
    """A video file, decoded by PyAV. It is turned upright as its metadata say.

    Args:
        path: the file.
        first: number of its first frame.
    """

    path: Path
    first: int = 1

    @property
    def length(self) -> int | None:
        """How many frames the file says it has, None where it does not."""
        with _opened(self.path) as container:
            return container.streams.video[0].frames or None

    def read(self, wanted: Collection[int | str]) -> Iterator[Frame]:
        """The `wanted` frames by number, in the order of time; one at a time is in memory.

        Raises:
            ImportError: PyAV is not installed.
            ValueError: not a video, a damaged one, or a frame that is not there.
        """
        if names := [frame for frame in wanted if isinstance(frame, str)]:
            raise ValueError(f'{self.path}: the frames of a video have numbers, not names such as {names[0]!r}')
        if early := [frame for frame in wanted if isinstance(frame, int) and frame < self.first]:
            raise ValueError(f'{self.path}: has no frame {early[0]}, which the boxes name; its first is {self.first}')
        if not wanted:
            return
        last, number = max(int(frame) for frame in wanted), self.first
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            if stream.frames and last >= self.first + stream.frames:  # before the work
                raise self._missing(wanted, self.first + stream.frames)
            stream.thread_type = 'AUTO'
            start = None
            for frame in _decoded(self.path, container, stream):
                start = frame.time if start is None else start
                if number in wanted:
                    time = frame.time - start if frame.time is not None and start is not None else math.nan
                    yield Frame(number, '', time, _upright(frame))
                number += 1
                if number > last:
                    return
        raise self._missing(wanted, number)

    def _missing(self, wanted: Collection[int | str], end: int) -> ValueError:
        missing = sorted(int(frame) for frame in wanted if int(frame) >= end)
        return ValueError(
            f'{self.path}: has {end - self.first} frames, {self.first} to {end - 1}; the boxes name frame {missing[0]} '
            f'({len(missing)} missing)'
        )


def open_frames(
    path: str | os.PathLike[str], *, first: int = 1, rate: float | None = None
) -> FolderFrames | VideoFrames:
    """The frames of a folder or a video.

    Args:
        path: a folder of images or a video file.
        first: number of the first frame of a video.
        rate: frames a second of a folder.

    Raises:
        FileNotFoundError: no such folder or file.
    """
    path = Path(path)
    if path.is_dir():
        return FolderFrames(path, rate)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such video, or folder of frames')
    return VideoFrames(path, first)


def _opened(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(f"{path}: reading videos needs PyAV: pip install 'timm-dpa[video]' ({error})") from error
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f'{path}: cannot be read as a video ({error.strerror})') from error
    if not container.streams.video:
        container.close()
        raise ValueError(f'{path}: there is no video in this file')
    return container


def _decoded(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    import av

    number, damaged = 0, 0
    try:
        for frame in container.decode(stream):
            number += 1
            damaged += frame.is_corrupt
            yield frame
    except av.FFmpegError as error:
        raise ValueError(f'{path}: the video is damaged after {number} frames ({error.strerror})') from error
    finally:
        if damaged:
            _logger.warning('%s: %d of %d frames are damaged', path, damaged, number)


def _upright(frame: Any) -> np.ndarray:
    # degrees counterclockwise
    turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format='rgb24'), turns))
