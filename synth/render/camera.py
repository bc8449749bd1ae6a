"""The pinhole camera of a drone, and rays through the pixels of a crop of its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ['View', 'aim', 'crop_view']


@dataclass(frozen=True)
class View:
    """A crop of a camera's image.

    Attributes:
        eye: `(3,)` position of the camera, meters.
        axes: `(3, 3)` its axes, in rows: right, down, forward.
        focal: focal length in pixels.
        center: (column, row) of the principal point in pixels of the crop, often outside of it.
        width, height: size of the crop in pixels.
    """

    eye: np.ndarray
    axes: np.ndarray
    focal: float
    center: tuple[float, float]
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project `(..., 3)` meters to `(..., 2)` column and row; the center of the first pixel is (0.5, 0.5)."""
        seen = (points - self.eye) @ self.axes.T
        return seen[..., :2] / seen[..., 2:] * self.focal + np.array(self.center)

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return unit directions `(..., 3)` float32 of the rays through points of the image, in pixels."""
        a = ((columns - self.center[0]) / self.focal).astype(np.float32)
        b = ((rows - self.center[1]) / self.focal).astype(np.float32)
        scale = 1 / np.sqrt(1 + a * a + b * b)
        right, down, forward = self.axes.astype(np.float32)
        directions = np.empty((*a.shape, 3), np.float32)
        for axis in range(3):
            directions[..., axis] = (a * right[axis] + b * down[axis] + forward[axis]) * scale
        return directions


def aim(
    points: np.ndarray,
    height: float,
    pitch: float,
    azimuth: float,
    size: int,
    *,
    aside: tuple[float, float] = (0.0, 0.0),
    roll: float = 0.0,
    margin: tuple[float, float] = (1.1, 1.1),
    shift: tuple[float, float] = (0.0, 0.0),
) -> View:
    """Aim a drone's camera at the origin and crop its image to some points.

    Args:
        points: `(N, 3)` meters, around the origin; the crop is their box, enlarged.
        height: height of the camera above the ground, meters.
        pitch: angle of the line to the origin below the horizon, radians; 90 degrees is straight down.
        azimuth: direction in which the camera looks, radians counterclockwise from the x axis.
        size: long side of the crop in pixels.
        aside: angles by which the camera's axis points past the origin, to the left and down, radians.
        roll: roll of the camera, radians.
        margin: width and height of the crop, relative to the box.
        shift: shift of the crop, in widths and heights of the box.
    """
    to_origin = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), -np.sin(pitch)])
    eye = -to_origin * height / np.sin(pitch)
    dip, turn = pitch + aside[1], azimuth + aside[0]
    forward = np.array([np.cos(dip) * np.cos(turn), np.cos(dip) * np.sin(turn), -np.sin(dip)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    axes = np.stack([c * right + s * down, c * down - s * right, forward])
    return crop_view(points, eye, axes, size=size, margin=margin, shift=shift)


def crop_view(
    points: np.ndarray,
    eye: np.ndarray,
    axes: np.ndarray,
    *,
    size: int | None = None,
    focal: float | None = None,
    margin: tuple[float, float] = (1.1, 1.1),
    shift: tuple[float, float] = (0.0, 0.0),
) -> View:
    """Crop the image of a camera whose pose is known to some points.

    Args:
        points: `(N, 3)` meters; the crop is their box, enlarged.
        eye, axes: pose of the camera, see `View`.
        size: long side of the crop in pixels, from which the focal length follows.
        focal: focal length in pixels, from which the size follows. Exactly one of both is given.
        margin, shift: see `aim`.
    """
    if (size is None) == (focal is None):
        raise ValueError('give either size or focal')
    flat = View(eye, axes, 1.0, (0.0, 0.0), 1, 1).project(points)
    low, high = flat.min(axis=0), flat.max(axis=0)
    extent = high - low
    window = extent * np.array(margin)
    if focal is None:
        focal = size / window.max()
    middle = (low + high) / 2 + np.array(shift) * extent
    width, tall = (max(8, int(v)) for v in np.round(window * focal))
    center = (width / 2 - middle[0] * focal, tall / 2 - middle[1] * focal)
    return View(eye, axes, float(focal), center, width, tall)
