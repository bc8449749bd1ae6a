"""Where a camera is that sees a vehicle, and what it is aimed at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..render.tracing import Solid
from .flights import Flight

__all__ = ['Pose', 'sample_pose']

_LEAST = 8.0  # meters of height
_WIDEST = np.deg2rad(72)  # from a camera's axis to anything that its picture shows


class Pose(NamedTuple):
    """Arguments of `camera.aim`.

    Attributes:
        height: meters.
        pitch, azimuth: of the line of sight, radians.
        aside: angles, radians, by which the camera's axis points past the vehicle, to the left and down.
    """

    height: float
    pitch: float
    azimuth: float
    aside: tuple[float, float]


def sample_pose(flight: Flight, vehicle: Solid, rng: np.random.Generator) -> Pose:
    """One of a flight's views of a vehicle.

    Views from low down are along roads: of the rear, less often of the front.

    Args:
        flight: its height, pitch and lens.
        vehicle: in its own coordinates.
        rng: of what differs between images.
    """
    pitch = float(np.deg2rad(np.clip(flight.pitch + rng.normal(0, 4 if flight.pitch > 40 else 2.5), 15, 89.9)))
    height = flight.height * np.exp(rng.normal(0, 0.08))
    # never so near that a part of it lies beside or above the camera
    height = max(height, _LEAST, 3 + float(vehicle.high[2]), 2.1 * vehicle.footprint[0] * np.sin(pitch))
    height = float(min(height, 120))
    azimuth = float(rng.uniform(-np.pi, np.pi))
    along, spread = rng.uniform(), rng.normal(0, 0.28)
    if pitch < np.deg2rad(40) and along < 0.85:
        azimuth = float(spread if along < 0.6 else spread + np.pi)
        azimuth = (azimuth + np.pi) % (2 * np.pi) - np.pi
    distance = height / np.sin(pitch)
    room = _WIDEST - np.arctan2(1.15 * np.hypot(*vehicle.footprint), max(0.5, distance - float(vehicle.high[2])))
    off = min(np.deg2rad(flight.lens) * np.sqrt(rng.uniform()), max(0.0, float(room)))
    around = rng.uniform(-np.pi, np.pi)
    return Pose(
        height, pitch, azimuth, _aside(pitch, azimuth, float(off * np.cos(around)), float(off * np.sin(around)))
    )


def _aside(pitch: float, azimuth: float, left: float, down: float) -> tuple[float, float]:
    """From angles past the vehicle in the picture to those of the axis about the vertical and below the horizon."""
    sight = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), -np.sin(pitch)])
    to_left = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    to_foot = np.array([-np.sin(pitch) * np.cos(azimuth), -np.sin(pitch) * np.sin(azimuth), -np.cos(pitch)])
    down = max(down, -pitch)  # not above the horizon
    axis = sight + np.tan(left) * to_left + np.tan(down) * to_foot
    axis /= np.linalg.norm(axis)
    turn = np.arctan2(axis[1], axis[0]) - azimuth
    return float((turn + np.pi) % (2 * np.pi) - np.pi), float(np.arcsin(-axis[2]) - pitch)
