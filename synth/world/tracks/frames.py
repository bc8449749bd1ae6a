"""Frames of a track as shots, in the coordinates of their vehicle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...render.camera import View, crop_view
from ...render.image import Setting
from ...render.shading import Light
from ...render.tracing import Scene, Solid
from ..assets import AssetCache
from ..flights import Flight
from ..occluders.wall import Wall
from ..shots import Shot
from .clips import Clip
from .track import Frame, Track, rotation

__all__ = ['frame_shot']


def _light(frame: Frame, flight: Flight) -> Light:
    """Return the flight's light at that moment, in the vehicle's coordinates."""
    moved = replace(
        flight.light,
        surroundings=flight.light.surroundings * np.float32(frame.glow),
        angle=frame.drift,
        sunlight=flight.light.sunlight * np.float32(frame.sun),
    )
    return moved.rotated(frame.spot[2])


def frame_shot(clip: Clip, track: Track, number: int, solo: Scene, assets: AssetCache) -> tuple[Shot, float]:
    """Return a frame as a shot, and the angle in degrees between the vehicle and the camera's axis."""
    frame, vehicle = track.frames[number], solo.solids[0]
    x, y, course = frame.spot
    eye, axes = frame.pose()
    view = crop_view(vehicle.points, eye, axes, focal=track.focal, margin=frame.margin, shift=frame.shift)
    light = _light(frame, clip.flight)
    turn = rotation(course)[:2, :2]
    others, names = [], []
    share = number / max(1, len(track.frames) - 1)
    for index, first, last, left in track.others:
        near = track.path.at(np.array([track.reach[number] + first + (last - first) * share]))[0]
        side = np.array([-np.sin(near[2]), np.cos(near[2])]) * left
        where = turn @ (near[:2] + side - [x, y])
        others.append(assets.neighbor(index).placed(float(where[0]), float(where[1]), float(near[2] - course)))
        names.append('neighbour')
    count = len(others)
    for each in clip.occluders:
        where = turn @ np.array([each.x - x, each.y - y])
        solid = assets.occluder(each.kind, each.index)
        others.append(solid.placed(float(where[0]), float(where[1]), each.turn - course))
        names.append(each.kind)
    reached = [_matters(solid, view, light, vehicle) for solid in others]
    sight = -eye / np.linalg.norm(eye)
    shot = Shot(
        view,
        Setting(clip.flight.place, frame.spot, light, _moved_wall(clip.wall, frame), frame.exposure, steady=True),
        tuple(solid for solid, kept in zip(others, reached, strict=True) if kept),
        tuple(name for name, kept in zip(names, reached, strict=True) if kept),
        pitch=float(np.rad2deg(np.arcsin(-sight[2]))),
        heading=float(np.rad2deg(course - frame.azimuth)),
        neighbors=sum(reached[:count]),
        find_shadows=True,
    )
    return shot, float(np.rad2deg(np.arccos(np.clip(sight @ axes[2], -1, 1))))


def _moved_wall(wall: Wall | None, frame: Frame) -> Wall | None:
    """Return a wall of the place in the vehicle's coordinates."""
    if wall is None:
        return None
    x, y, course = frame.spot
    ahead, side = np.array(wall.towards), np.array([-wall.towards[1], wall.towards[0]])
    along = float(side @ [x, y])
    a, b = (float(v) for v in rotation(course)[:2, :2] @ ahead)
    distance = wall.distance - float(ahead @ [x, y])
    return Wall((a, b), distance, wall.height, (wall.along[0] - along, wall.along[1] - along))


def _matters(solid: Solid, view: View, light: Light, vehicle: Solid) -> bool:
    """Return whether a solid is in the crop, or its shadow on the ground that the crop shows."""
    points = solid.points
    flat = view.project(points)
    if (flat.max(0) > 0).all() and (flat.min(0) < [view.width, view.height]).all():
        return True
    shadow = points[:, :2] - light.sun[:2] / max(0.05, float(light.sun[2])) * points[:, 2:]
    around = 1.5 * float(np.hypot(*vehicle.footprint)) + 1.0
    return bool((shadow.max(0) > -around).all() and (shadow.min(0) < around).all())
