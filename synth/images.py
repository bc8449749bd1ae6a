"""The images of a vehicle as a plan wants them: still images, or the frames of a track."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from timm_dpa.train.data.sensor import Sensor, degrade, vary

from .plan import FOLDERS, Plan
from .render.tracing import Scene
from .vehicles.build import build_solid
from .world.assets import AssetCache
from .world.flights import Flight, sample_flight
from .world.shots import Rendering, render_shot
from .world.stills import render_still
from .world.tracks.clips import Clip, sample_clip
from .world.tracks.frames import frame_shot
from .world.tracks.track import sample_track

__all__ = ['IMAGE_COLUMNS', 'TRACK_COLUMNS', 'RenderedImage', 'render_stills', 'render_track']

#: columns of `images.csv`; a few keep the words of the first data sets
IMAGE_COLUMNS: tuple[str, ...] = (
    'image',
    'vehicle',
    'camera',
    'part',
    'width',
    'height',
    'left',
    'top',
    'right',
    'bottom',
)
IMAGE_COLUMNS += ('visible', 'hidden_by', 'neighbours', 'altitude', 'pitch', 'heading', 'place', 'weather')
IMAGE_COLUMNS += ('sun_height', 'haze', 'blur', 'motion', 'noise', 'jpeg')
#: more columns for tracks: seconds; position and course of the vehicle on the ground (meters, degrees); direction and
#: roll of the camera, and the angle between its axis and the vehicle (degrees); focal length (pixels); exposure, gain
TRACK_COLUMNS = ('time', 'x', 'y', 'course', 'azimuth', 'roll', 'off_axis', 'focal', 'exposure', 'gain')


class RenderedImage(NamedTuple):
    """One image of a data set.

    Attributes:
        path: path below the root.
        quality: JPEG quality.
        pixels: `(H, W, 3)` uint8.
        row: its row of `images.csv`.
    """

    path: str
    quality: int
    pixels: np.ndarray
    row: list[str]


def render_stills(plan: Plan, number: int, assets: AssetCache, flights: dict[int, Flight]) -> Iterator[RenderedImage]:
    """Render the still images of a vehicle.

    Args:
        plan: plan of the data set.
        number: number of the vehicle.
        assets: cache of neighbors and trees.
        flights: cache of flights.
    """
    solid, body = build_solid(plan.identity(number))
    solo = Scene([solid])
    for n, flight_number, path in plan.shots(number):
        if flight_number not in flights:
            flights[flight_number] = sample_flight(plan.seed, flight_number, plan.degradation)
        flight = flights[flight_number]
        rng = np.random.default_rng([plan.seed, number, n, 21])
        size = _sample_size(plan, flight, body.length, rng)
        rendering = render_still(assets, solo, flight, size, rng)
        sensor = vary(flight.sensor, rng, plan.degradation)
        pixels = degrade(rendering.pixels, sensor, rng) if plan.degradation else rendering.pixels
        yield RenderedImage(path, sensor.quality, pixels, _row(path, number, flight, pixels, rendering, sensor))


def render_track(plan: Plan, number: int, assets: AssetCache, clips: dict[int, Clip]) -> Iterator[RenderedImage]:
    """Render the frames of a vehicle's track; arguments as of `render_stills`, with a cache of clips."""
    solid, _ = build_solid(plan.identity(number))
    solo = Scene([solid])
    shots = plan.shots(number)
    flight_number = shots[0][1]
    if flight_number not in clips:
        clips[flight_number] = sample_clip(plan.seed, flight_number, plan.degradation)
    clip = clips[flight_number]
    rng = np.random.default_rng([plan.seed, number, 37])
    track = sample_track(clip, solid, len(shots), plan.sizes, rng, plan.degradation)
    for (n, _, path), frame in zip(shots, track.frames, strict=True):
        rng = np.random.default_rng([plan.seed, number, n, 38])
        shot, off_axis = frame_shot(clip, track, n, solo, assets)
        rendering = render_shot(solo, shot, rng)
        pixels = degrade(rendering.pixels, frame.sensor, rng) if plan.degradation else rendering.pixels
        x, y, course = frame.spot
        row = [
            *_row(path, number, clip.flight, pixels, rendering, frame.sensor),
            *(f'{v:.2f}' for v in (frame.time, x, y)),
            *(f'{v:.1f}' for v in (*np.rad2deg([course, frame.azimuth, frame.roll]), off_axis)),
            f'{track.focal:.0f}',
            *(f'{v:.2f}' for v in (frame.exposure, frame.sensor.gain)),
        ]
        yield RenderedImage(path, frame.sensor.quality, pixels, row)


def _row(path: str, number: int, flight: Flight, pixels: np.ndarray, rendering: Rendering, sensor: Sensor) -> list[str]:
    """Return the columns `IMAGE_COLUMNS` of an image."""
    part = next(part for part, folder in FOLDERS.items() if path.startswith(folder + '/'))
    shot = rendering.shot
    heading = (shot.heading + 180) % 360 - 180
    return [
        path,
        f'{number:04d}',
        str(flight.number),
        part,
        *(str(side) for side in pixels.shape[1::-1]),
        *(f'{v:.1f}' for v in rendering.box),
        f'{rendering.visible:.2f}',
        ' '.join(rendering.hidden_by),
        str(shot.neighbors),
        *(f'{v:.1f}' for v in (shot.view.eye[2], shot.pitch, heading)),
        flight.place.kind,
        flight.weather,
        f'{flight.sun_height:.0f}',
        *(f'{v:.2f}' for v in (sensor.haze, sensor.lens, np.hypot(*sensor.motion))),
        f'{sensor.noise:.1f}',
        str(sensor.quality),
    ]


def _sample_size(plan: Plan, flight: Flight, length: float, rng: np.random.Generator) -> int:
    """Sample the long side of a crop in pixels, which depends on the flight and the vehicle's length."""
    low, high = plan.sizes
    if low == high:
        return low
    pixels = low * (high / low) ** flight.scale * np.exp(rng.normal(0, 0.18)) * (length / 4.6) ** 0.7
    return int(np.clip(round(pixels), low, high))
