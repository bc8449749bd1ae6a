"""Crops of the boxes in a frame, as detectors and trackers give them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .images import ImageItem, load_rgb

__all__ = ['crop_boxes', 'parse_boxes']

#: pixels; numbers beyond are no places in a frame, and could not be computed with
_FAR = 1e9
_FORMS = '(N, 4) x1, y1, x2, y2; (N, 5) cx, cy, w, h, radians; or (N, 4, 2) or (N, 8) corners'


def crop_boxes(
    frame: Any, boxes: Any, *, color: str | None = None, margin: float = 0.0, min_side: float = 2
) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut `boxes` out of `frame`.

    A box is clipped to the frame; a pixel that it touches belongs to its crop. An oriented box is turned upright: its
    crop has its width and height, as far as it lies in the frame. Pixels beyond the border repeat those of the border.

    Args:
        frame: `(H, W, 3)` uint8 array, a PIL image or the path of an image. An image is turned as its EXIF block says
            before boxes are cut, as all image viewers do.
        boxes: what `parse_boxes` understands, in pixels of the frame; pixel k of a row reaches from x = k to k + 1.
        color: order of an array's channels, `'rgb'`, or `'bgr'` for frames of OpenCV. There is no default for arrays,
            since a wrong order shows nowhere but in wrong embeddings. None or `'rgb'` for images and paths.
        margin: share of the width and of the height that is added on each side, 0 to 1.
        min_side: width and height in pixels that a box, without its margin, has to have inside the frame; at least 1.

    Returns:
        The crops of the valid boxes in their order, `(h, w, 3)` uint8 RGB, which share no memory with the frame; and
        `valid`, `(N,)` bool. A box is not valid when a number of it is NaN or infinite, when it is inverted (x2 <= x1,
        or corners that are no rectangle), or when too little of it lies inside the frame.

    Raises:
        ValueError: other frames, boxes, colors or numbers.
        TypeError: the frame is no image, or boxes are no numbers.
        FileNotFoundError: no such image file.
        ImageError: an image file that cannot be read.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f'margin must be a share of the side, 0 to 1, not {margin}')
    if not 1 <= min_side < math.inf:
        raise ValueError(f'min_side must be at least 1 pixel, not {min_side}')
    pixels, flipped = _pixels(frame, color)
    numbers = parse_boxes(boxes)
    cut = _upright if numbers.ndim == 2 else _rectified
    crops = [cut(pixels, box, margin, min_side) for box in numbers]
    valid = np.array([crop is not None for crop in crops], bool)
    order = slice(None, None, -1) if flipped else slice(None)
    return [np.array(crop[:, :, order], order='C') for crop in crops if crop is not None], valid


def parse_boxes(boxes: Any) -> np.ndarray:
    """Bring `boxes` to one of two forms.

    Args:
        boxes: array, tensor or list of numbers: `(N, 4)` left, upper, right and lower edge; `(N, 5)` center, width,
            height and angle in radians, clockwise as seen (the x axis turns toward the y axis, which points down), as
            in Ultralytics' `xywhr`; `(N, 4, 2)` or `(N, 8)` corners, which become upper left, upper right, lower right
            and lower left of the crop. Corners that run counterclockwise are taken to start at the lower right, as
            Ultralytics' `xyxyxyxy` does: no crop is a mirror image. Or an object with such an array: `xyxyxyxy` in its
            `data`, an attribute `xyxyxyxy`, or else `xyxy`, such as `supervision.Detections`. Anything without a row
            has no boxes.

    Returns:
        `(N, 4)` edges or `(N, 4, 2)` corners in clockwise order, float64.

    Raises:
        ValueError: another shape. Detectors' rows `x1, y1, x2, y2, score` look like oriented boxes: pass `rows[:, :4]`.
        TypeError: not numbers.
    """
    array = _array(boxes)
    if len(array) == 0:
        return np.empty((0, 4))
    if array.shape[1:] == (4,):
        return array
    if array.shape[1:] == (5,):
        return _corners_of_centers(array)
    if array.shape[1:] in ((8,), (4, 2)):
        corners = array.reshape(-1, 4, 2)
        with np.errstate(all='ignore'):  # a box with NaN has no order
            first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
            mirrored = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0
        return np.where(mirrored[:, None, None], corners[:, [2, 1, 0, 3]], corners)
    hint = '; the first four columns are boxes[:, :4]' if array.ndim == 2 and array.shape[1] > 5 else ''
    hint = '; one box alone is [box]' if array.ndim == 1 else hint
    raise ValueError(f'boxes must be {_FORMS}, not of shape {array.shape}{hint}')


def _array(boxes: Any) -> np.ndarray:
    data = getattr(boxes, 'data', None)
    if isinstance(data, Mapping) and 'xyxyxyxy' in data:
        boxes = data['xyxyxyxy']
    elif getattr(boxes, 'xyxyxyxy', None) is not None:
        boxes = boxes.xyxyxyxy
    elif hasattr(boxes, 'xyxy'):
        boxes = boxes.xyxy
    if isinstance(boxes, torch.Tensor):
        boxes = boxes.detach().to('cpu', torch.float64)
    elif isinstance(boxes, (list, tuple)):
        boxes = [box.detach().cpu().tolist() if isinstance(box, torch.Tensor) else box for box in boxes]
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f'boxes must be numbers, {_FORMS}, not {type(boxes).__name__} ({error})') from error
    if array.ndim == 0:
        raise TypeError(f'boxes must be {_FORMS}, not {type(boxes).__name__}')
    return array


def _corners_of_centers(boxes: np.ndarray) -> np.ndarray:
    with np.errstate(all='ignore'):
        center, (w, h, angle) = boxes[:, None, :2], boxes[:, 2:].T
        sides = np.where((w > 0) & (h > 0), 1, np.nan)  # a negative side would turn the box or mirror it
        along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (sides * w / 2)[:, None]
        across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * (sides * h / 2)[:, None]
        offsets = [-along - across, along - across, along + across, across - along]
        return center + np.stack(offsets, axis=1)


def _pixels(frame: Any, color: str | None) -> tuple[np.ndarray, bool]:
    """`(H, W, 3)` uint8, and whether its channels are in the order of OpenCV."""
    if color not in (None, 'rgb', 'bgr'):
        raise ValueError(f"color must be 'rgb' or 'bgr', not {color!r}")
    if isinstance(frame, np.ndarray):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f'frame must be an array (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}')
        if color is None:
            raise ValueError("frame is an array: say color='bgr' if OpenCV read it, or color='rgb'")
        return frame, color == 'bgr'
    if isinstance(frame, torch.Tensor):
        raise TypeError('frame is a tensor; make it an array: frame.permute(1, 2, 0).cpu().numpy() if it is (3, H, W)')
    if not isinstance(frame, (Image.Image, str, os.PathLike)):
        hint = ', which OpenCV gives for a frame that it cannot read' if frame is None else ''
        raise TypeError(f'frame must be an array (H, W, 3), a PIL image or a path, not {type(frame).__name__}{hint}')
    if color == 'bgr':
        raise ValueError("color='bgr' is for arrays; PIL images and files are read as RGB: leave color out")
    if not isinstance(frame, Image.Image):
        name = os.fspath(frame)
        if not os.path.isfile(name):
            raise FileNotFoundError(f'{name}: no such file')
    else:
        name = 'frame'
    return np.asarray(load_rgb(ImageItem(frame, str(name)))), False


def _upright(pixels: np.ndarray, box: np.ndarray, margin: float, min_side: float) -> np.ndarray | None:
    """The crop of `(x1, y1, x2, y2)`, a view, or None."""
    ends = np.array(pixels.shape[1::-1], float)
    if not np.isfinite(box).all() or np.abs(box).max() > _FAR:
        return None
    if (np.minimum(box[2:], ends) - np.maximum(box[:2], 0)).min() < min_side:
        return None
    added = margin * (box[2:] - box[:2])
    left, top = np.floor(np.clip(box[:2] - added, 0, ends)).astype(int)
    right, bottom = np.ceil(np.clip(box[2:] + added, 0, ends)).astype(int)
    return pixels[top:bottom, left:right]


def _rectified(pixels: np.ndarray, corners: np.ndarray, margin: float, min_side: float) -> np.ndarray | None:
    """The crop of the parallelogram that is nearest to four corners, turned upright, or None."""
    if not np.isfinite(corners).all() or np.abs(corners).max() > _FAR:
        return None
    along = (corners[1] - corners[0] + corners[2] - corners[3]) / 2
    across = (corners[3] - corners[0] + corners[2] - corners[1]) / 2
    sides = np.array([np.hypot(*along), np.hypot(*across)])
    area = along[0] * across[1] - along[1] * across[0]
    if sides.min() < min_side or area < 0.5 * sides.prod():  # angles from 30 to 150 degrees are near enough to a box
        return None
    # x, y = origin + s * along + t * across, with s and t from 0 to 1 in the box
    axes = np.stack([along, across], axis=1)
    origin = corners.mean(axis=0) - (along + across) / 2
    height, width = pixels.shape[:2]
    visible = _visible(origin, axes, 0.0, (width, height))
    if visible is None or ((visible[1] - visible[0]) * sides).min() < min_side:
        return None
    visible = _visible(origin, axes, margin, (width, height))
    assert visible is not None  # it is larger
    size = np.maximum(np.round((visible[1] - visible[0]) * sides), 1).astype(int)
    places = [low + (high - low) * (np.arange(n) + 0.5) / n for low, high, n in zip(*visible, size, strict=True)]
    x, y = (origin[k] + places[0] * axes[k, 0] + places[1][:, None] * axes[k, 1] for k in (0, 1))
    # what the crop needs of the frame, with two pixels around it for the interpolation
    left, right = (int(np.clip(value, 0, width)) for value in (x.min() - 3, x.max() + 4))
    top, bottom = (int(np.clip(value, 0, height)) for value in (y.min() - 3, y.max() + 4))
    part = torch.from_numpy(np.ascontiguousarray(pixels[top:bottom, left:right])).permute(2, 0, 1)[None].float()
    grid = np.stack([(x - left) / (right - left), (y - top) / (bottom - top)], axis=-1) * 2 - 1
    crop = F.grid_sample(
        part, torch.from_numpy(grid)[None].float(), mode='bicubic', padding_mode='border', align_corners=False
    )
    return crop[0].permute(1, 2, 0).round_().clamp_(0, 255).byte().numpy()


def _visible(
    origin: np.ndarray, axes: np.ndarray, margin: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest (s, t) of the part of a box that lies in the frame; None where none does."""
    polygon = [np.array(corner, float) for corner in ((0, 0), (1, 0), (1, 1), (0, 1))]
    polygon = [origin + axes @ (corner * (1 + 2 * margin) - margin) for corner in polygon]
    for axis in (0, 1):
        for sign, bound in ((1, 0), (-1, -size[axis])):  # sign * x >= bound is inside
            clipped = []
            for first, second in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                before, after = sign * first[axis] - bound, sign * second[axis] - bound
                if before >= 0:
                    clipped.append(first)
                if (before >= 0) != (after >= 0):
                    clipped.append(first + (second - first) * (before / (before - after)))
            polygon = clipped
            if not polygon:
                return None
    places = np.linalg.solve(axes, (np.stack(polygon) - origin).T)
    return places.min(axis=1), places.max(axis=1)
