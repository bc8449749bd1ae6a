"""A still image: where its vehicle stands, which vehicles stand beside it, what hides it, and where the camera is."""

from __future__ import annotations

import numpy as np

from ..render.camera import aim
from ..render.image import Setting
from ..render.tracing import Scene, Solid
from .assets import NEIGHBORS, AssetCache
from .flights import Flight
from .occluders.plants import make_pole
from .occluders.shadow_patterns import sample_shadow_pattern
from .occluders.wall import Wall
from .poses import sample_pose
from .shots import Rendering, Shot, render_shot, visible_share

__all__ = ['render_still']

_TREES = 8
_PATTERNS = 0.33  # share of the sunny images with a pattern of shadow
_HIDDEN = {'none': 0.70, 'tree': 0.07, 'leaves': 0.04, 'pole': 0.04, 'wall': 0.06, 'crop': 0.09}  # shares


def render_still(assets: AssetCache, solo: Scene, flight: Flight, size: int, rng: np.random.Generator) -> Rendering:
    """Place the vehicle in the flight's world and render it.

    Args:
        assets: neighbors and trees.
        solo: the vehicle alone, in its own coordinates.
        flight: place, light and camera.
        size: long side of the crop in pixels.
        rng: generator of everything that differs between two images.
    """
    vehicle = solo.solids[0]
    spot, beside = _park(flight, vehicle, rng, assets)
    height, pitch, azimuth, aside = sample_pose(flight, vehicle, rng)
    light = flight.light.rotated(-spot[2])
    hidden = str(rng.choice(list(_HIDDEN), p=list(_HIDDEN.values())))
    if hidden == 'tree' and height < 16:  # the camera would be among its leaves
        hidden = 'pole'
    shift, hidden_by = rng.normal(0, 0.02, 2), []
    wall = None
    others = list(beside)
    if hidden == 'crop':
        shift = rng.uniform(0.10, 0.38) * np.array([1, 0] if rng.uniform() < 0.5 else [0, 1]) * rng.choice([-1, 1])
        hidden_by.append('crop')
    elif hidden in ('tree', 'leaves'):
        tree = assets.occluder('tree', int(rng.integers(_TREES)))
        if hidden == 'tree':
            others.append(_between_camera_and_vehicle(tree, vehicle, azimuth, pitch, rng))
        else:
            others.append(_between_sun_and_vehicle(tree, vehicle, light.sun, rng))
        hidden_by.append('tree' if hidden == 'tree' else 'shadow')
    elif hidden == 'pole':
        others.append(_place_pole(vehicle, azimuth, rng))
        hidden_by.append('pole')
    elif hidden == 'wall':
        wall = _sample_wall(light.sun, rng)
        hidden_by.append('shadow')
    margin = tuple(rng.uniform(1.04, 1.32, 2))
    roll = rng.normal(0, 0.03)
    view = aim(vehicle.points, height, pitch, azimuth, size, aside=aside, roll=roll, margin=margin, shift=tuple(shift))
    pattern = None
    if light.sunlight.max() > 0 and rng.uniform() < _PATTERNS:
        pattern = sample_shadow_pattern(assets.seed, flight.light.sun, spot, rng)
        left = pattern.sun_left(vehicle.points.T, light.sun, spot)
        if 'shadow' not in hidden_by and (left < 0.5).mean() > 0.02:
            hidden_by.append('shadow')
    if beside and visible_share(solo, Scene([vehicle, *others]), view)[0] < 0.4:
        # neighbors between the vehicle and the camera leave
        near = view.eye[:2] / np.linalg.norm(view.eye[:2])
        kept = [o for o in beside if (o.low[:2] + o.high[:2]) @ near < 0]
        others, beside = [o for o in others if not any(o is b for b in beside)] + kept, kept
    exposure = flight.exposure * float(np.exp(rng.normal(0, 0.07)))
    shot = Shot(
        view,
        Setting(flight.place, spot, light, wall, exposure, pattern),
        tuple(others),
        ('neighbour',) * len(others),
        pitch=float(np.rad2deg(pitch)),
        heading=float(np.rad2deg(-azimuth)),
        hidden_by=tuple(hidden_by),
        neighbors=len(beside),
    )
    return render_shot(solo, shot, rng)


def _sample_wall(sun: np.ndarray, rng: np.random.Generator) -> Wall:
    """Sample a wall whose shadow ends near the vehicle; `sun` in coordinates of the vehicle."""
    level = float(np.linalg.norm(sun[:2]))
    flat = sun[:2] / max(1e-6, level)
    turn = rng.normal(0, 0.5)
    c, s = np.cos(turn), np.sin(turn)
    towards = (float(c * flat[0] - s * flat[1]), float(s * flat[0] + c * flat[1]))
    distance = float(rng.uniform(4, 12))
    reach = distance * float(sun[2]) / max(0.05, level) / np.cos(turn)
    height = reach + float(rng.uniform(-0.6, 1.6))
    return Wall(towards, distance, height, (float(rng.uniform(-30, -2)), float(rng.uniform(2, 30))))


