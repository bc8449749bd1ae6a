"""Tracks: a drone that watches a vehicle drive through a roundabout, a bend or a turn, frame after frame.

Everything changes slowly: heading, height of the drone, where in the picture the vehicle is, light on it, exposure,
air. What does not change is the place: trees, palms, posts and a wall stand where they stand, and the vehicle drives
through their shadows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from timm_dpa.train.data.sensor import Sensor

from ..render.camera import View, crop_view
from ..render.image import Setting, Wall
from ..render.shading import Light
from ..render.tracing import Scene, Solid
from .clips import Caster, Clip
from .flights import Flight
from .paths import Path, sample_path
from .plants import make_palm, make_post
from .scenes import AssetCache, Shot

__all__ = ['Frame', 'Track', 'frame_shot', 'sample_track']

_NEIGHBORS = 48  # of which others are picked
_OFF_AXIS = np.deg2rad(32)  # as far from the middle of the picture as a wide lens shows things


@dataclass(frozen=True)
class Frame:
    """One moment of a track.

    Attributes:
        time: seconds from the first frame.
        spot: (x, y, course) of the vehicle in coordinates of the place, meters and radians.
        eye: `(3,)` the camera, in coordinates of the place.
        azimuth, pitch, roll: of the camera, radians; the roll leans it to its right.
        margin, shift: of the crop, see `timm_dpa.synth.render.camera.aim`.
        exposure: factor.
        sun: share of the sun that clouds let through.
        glow: factor for the clouds that paint and glass reflect.
        drift: radians by which the clouds have moved.
        sensor: camera and air.
    """

    time: float
    spot: tuple[float, float, float]
    eye: np.ndarray
    azimuth: float
    pitch: float
    roll: float
    margin: tuple[float, float]
    shift: tuple[float, float]
    exposure: float
    sun: float
    glow: float
    drift: float
    sensor: Sensor


@dataclass(frozen=True)
class Track:
    """A vehicle's way below a drone.

    Attributes:
        frames: in the order of time.
        focal: of all frames, pixels of the crops.
        path: that the vehicle drives.
        reach: `(N,)` meters along the path, of each frame.
        others: vehicles near it: number of the neighbor, meters ahead in the first and in the last frame, meters to
            the left.
    """

    frames: tuple[Frame, ...]
    focal: float
    path: Path
    reach: np.ndarray
    others: tuple[tuple[int, float, float, float], ...]


# --- the track of a vehicle -------------------------------------------------------------------------------------------


def _walk(rng: np.random.Generator, t: np.ndarray, start: float, end: float, wobble: float) -> np.ndarray:
    """A slow way from `start` to `end`: `(N,)` at the times `t` in 0..1."""
    way = start + (end - start) * (t + rng.uniform(-0.6, 0.6) * np.sin(2 * np.pi * t) / (2 * np.pi))
    for k in (1, 2, 3):
        way = way + wobble * rng.normal() / k**1.5 * np.sin(np.pi * k * t)
    return way


def _apart(rng: np.random.Generator, least: float, most: float) -> tuple[float, float]:
    """Two ends around 0 that are clearly different."""
    gap = rng.uniform(least, most) * rng.choice([-1, 1])
    start = -gap * rng.uniform(0.25, 0.75)
    return float(start), float(start + gap)


def sample_track(
    clip: Clip,
    vehicle: Solid,
    count: int,
    sizes: tuple[int, int],
    rng: np.random.Generator,
    strength: float = 1.0,
    clean: bool = False,
) -> Track:
    """The frames of one vehicle.

    Args:
        clip: the flight that sees it.
        vehicle: in its own coordinates.
        count: of frames.
        sizes: of the crops' long sides in pixels: none is longer than the second, few are shorter than the first.
        rng: where the numbers come from.
        strength: of what happens to camera and air on the way, see `draw_sensor`.
        clean: no vehicles near it, and the crop without shifts.
    """
    flight = clip.flight
    t = np.linspace(0, 1, count)
    path = sample_path(flight.place, rng)
    reach = path.length * (t + rng.uniform(-0.25, 0.25) * np.sin(2 * np.pi * t) / (2 * np.pi))
    spots = path.at(reach)
    low, high = sizes
    top = high * np.exp(-abs(rng.normal(0, 0.12)))
    middle = spots[:, :2].mean(axis=0)
    if flight.place.circular:
        middle = middle * rng.uniform(0, 0.6)
    far = float(np.linalg.norm(spots[:, :2] - middle, axis=1).max()) + 1.0
    heights = _climb(rng, t, far / np.tan(_OFF_AXIS), max(1.0, top / (2 * low)))
    pitch = np.deg2rad(flight.pitch + _walk(rng, t, *_apart(rng, 0.5, 4), 1.0))
    pitch = np.minimum(pitch, np.pi - pitch)
    azimuth = clip.azimuth + np.deg2rad(_walk(rng, t, *_apart(rng, 2, 16), 3.0))
    roll = np.deg2rad(_walk(rng, t, *_apart(rng, 0.5, 4), 1.0))
    base = middle + _offsets(rng, t)
    back = heights / np.tan(pitch)
    eyes = np.stack([base[:, 0] - back * np.cos(azimuth), base[:, 1] - back * np.sin(azimuth), heights], 1)
    margins = 1.16 + np.stack([_walk(rng, t, *_apart(rng, 0.0, 0.1), 0.02) for _ in range(2)], 1)
    margins = np.clip(margins + rng.normal(0, 0.012, (count, 2)), 1.07, 1.4)
    shifts = np.zeros((count, 2)) if clean else rng.normal(0, 0.012, (count, 2)).clip(-0.03, 0.03)
    exposure = flight.exposure * np.exp(_walk(rng, t, *_apart(rng, 0.3, 0.8), 0.1))
    sun = _clouds_pass(rng, t, flight.weather)
    glow = np.exp(_walk(rng, t, *_apart(rng, 0.4, 1.6), 0.3))
    drift = _walk(rng, t, *_apart(rng, 0.1, 0.7), 0.1)
    sensors = _drift(flight.sensor, heights, t, rng, strength)
    seconds = reach / rng.uniform(4.5, 8.5)
    frames = tuple(
        Frame(
            time=float(seconds[n]),
            spot=tuple(float(v) for v in spots[n]),
            eye=eyes[n],
            azimuth=float(azimuth[n]),
            pitch=float(pitch[n]),
            roll=float(roll[n]),
            margin=tuple(float(v) for v in margins[n]),
            shift=tuple(float(v) for v in shifts[n]),
            exposure=float(exposure[n]),
            sun=float(sun[n]),
            glow=float(glow[n]),
            drift=float(drift[n]),
            sensor=sensors[n],
        )
        for n in range(count)
    )
    points = vehicle.corners.reshape(-1, 3)
    longest = max(
        max(v.width, v.height) for v in (crop_view(points, *_pose(f), focal=4000.0, margin=f.margin) for f in frames)
    )
    others = () if clean else _company(rng, vehicle, path)
    return Track(frames, float(4000.0 * top / longest), path, reach, others)


def _climb(rng: np.random.Generator, t: np.ndarray, least: float, most: float) -> np.ndarray:
    """Heights of the drone, meters: most climb, some stay or come down; `most` is the largest factor."""
    lowest = max(least, rng.uniform(18, 34))
    most = min(most, 5.0, max(1.0, 160 / lowest))
    kind = rng.uniform()
    share = rng.uniform(0.75, 1.0) if kind < 0.9 else rng.uniform(0.0, 0.35)
    factor = most**share
    ends = (lowest * factor, lowest) if 0.78 <= kind < 0.9 else (lowest, lowest * factor)
    return _walk(rng, t, *ends, 0.0)


def _offsets(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """`(N, 2)` meters by which the drone is beside the middle of the path."""
    start, end = rng.normal(0, 2.0, 2), rng.normal(0, 3.0, 2)
    return np.stack([_walk(rng, t, float(start[i]), float(end[i]), 0.6) for i in range(2)], 1)


def _clouds_pass(rng: np.random.Generator, t: np.ndarray, weather: str) -> np.ndarray:
    """Share of the sun that is left, `(N,)`."""
    if weather != 'broken' and rng.uniform() > 0.15:
        return np.ones(len(t))
    edge, width = rng.uniform(0.15, 0.85), rng.uniform(0.08, 0.25)
    cover = 1 / (1 + np.exp(-(t - edge) / width * 4))
    cover = cover if rng.uniform() < 0.5 else 1 - cover
    return 1 - rng.uniform(0.5, 0.95) * cover


def _drift(
    sensor: Sensor, heights: np.ndarray, t: np.ndarray, rng: np.random.Generator, strength: float
) -> list[Sensor]:
    """Camera and air of every frame: what air adds grows with the height, the rest wanders."""
    s = strength
    span = (heights - heights.min()) / max(1e-6, float(np.ptp(heights)))
    veil = s * rng.beta(2.4, 2.0) * 0.8
    haze = sensor.haze * 0.5 + veil * span * (np.ptp(heights) > 10) + s * np.abs(_walk(rng, t, 0, 0, 0.03))
    tone = np.array(sensor.air) * rng.uniform(0.75, 1.05) * np.exp(rng.normal(0, 0.05, 3)) + [0, 0, rng.uniform(0, 16)]
    gain = sensor.gain * np.exp(s * _walk(rng, t, *_apart(rng, 0.15, 0.45), 0.06))
    warm, green = (s * _walk(rng, t, *_apart(rng, low, high), 0.01) for low, high in ((0.08, 0.3), (0.02, 0.08)))
    balance = np.array(sensor.balance) * np.exp(np.stack([warm / 2 - green / 2, green / 2, -warm / 2 - green / 2], 1))
    saturation = sensor.saturation * np.exp(s * _walk(rng, t, *_apart(rng, 0.1, 0.7), 0.08))
    lens = sensor.lens * np.exp(_walk(rng, t, *_apart(rng, 0, 0.5), 0.15))
    # video keeps less of what is small
    reduce = (sensor.reduce + s * rng.uniform(0.3, 1.2) * span) * np.exp(s * _walk(rng, t, *_apart(rng, 0, 0.4), 0.05))
    motion = np.array(sensor.motion) * (0.4 + np.abs(_walk(rng, t, rng.normal(), rng.normal(), 0.5)))[:, None]
    return [
        replace(
            sensor,
            haze=float(np.clip(haze[n], 0, 0.62)) if s else 0.0,
            air=tuple(float(v) for v in np.clip(tone, 120, 225)),
            gain=float(gain[n]),
            balance=tuple(float(v) for v in balance[n]),
            saturation=float(saturation[n]),
            lens=float(lens[n]),
            motion=tuple(float(v) for v in motion[n]),
            reduce=float(max(1.0, reduce[n])),
        )
        for n in range(len(t))
    ]


def _company(rng: np.random.Generator, vehicle: Solid, path: Path) -> tuple[tuple[int, float, float, float], ...]:
    """Vehicles before, behind and beside it, see `Track.others`."""
    found = []
    for way in (-1, 1):
        if rng.uniform() < 0.25:
            gap = way * (vehicle.footprint[0] + 6.0 + rng.uniform(1.0, 6.0))
            found.append((int(rng.integers(_NEIGHBORS)), gap, gap + way * rng.uniform(0, 4), 0.0))
    if path.beside and rng.uniform() < 0.3:
        start = rng.uniform(-9, 9)
        found.append((int(rng.integers(_NEIGHBORS)), start, start + rng.uniform(-9, 9), path.beside))
    return tuple((n, float(a), float(b), float(c)) for n, a, b, c in found)


# --- a frame in the coordinates of its vehicle ------------------------------------------------------------------------


def _turn(angle: float) -> np.ndarray:
    """`(3, 3)` from coordinates of the place to those turned by `angle` counterclockwise."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _pose(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Eye and axes of the camera in the vehicle's coordinates."""
    x, y, course = frame.spot
    turn = _turn(course)
    p, a = frame.pitch, frame.azimuth
    forward = np.array([np.cos(p) * np.cos(a), np.cos(p) * np.sin(a), -np.sin(p)])
    right = np.array([np.sin(a), -np.cos(a), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(frame.roll), np.sin(frame.roll)
    axes = np.stack([c * right - s * forward, down, c * forward + s * right])
    return turn @ (frame.eye - [x, y, 0]), axes @ turn.T


def _light(frame: Frame, flight: Flight) -> Light:
    """The flight's light as it is at that moment, in the vehicle's coordinates."""
    moved = replace(
        flight.light,
        surroundings=flight.light.surroundings * np.float32(frame.glow),
        angle=frame.drift,
        sunlight=flight.light.sunlight * np.float32(frame.sun),
    )
    return moved.turned(frame.spot[2])


def frame_shot(clip: Clip, track: Track, number: int, solo: Scene, assets: AssetCache) -> tuple[Shot, float]:
    """A frame as a shot, and the angle in degrees between the vehicle and the camera's axis."""
    frame, vehicle = track.frames[number], solo.solids[0]
    x, y, course = frame.spot
    eye, axes = _pose(frame)
    points = vehicle.corners.reshape(-1, 3)
    view = crop_view(points, eye, axes, focal=track.focal, margin=frame.margin, shift=frame.shift)
    light = _light(frame, clip.flight)
    turn = _turn(course)[:2, :2]
    others, names = [], []
    share = number / max(1, len(track.frames) - 1)
    for index, first, last, left in track.others:
        near = track.path.at(np.array([track.reach[number] + first + (last - first) * share]))[0]
        side = np.array([-np.sin(near[2]), np.cos(near[2])]) * left
        where = turn @ (near[:2] + side - [x, y])
        others.append(assets.neighbor(index).placed(float(where[0]), float(where[1]), float(near[2] - course)))
        names.append('neighbour')
    count = len(others)
    for caster in clip.casters:
        where = turn @ np.array([caster.x - x, caster.y - y])
        others.append(_solid(caster, assets).placed(float(where[0]), float(where[1]), caster.turn - course))
        names.append(caster.kind)
    reached = [_matters(solid, view, light, vehicle) for solid in others]
    wall = clip.wall
    if wall is not None:
        ahead, side = np.array(wall.towards), np.array([-wall.towards[1], wall.towards[0]])
        along = float(side @ [x, y])
        wall = Wall(
            tuple(float(v) for v in turn @ ahead),
            wall.distance - float(ahead @ [x, y]),
            wall.height,
            (wall.along[0] - along, wall.along[1] - along),
        )
    sight = -eye / np.linalg.norm(eye)
    shot = Shot(
        view,
        Setting(clip.flight.place, frame.spot, light, wall, frame.exposure, steady=True),
        tuple(solid for solid, kept in zip(others, reached, strict=True) if kept),
        tuple(name for name, kept in zip(names, reached, strict=True) if kept),
        pitch=float(np.rad2deg(np.arcsin(-sight[2]))),
        heading=float(np.rad2deg(course - frame.azimuth)),
        neighbors=sum(reached[:count]),
        casts=True,
    )
    return shot, float(np.rad2deg(np.arccos(np.clip(sight @ axes[2], -1, 1))))


def _solid(caster: Caster, assets: AssetCache) -> Solid:
    if caster.kind == 'tree':
        return assets.tree(caster.index)
    make = make_palm if caster.kind == 'palm' else make_post
    return assets.kept(caster.kind, caster.index, lambda: make(np.random.default_rng([assets.seed, caster.index, 36])))


def _matters(solid: Solid, view: View, light: Light, vehicle: Solid) -> bool:
    """Whether a solid is in the crop, or its shadow on the ground that the crop shows."""
    flat = view.project(solid.outline())
    if (flat.max(0) > 0).all() and (flat.min(0) < [view.width, view.height]).all():
        return True
    points = solid.outline()
    shadow = points[:, :2] - light.sun[:2] / max(0.05, float(light.sun[2])) * points[:, 2:]
    around = 1.5 * float(np.hypot(*vehicle.footprint)) + 1.0
    return bool((shadow.max(0) > -around).all() and (shadow.min(0) < around).all())
