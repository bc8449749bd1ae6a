"""Walls that shade vehicles and stand out of sight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ['Wall', 'past_wall']


@dataclass(frozen=True)
class Wall:
    """Something tall out of sight, such as a house, that shades a part of the ground.

    Attributes:
        towards: `(2,)` unit vector on the ground, from the origin to the wall.
        distance: distance of the wall from the origin, meters.
        height: height of the wall, meters.
        along: where the wall starts and ends, meters to the left of `towards`.
    """

    towards: tuple[float, float]
    distance: float
    height: float
    along: tuple[float, float]


def past_wall(wall: Wall | None, points: np.ndarray, sun: np.ndarray) -> np.ndarray | np.float32:
    """Return the share of the sun that a wall leaves at points.

    Args:
        wall: in the coordinates of the points, or None.
        points: `(3, N)` meters.
        sun: `(3,)` unit vector to the sun.

    Returns:
        `(N,)` in 0..1, or the number 1 where nothing is shaded.
    """
    if wall is None:
        return np.float32(1)
    a, b = wall.towards
    speed = float(sun[0] * a + sun[1] * b)
    if speed < 1e-3:
        return np.float32(1)
    time = (wall.distance - points[0] * a - points[1] * b) / speed
    height = points[2] + time * float(sun[2])
    along = (points[1] + time * float(sun[1])) * a - (points[0] + time * float(sun[0])) * b
    # the edge of the shadow is as soft as the sun is wide
    cover = np.clip((wall.height - height) / (0.03 * wall.distance) + 0.5, 0, 1)
    return 1 - cover * ((time > 0) & (along > wall.along[0]) & (along < wall.along[1]))
