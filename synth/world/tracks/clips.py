"""Clips: flights over a roundabout, a bend or a junction, and what casts shadows there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..flights import Flight, sample_flight
from ..occluders.wall import Wall

__all__ = ['Clip', 'Occluder', 'sample_clip']

#: kind -> number of different solids
_KINDS = {'palm': 8, 'tree': 8, 'pole': 4}


@dataclass(frozen=True)
class Occluder:
    """Something upright that stands in a place.

    Attributes:
        kind: `'tree'`, `'palm'` or `'pole'`.
        index: number of the solid among those of its kind.
        x, y, turn: position and rotation in coordinates of the place, meters and radians.
    """

    kind: str
    index: int
    x: float
    y: float
    turn: float


@dataclass(frozen=True)
class Clip:
    """What the tracks of one flight share.

    Attributes:
        flight: place, weather and camera; its pitch is that of the camera's axis.
        occluders: trees, palms and poles that stand in the place.
        wall: wall in coordinates of the place, or None.
        azimuth: direction of the camera's upper edge, radians counterclockwise from the place's x axis.
    """

    flight: Flight
    occluders: tuple[Occluder, ...]
    wall: Wall | None
    azimuth: float


def sample_clip(seed: int, number: int, strength: float = 1.0) -> Clip:
    """Sample a flight over a place where vehicles turn; arguments as of `sample_flight`."""
    rng = np.random.default_rng([seed, number, 35])
    flight = sample_flight(seed, number, strength)
    kind = str(rng.choice(['roundabout', 'bend', 'junction'], p=[0.6, 0.17, 0.23]))
    radius = {'roundabout': rng.uniform(9, 19), 'bend': rng.uniform(28, 60), 'junction': 0.0}[kind]
    lanes = int(rng.integers(1, 3))
    tilt = rng.uniform()
    pitch = rng.uniform(83, 90) if tilt < 0.75 else rng.uniform(68, 83) if tilt < 0.9 else rng.uniform(50, 68)
    place = replace(flight.place, kind=kind, lanes=lanes, lane=float(rng.uniform(3.3, 4.4)), radius=float(radius))
    flight = replace(flight, place=place, pitch=float(pitch))
    return Clip(flight, _sample_occluders(flight, rng), _sample_wall(flight, rng), float(rng.uniform(-np.pi, np.pi)))


def _on_road(flight: Flight, x: float, y: float, free: float) -> bool:
    """Return whether a point is on the road or nearer to it than `free` meters."""
    place = flight.place
    edge = place.lane * place.lanes
    if place.radius:
        return abs(np.hypot(x, y) - place.radius) < edge / 2 + free
    return min(abs(x), abs(y)) < edge + free


def _sample_road_point(flight: Flight, rng: np.random.Generator) -> tuple[float, float]:
    """Sample a point on the road."""
    place = flight.place
    edge = place.lane * place.lanes
    if place.radius:
        angle = rng.uniform(-np.pi, np.pi) if place.circular else rng.normal(0, 20 / place.radius)
        radius = place.radius + rng.uniform(-0.5, 0.5) * edge
        return float(radius * np.cos(angle)), float(radius * np.sin(angle))
    along, across = rng.normal(0, 11), rng.uniform(-0.9, 0.9) * edge
    return (float(along), float(across)) if rng.uniform() < 0.5 else (float(across), float(along))


def _sample_occluders(flight: Flight, rng: np.random.Generator) -> tuple[Occluder, ...]:
    """Sample trees, palms and poles beside the road whose shadows fall on it."""
    occluders: list[Occluder] = []
    sun = flight.light.sun
    away = sun[:2] / max(0.3, float(sun[2]))
    palms = rng.uniform()  # most places have mainly palms or mainly trees
    for _ in range(int(rng.integers(7, 14))):
        kind = str(rng.choice(['palm', 'tree', 'pole'], p=[0.75 * palms, 0.75 * (1 - palms), 0.25]))
        free = {'palm': 0.6, 'tree': 1.2, 'pole': 0.4}[kind]
        for _ in range(20):
            target = np.array(_sample_road_point(flight, rng))
            x, y = target + away * rng.uniform(3.5, 7) + rng.normal(0, 0.5, 2)
            near = any(np.hypot(x - c.x, y - c.y) < 2.5 for c in occluders)
            if not near and not _on_road(flight, x, y, free):
                index, turn = int(rng.integers(_KINDS[kind])), float(rng.uniform(0, 6.28))
                occluders.append(Occluder(kind, index, float(x), float(y), turn))
                break
    return tuple(occluders)


def _sample_wall(flight: Flight, rng: np.random.Generator) -> Wall | None:
    """Sample, in a third of the places, a house out of sight whose shadow falls on a part of the road."""
    if rng.uniform() > 0.35:
        return None
    flat = flight.light.sun[:2] / max(1e-6, float(np.linalg.norm(flight.light.sun[:2])))
    angle = np.arctan2(flat[1], flat[0]) + rng.normal(0, 0.4)
    towards = (float(np.cos(angle)), float(np.sin(angle)))
    place = flight.place
    half = place.radius if place.circular else place.lane * place.lanes
    distance = half + float(rng.uniform(12, 22))
    # the edge of its shadow crosses the road near the middle of the place
    rise = float(flight.light.sun[2]) / max(0.05, float(flat @ flight.light.sun[:2]))
    height = float(np.clip((distance - rng.uniform(-0.5, 0.9) * half) * rise, 4, 40))
    along = np.array([rng.uniform(-40, -4), rng.uniform(4, 40)])
    if place.radius and not place.circular:  # the middle of a bend is not the origin
        distance += place.radius * towards[0]
        along -= place.radius * towards[1]
    return Wall(towards, distance, height, (float(along[0]), float(along[1])))
