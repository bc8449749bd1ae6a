"""What a user uploads: an image, or a video of which a frame is picked; and the box around a vehicle in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ...embedding.boxes import crop_boxes
from ...embedding.images import Decoding, ImageError, ImageItem, load_rgb
from ...embedding.video import VideoFrames
from .access import Limits

__all__ = ['Scene', 'crop_scene', 'open_scene', 'parse_box', 'pick_frame']

#: suffixes of videos; anything else is read as an image
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ts', '.webm')
_SMALLEST = 8  # pixels of a side of a box


@dataclass(frozen=True)
class Scene:
    """An image that was uploaded, or a frame of a video.

    Attributes:
        picture: RGB.
        name: of the file, as the user knows it.
        video: where the video lies; empty for an image.
        frames: of the video that can be picked; 1 for an image.
        number: of this frame, from 1.
    """

    picture: Image.Image
    name: str
    video: str = ''
    frames: int = 1
    number: int = 1


def open_scene(path: str | os.PathLike[str], limits: Limits) -> Scene:
    """Read an upload.

    Raises:
        ValueError: it is empty, too large, damaged, or neither an image nor a video; the message names it.
        ImportError: it is a video, and PyAV is not installed.
    """
    path = Path(path)
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f'{path.name}: the file is empty')
    if size > limits.upload_bytes:
        raise ValueError(f'{path.name}: {size / 1e6:.1f} MB are more than the {limits.upload_bytes / 1e6:g} MB allowed')
    if path.suffix.lower() in VIDEOS:
        try:
            frames = min(VideoFrames(path).length or limits.video_frames, limits.video_frames)
        except ValueError as error:
            raise ValueError(_named(error, path)) from error
        return pick_frame(Scene(Image.new('RGB', (1, 1)), path.name, str(path), frames), 1, limits)
    try:
        picture = load_rgb(ImageItem(path, path.name), Decoding(max_pixels=limits.pixels))
    except ImageError as error:
        advice = '' if 'max_pixels' in str(error) else '; give a JPEG, PNG or WebP file, or a video'
        raise ValueError(str(error).replace(f'max_pixels={limits.pixels}', f'{limits.pixels:,}') + advice) from error
    return Scene(picture, path.name)


def pick_frame(scene: Scene, number: int, limits: Limits) -> Scene:
    """Another frame of the video of a scene.

    Raises:
        ValueError: the scene is an image, there is no such frame, or it is damaged or too large.
    """
    if not scene.video:
        raise ValueError(f'{scene.name}: is an image, which has no frames')
    if not 1 <= number <= scene.frames:
        raise ValueError(f'{scene.name}: frame must be in 1..{scene.frames}, not {number}')
    try:
        frame = next(VideoFrames(Path(scene.video)).read([number]))
    except ValueError as error:
        raise ValueError(_named(error, Path(scene.video))) from error
    height, width = frame.pixels.shape[:2]
    if height * width > limits.pixels:
        raise ValueError(
            f'{scene.name}: frames of {width} x {height} pixels are larger than the {limits.pixels:,} allowed'
        )
    return replace(scene, picture=Image.fromarray(frame.pixels), number=number)


def parse_box(values: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 in pixels of a picture of `size` (width, height), from what a browser sent; None for no box.

    Raises:
        ValueError: not four numbers, or a box with less than 8 pixels of a side in the picture.
    """
    if values is None:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError('box: must be four numbers, the left, upper, right and lower edge') from error
    x1, x2 = (min(max(x, 0.0), float(size[0])) for x in (x1, x2))  # NaN stays, and fails below
    y1, y2 = (min(max(y, 0.0), float(size[1])) for y in (y1, y2))
    if not (x2 - x1 >= min(_SMALLEST, size[0]) and y2 - y1 >= min(_SMALLEST, size[1])):
        raise ValueError(f'box: must be at least {_SMALLEST} pixels wide and high inside of the picture')
    return x1, y1, x2, y2


def crop_scene(scene: Scene, box: tuple[float, float, float, float] | None) -> Image.Image:
    """The part of a scene in a box, or all of it."""
    if box is None:
        return scene.picture
    crops, _ = crop_boxes(scene.picture, [box])
    return Image.fromarray(crops[0])


def _named(error: Exception, path: Path) -> str:
    """The message with the name of the file alone: where it lies is nobody's business."""
    return str(error).replace(str(path), path.name)
