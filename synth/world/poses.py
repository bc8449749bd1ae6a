"""Poses of a camera that sees a vehicle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..render.tracing import Solid
from .flights import Flight

__all__ = ['Pose', 'sample_pose']

_LOWEST = 8.0  # height of a camera, meters
_WIDEST = np.deg2rad(72)  # angle between a camera's axis and anything in its image


class Pose(NamedTuple):
    """Arguments of `camera.aim`.

    Attributes:
        height: height of the camera, meters.
        pitch, azimuth: direction of the line of sight, radians.
        aside: angles by which the camera's axis points past the vehicle, to the left and down, radians.
    """

    height: float
    pitch: float
    azimuth: float
    aside: tuple[float, float]


def sample_pose(flight: Flight, vehicle: Solid, rng: np.random.Generator) -> Pose:
    """Sample one of a flight's views of a vehicle. Low views are along roads: of the rear, less often of the front.

    Args:
        flight: gives height, pitch and lens.
        vehicle: vehicle in its own coordinates.
        rng: generator of what differs between images.
    """
    pitch = float(np.deg2rad(np.clip(flight.pitch + rng.normal(0, 4 if flight.pitch > 40 else 2.5), 15, 89.9)))
    height = flight.height * np.exp(rng.normal(0, 0.08))
    # no part of the vehicle may lie beside or above the camera
    height = max(height, _LOWEST, 3 + float(vehicle.high[2]), 2.1 * vehicle.footprint[0] * np.sin(pitch))
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
    aside = _aside(pitch, azimuth, float(off * np.cos(around)), float(off * np.sin(around)))
    return Pose(height, pitch, azimuth, aside)


def _aside(pitch: float, azimuth: float, left: float, down: float) -> tuple[float, float]:
    """Convert angles past the vehicle in the image to those of the axis about the vertical and below the horizon."""
    sight = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), -np.sin(pitch)])
    to_left = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    to_foot = np.array([-np.sin(pitch) * np.cos(azimuth), -np.sin(pitch) * np.sin(azimuth), -np.cos(pitch)])
    down = max(down, -pitch)  # not above the horizon
    axis = sight + np.tan(left) * to_left + np.tan(down) * to_foot
    axis /= np.linalg.norm(axis)
    turn = np.arctan2(axis[1], axis[0]) - azimuth
    return float((turn + np.pi) % (2 * np.pi) - np.pi), float(np.arcsin(-axis[2]) - pitch)
