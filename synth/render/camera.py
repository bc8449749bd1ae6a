"""The pinhole camera of a drone, and rays through the pixels of a crop of its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ['View', 'aim', 'crop_view']


@dataclass(frozen=True)
class View:
    """A crop of what a camera sees.

    Attributes:
        eye: `(3,)` where the camera is.
        axes: `(3, 3)` rows right, down, forwards.
        focal: in pixels.
        center: (column, row) of the camera's axis in pixels of the crop; mostly outside of it.
        width, height: of the crop in pixels.
    """

    eye: np.ndarray
    axes: np.ndarray
    focal: float
    center: tuple[float, float]
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """`(..., 3)` meters -> `(..., 2)` column, row; the first pixel's middle is (0.5, 0.5)."""
        seen = (points - self.eye) @ self.axes.T
        return seen[..., :2] / seen[..., 2:] * self.focal + np.array(self.center)

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Unit directions `(..., 3)` float32 through places in pixels."""
        a = ((columns - self.center[0]) / self.focal).astype(np.float32)
        b = ((rows - self.center[1]) / self.focal).astype(np.float32)
        scale = 1 / np.sqrt(1 + a * a + b * b)
        right, down, forward = self.axes.astype(np.float32)
        ways = np.empty((*a.shape, 3), np.float32)
        for axis in range(3):
            ways[..., axis] = (a * right[axis] + b * down[axis] + forward[axis]) * scale
        return ways


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
    """The crop around some points, as a drone sees it.

    Args:
        points: `(N, 3)` meters around the origin; the crop is their box, enlarged.
        height: of the camera above the ground, meters.
        pitch: angle of the line to the origin below the horizon, radians; 90 degrees is straight down.
        azimuth: the direction in which the camera looks, radians from the x axis counterclockwise.
        size: long side of the crop in pixels.
        aside: angles, radians, by which the camera's axis points past the origin, to the left and down.
        roll: radians.
        margin: width and height of the crop in widths and heights of the box.
        shift: of the crop, in widths and heights of the box.
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
    """The crop around some points, of a camera whose pose is known.

    Args:
        points: `(N, 3)` meters; the crop is their box, enlarged.
        eye, axes: of the camera, see `View`.
        size: long side of the crop in pixels, from which the focal length follows.
        focal: in pixels, from which the size of the crop follows; one of both is given.
        margin, shift: see `aim`.
    """
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