def _park(
    flight: Flight, vehicle: Solid, rng: np.random.Generator, assets: AssetCache
) -> tuple[tuple[float, float, float], list[Solid]]:
    """Sample where the vehicle stands in the place, and the vehicles around it in its own coordinates."""
    place = flight.place
    half_length, half_width = vehicle.footprint
    x = float(rng.uniform(0, 600))
    # where another vehicle may stand: ahead (1) or behind (-1), or meters to the left; and a probability
    slots: list[tuple[str, float, float]] = []
    if place.kind in ('road', 'crossing', 'street'):
        lane = int(rng.integers(-place.lanes, place.lanes))
        y = (lane + 0.5) * place.lane + rng.normal(0, 0.2)
        heading = 0.0 if lane < 0 else np.pi
        if place.kind == 'street' and rng.uniform() < 0.6:  # at the curb
            y = np.sign(y) * (place.lane - half_width - 0.25)
            slots = [('ahead', 1, 0.55), ('ahead', -1, 0.55)]
        else:
            heading += rng.normal(0, 0.05)
            slots = [('ahead', 1, 0.22), ('ahead', -1, 0.22)]
        for step in (-1, 1):
            if -place.lanes <= lane + step < place.lanes:
                slots.append(('beside', step * (1 if heading < 1 else -1) * place.lane, 0.3))
        if rng.uniform() < 0.12:  # turning
            heading, slots = heading + rng.normal(0, 0.6), []
    elif place.kind == 'parking':
        if rng.uniform() < 0.75 and half_length < 4.5:
            bay = int(rng.integers(0, 200))
            x = (bay + 0.5) * place.lane
            y = float(rng.choice([5.5, 10.5])) + rng.normal(0, 0.15)
            heading = float(rng.choice([-1, 1])) * np.pi / 2 + rng.normal(0, 0.03)
            slots = [('beside', place.lane, 0.55), ('beside', -place.lane, 0.55)]
            slots += [('ahead', 1, 0.3), ('ahead', -1, 0.15)]
        else:
            y, heading = rng.normal(0, 0.8), float(rng.choice([0, np.pi])) + rng.normal(0, 0.15)
            slots = [('ahead', 1, 0.15)]
    else:
        y, heading = float(rng.uniform(-4, 4)), float(rng.uniform(-np.pi, np.pi))
        slots = [('beside', s * rng.uniform(2.4, 4.0), 0.25) for s in (-1, 1)]
    beside = []
    for kind, value, chance in slots:
        if rng.uniform() < chance:
            other = assets.neighbor(int(rng.integers(NEIGHBORS)))
            turn = float(rng.choice([0, np.pi]) if place.kind in ('parking', 'yard', 'gravel') else 0)
            turn += rng.normal(0, 0.03)
            if kind == 'ahead':
                away = half_length + other.footprint[0] + rng.uniform(0.5, 2.5)
                beside.append(other.placed(float(value * away), float(rng.normal(0, 0.15)), turn))
            else:
                away = max(abs(value), half_width + other.footprint[1] + 0.45)
                along = rng.normal(0, 0.25) if place.kind != 'road' else rng.uniform(-4, 4)
                beside.append(other.placed(float(along), float(np.sign(value) * away), turn))
    return (x, float(y), float(heading)), _apart(beside)


def _apart(solids: list[Solid]) -> list[Solid]:
    """Drop solids that overlap one already chosen."""
    kept: list[Solid] = []
    for solid in solids:
        if all((solid.low[:2] > o.high[:2]).any() or (o.low[:2] > solid.high[:2]).any() for o in kept):
            kept.append(solid)
    return kept


def _between_camera_and_vehicle(
    tree: Solid, vehicle: Solid, azimuth: float, pitch: float, rng: np.random.Generator
) -> Solid:
    """Place the tree between the camera and a part of the vehicle."""
    middle = (tree.low[2] + tree.high[2]) * 0.6
    radius = (tree.high[0] - tree.low[0]) / 2
    angle = rng.uniform(-np.pi, np.pi)
    reach = np.array(vehicle.footprint) * rng.uniform(0.8, 1.0) + radius * rng.uniform(0.3, 0.75)
    x, y = reach[0] * np.cos(angle), reach[1] * np.sin(angle)
    back = middle / np.tan(pitch)
    return tree.placed(float(x - back * np.cos(azimuth)), float(y - back * np.sin(azimuth)), float(rng.uniform(0, 6)))


def _between_sun_and_vehicle(tree: Solid, vehicle: Solid, sun: np.ndarray, rng: np.random.Generator) -> Solid:
    """Place the tree between the sun and the vehicle."""
    middle = (tree.low[2] + tree.high[2]) * 0.6
    reach = rng.normal(0, 0.7, 2) * vehicle.footprint
    shift = sun[:2] / max(0.2, float(sun[2])) * middle
    return tree.placed(float(reach[0] + shift[0]), float(reach[1] + shift[1]), float(rng.uniform(0, 6)))


def _place_pole(vehicle: Solid, azimuth: float, rng: np.random.Generator) -> Solid:
    """Place a lamp post on the camera's side of the vehicle."""
    pole = make_pole(rng)
    away = np.hypot(*vehicle.footprint) * 0.2 + vehicle.footprint[1] + rng.uniform(0.3, 1.2)
    side = rng.uniform(-0.6, 0.6) * vehicle.footprint[0]
    x, y = -away * np.cos(azimuth) - side * np.sin(azimuth), -away * np.sin(azimuth) + side * np.cos(azimuth)
    # not inside the vehicle
    if abs(x) < vehicle.footprint[0] + 0.2 and abs(y) < vehicle.footprint[1] + 0.2:
        y = np.sign(y + 1e-9) * (vehicle.footprint[1] + 0.4)
    return pole.placed(float(x), float(y), float(rng.uniform(0, 6)))
