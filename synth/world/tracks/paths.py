"""Paths that vehicles drive: around a roundabout, along a bend, through a turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ground import Place

__all__ = ['Path', 'sample_path']

_STEP, _BEYOND = 0.1, 40.0  # meters between two points, and to which a path goes on before and after


@dataclass(frozen=True)
class Path:
    """A path on the ground.

    Attributes:
        points: `(P, 3)` x, y in meters and course in radians counterclockwise, every 0.1 m; courses are continuous.
        length: length that is driven, meters; points reach 40 m beyond both ends.
        beside: distance to the left to the other lane of the same direction, meters; 0 where there is none.
    """

    points: np.ndarray
    length: float
    beside: float

    def at(self, reach: np.ndarray) -> np.ndarray:
        """Return `(N, 3)` x, y and course at `(N,)` meters from the start."""
        where = (np.asarray(reach) + _BEYOND) / _STEP
        index = np.arange(len(self.points))
        return np.stack([np.interp(where, index, self.points[:, i]) for i in range(3)], 1)


def sample_path(place: Place, rng: np.random.Generator) -> Path:
    """Sample a path through a place of one of `TRACK_PLACES`; traffic keeps to the right."""
    return _around(place, rng) if place.radius else _through(place, rng)


def _integrated(curvature: np.ndarray) -> np.ndarray:
    """Integrate `(P,)` curvatures to `(P, 3)` points; they start in the origin along x."""
    course = np.concatenate([[0.0], np.cumsum(curvature[:-1] * _STEP)])
    middle = (course[:-1] + course[1:]) / 2
    x, y = (np.concatenate([[0.0], np.cumsum(part * _STEP)]) for part in (np.cos(middle), np.sin(middle)))
    return np.stack([x, y, course], 1)


def _moved(points: np.ndarray, turn: float, shift: np.ndarray) -> np.ndarray:
    """Rotate points about the origin, then shift them."""
    c, s = np.cos(turn), np.sin(turn)
    x, y = points[:, 0], points[:, 1]
    return np.stack([c * x - s * y + shift[0], s * x + c * y + shift[1], points[:, 2] + turn], 1)


def _around(place: Place, rng: np.random.Generator) -> Path:
    """Sample a path around the origin: 150 to 300 degrees of a roundabout, or 25 to 70 m of a bend."""
    lane = int(rng.integers(place.lanes))
    radius = place.radius + (lane - (place.lanes - 1) / 2) * place.lane + rng.normal(0, 0.15)
    tight = place.circular
    way = 1 if tight else int(rng.choice([-1, 1]))
    angle = np.deg2rad(rng.uniform(150, 300)) if tight else min(rng.uniform(25, 70) / radius, 2.4)
    length = radius * angle
    start = rng.uniform(-np.pi, np.pi) if tight else -way * angle / 2
    s = np.arange(0, length + 2 * _BEYOND + _STEP, _STEP) - _BEYOND
    around = start + way * s / radius
    # drivers do not keep to a circle
    weave = 0.25 * np.sin(s / rng.uniform(6, 12) + rng.uniform(0, 6.28))
    x, y = (radius + weave) * np.cos(around), (radius + weave) * np.sin(around)
    course = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    beside = 0.0 if place.lanes < 2 else way * place.lane * (-1 if lane == 0 else 1)
    return Path(np.stack([x, y, course], 1), float(length), beside)


def _through(place: Place, rng: np.random.Generator) -> Path:
    """Sample a turn of 75 to 180 degrees at a junction, with a piece of road before and after it."""
    kind = rng.uniform()
    turn = np.deg2rad(rng.uniform(150, 180) if kind < 0.3 else rng.uniform(75, 100)) * (1 if kind < 0.75 else -1)
    edge = place.lane * place.lanes
    radius = max(5.5, edge * 0.8) if turn > 2 else rng.uniform(7, 12) if turn > 0 else rng.uniform(5.5, 8)
    before, behind = rng.uniform(4, 14, 2)
    bent = abs(turn) * radius
    length = before + bent + behind
    s = np.arange(0, length + 2 * _BEYOND + _STEP, _STEP) - _BEYOND
    soft = 1.5  # length over which the steering wheel turns, meters
    inside = 1 / (1 + np.exp(-(s - before) / soft * 2)) - 1 / (1 + np.exp(-(s - before - bent) / soft * 2))
    points = _integrated(inside * np.sign(turn) / radius)
    apex = points[np.searchsorted(s, before + bent / 2)]
    # the vehicle comes on the right half of the road along x
    lane = int(rng.integers(place.lanes))
    shift = np.array([rng.normal(0, 1) - apex[0], -(lane + 0.5) * place.lane])
    points = _moved(_moved(points, 0.0, shift), float(rng.integers(4)) * np.pi / 2, np.zeros(2))
    return Path(points, float(length), 0.0 if place.lanes < 2 else place.lane * (-1 if lane == 0 else 1))
