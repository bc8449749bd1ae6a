"""A track: a drone watches a vehicle drive through a roundabout, a bend or a turn, frame after frame.

Everything changes slowly: the heading, the height of the drone, the vehicle's position in the image, light, exposure
and air. The place does not change: the vehicle drives through the shadows of what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from timm_dpa.train.data.sensor import Sensor

from ...render.camera import crop_view
from ...render.tracing import Solid
from ..assets import NEIGHBORS
from .clips import Clip
from .paths import Path, sample_path

__all__ = ['Frame', 'Track', 'sample_track']

_OFF_AXIS = np.deg2rad(32)  # largest angle between a wide lens' axis and what is in the image


@dataclass(frozen=True)
class Frame:
    """One moment of a track.

    Attributes:
        time: seconds since the first frame.
        spot: (x, y, course) of the vehicle in coordinates of the place, meters and radians.
        eye: `(3,)` position of the camera in coordinates of the place, meters.
        azimuth, pitch, roll: pose of the camera, radians; a positive roll leans it to its right.
        margin, shift: margin and shift of the crop, see `timm_dpa.synth.render.camera.aim`.
        exposure: factor on all radiance.
        sun: share of the sun that clouds let through.
        glow: factor on the surroundings that paint and glass reflect.
        drift: angle by which the clouds have moved, radians.
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

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return eye and axes of the camera in the vehicle's coordinates, as `View` has them."""
        x, y, course = self.spot
        turn = rotation(course)
        p, a = self.pitch, self.azimuth
        forward = np.array([np.cos(p) * np.cos(a), np.cos(p) * np.sin(a), -np.sin(p)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        down = np.cross(forward, right)
        c, s = np.cos(self.roll), np.sin(self.roll)
        axes = np.stack([c * right - s * forward, down, c * forward + s * right])
        return turn @ (self.eye - [x, y, 0]), axes @ turn.T


@dataclass(frozen=True)
class Track:
    """A vehicle's path below a drone.

    Attributes:
        frames: frames in the order of time.
        focal: focal length of all frames, in pixels of the crops.
        path: path that the vehicle drives.
        reach: `(N,)` meters along the path, for each frame.
        others: vehicles near it: index of the neighbor, meters ahead in the first and in the last frame, meters to the
            left.
    """

    frames: tuple[Frame, ...]
    focal: float
    path: Path
    reach: np.ndarray
    others: tuple[tuple[int, float, float, float], ...]


def rotation(angle: float) -> np.ndarray:
    """Return the `(3, 3)` matrix from coordinates of the place to those rotated by `angle` counterclockwise."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _walk(rng: np.random.Generator, t: np.ndarray, start: float, end: float, wobble: float) -> np.ndarray:
    """Sample a slow walk from `start` to `end`: `(N,)` values at the times `t` in 0..1."""
    walk = start + (end - start) * (t + rng.uniform(-0.6, 0.6) * np.sin(2 * np.pi * t) / (2 * np.pi))
    for k in (1, 2, 3):
        walk = walk + wobble * rng.normal() / k**1.5 * np.sin(np.pi * k * t)
    return walk


def _apart(rng: np.random.Generator, least: float, most: float) -> tuple[float, float]:
    """Sample two values around 0 that clearly differ."""
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
) -> Track:
    """Sample the frames of one vehicle.

    Args:
        clip: flight that sees it.
        vehicle: the vehicle in its own coordinates.
        count: number of frames.
        sizes: long sides of the crops in pixels: none is longer than the second, few are shorter than the first.
        rng: generator of the track.
        strength: strength of what happens to camera and air on the way; 0 is a perfect camera.
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
    shifts = rng.normal(0, 0.012, (count, 2)).clip(-0.03, 0.03)
    exposure = flight.exposure * np.exp(_walk(rng, t, *_apart(rng, 0.3, 0.8), 0.1))
    sun = _clouds_pass(rng, t, flight.weather)
    glow = np.exp(_walk(rng, t, *_apart(rng, 0.4, 1.6), 0.3))
    drift = _walk(rng, t, *_apart(rng, 0.1, 0.7), 0.1)
    sensors = _drift(flight.sensor, heights, t, rng, strength)
    seconds = reach / rng.uniform(4.5, 8.5)
    frames = tuple(
        Frame(
            time=float(seconds[n]),
            spot=tuple(spots[n].tolist()),
            eye=eyes[n],
            azimuth=float(azimuth[n]),
            pitch=float(pitch[n]),
            roll=float(roll[n]),
            margin=tuple(margins[n].tolist()),
            shift=tuple(shifts[n].tolist()),
            exposure=float(exposure[n]),
            sun=float(sun[n]),
            glow=float(glow[n]),
            drift=float(drift[n]),
            sensor=sensors[n],
        )
        for n in range(count)
    )
    views = (crop_view(vehicle.points, *f.pose(), focal=4000.0, margin=f.margin) for f in frames)
    longest = max(max(view.width, view.height) for view in views)
    return Track(frames, float(4000.0 * top / longest), path, reach, _sample_neighbors(rng, vehicle, path))


def _climb(rng: np.random.Generator, t: np.ndarray, least: float, most: float) -> np.ndarray:
    """Sample heights of the drone, meters: most climb, some stay or come down; `most` is the largest factor."""
    lowest = max(least, rng.uniform(18, 34))
    most = min(most, 5.0, max(1.0, 160 / lowest))
    kind = rng.uniform()
    share = rng.uniform(0.75, 1.0) if kind < 0.9 else rng.uniform(0.0, 0.35)
    factor = most**share
    ends: tuple[float, float] = (lowest * factor, lowest) if 0.78 <= kind < 0.9 else (lowest, lowest * factor)
    return _walk(rng, t, *ends, 0.0)


def _offsets(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Sample `(N, 2)` meters by which the drone is beside the middle of the path."""
    start, end = rng.normal(0, 2.0, 2), rng.normal(0, 3.0, 2)
    return np.stack([_walk(rng, t, float(start[i]), float(end[i]), 0.6) for i in range(2)], 1)


def _clouds_pass(rng: np.random.Generator, t: np.ndarray, weather: str) -> np.ndarray:
    """Sample the share of the sun that clouds leave, `(N,)`."""
    if weather != 'broken' and rng.uniform() > 0.15:
        return np.ones(len(t))
    edge, width = rng.uniform(0.15, 0.85), rng.uniform(0.08, 0.25)
    cover = 1 / (1 + np.exp(-(t - edge) / width * 4))
    cover = cover if rng.uniform() < 0.5 else 1 - cover
    return 1 - rng.uniform(0.5, 0.95) * cover


def _drift(
    sensor: Sensor, heights: np.ndarray, t: np.ndarray, rng: np.random.Generator, strength: float
) -> list[Sensor]:
    """Sample camera and air of every frame: haze grows with the height, the rest wanders."""
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
    # video keeps less of what is small in the image
    reduce = (sensor.reduce + s * rng.uniform(0.3, 1.2) * span) * np.exp(s * _walk(rng, t, *_apart(rng, 0, 0.4), 0.05))
    motion = np.array(sensor.motion) * (0.4 + np.abs(_walk(rng, t, rng.normal(), rng.normal(), 0.5)))[:, None]
    return [
        replace(
            sensor,
            haze=float(np.clip(haze[n], 0, 0.62)) if s else 0.0,
            air=tuple(np.clip(tone, 120, 225).tolist()),
            gain=float(gain[n]),
            balance=tuple(balance[n].tolist()),
            saturation=float(saturation[n]),
            lens=float(lens[n]),
            motion=tuple(motion[n].tolist()),
            reduce=float(max(1.0, reduce[n])),
        )
        for n in range(len(t))
    ]


def _sample_neighbors(
    rng: np.random.Generator, vehicle: Solid, path: Path
) -> tuple[tuple[int, float, float, float], ...]:
    """Sample vehicles in front of, behind and beside it, see `Track.others`."""
    found = []
    for way in (-1, 1):
        if rng.uniform() < 0.25:
            gap = way * (vehicle.footprint[0] + 6.0 + rng.uniform(1.0, 6.0))
            found.append((int(rng.integers(NEIGHBORS)), gap, gap + way * rng.uniform(0, 4), 0.0))
    if path.beside and rng.uniform() < 0.3:
        start = rng.uniform(-9, 9)
        found.append((int(rng.integers(NEIGHBORS)), start, start + rng.uniform(-9, 9), path.beside))
    return tuple((n, float(a), float(b), float(c)) for n, a, b, c in found)
