"""Flights: one camera over one place in one light, which sees many vehicles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timm_dpa.train.data.sensor import Sensor, draw_sensor

from ..render.shading import LINEAR, Light
from ..vehicles.colors import as_rgb
from .ground import PLACES, Place
from .sky import sample_sky

__all__ = ['Flight', 'sample_flight']

_WEATHER = {'clear': 0.45, 'hazy': 0.22, 'broken': 0.13, 'overcast': 0.20}


@dataclass(frozen=True)
class Flight:
    """What the images of one camera share.

    Attributes:
        number: number of the camera, from 1.
        height: height above the ground, meters.
        pitch: angle of the lines of sight below the horizon, degrees.
        lens: angle from the axis of the camera to the corner of its image, degrees.
        weather: a key of `_WEATHER`.
        sun_height: height of the sun above the horizon, degrees.
        scale: size of a crop of a car of 4.6 m: position in the range of sizes, 0..1, on a logarithmic scale.
        place: look of the ground.
        light: light in coordinates of the place.
        exposure: factor on all radiance.
        sensor: camera and air.
    """

    number: int
    height: float
    pitch: float
    lens: float
    weather: str
    sun_height: float
    scale: float
    place: Place
    light: Light
    exposure: float
    sensor: Sensor


def sample_flight(seed: int, number: int, strength: float = 1.0) -> Flight:
    """Sample the flight of that number; the same arguments give the same flight.

    Args:
        seed: seed of the data set.
        number: number of the flight.
        strength: strength of the degradation by camera and air; 0 is a perfect camera.
    """
    rng = np.random.default_rng([seed, number, 22])
    weather = str(rng.choice(list(_WEATHER), p=list(_WEATHER.values())))
    sun_height = float(rng.uniform(18, 68))
    way = rng.uniform()
    low = way < 0.26
    return Flight(
        number=number,
        height=float(8 * (5 if low else 15) ** rng.uniform()),
        pitch=float(rng.uniform(15, 40) if low else rng.uniform(78, 90) if way < 0.52 else rng.uniform(38, 80)),
        lens=float(rng.uniform(12, 36)),
        weather=weather,
        sun_height=sun_height,
        scale=float(rng.uniform()),
        place=_sample_place(rng, number, low),
        light=_sample_light(rng, weather, np.deg2rad(sun_height)),
        exposure=float(np.exp(rng.normal(0.08, 0.16))),
        sensor=draw_sensor(rng, strength),
    )


def _sample_place(rng: np.random.Generator, number: int, low: bool) -> Place:
    kind = PLACES[number % len(PLACES)]
    if rng.uniform() >= 0.5:
        kind = str(rng.choice(PLACES, p=[0.3, 0.25, 0.12, 0.1, 0.05, 0.18]))
    if low and rng.uniform() < 0.8:  # as seen along roads and from bridges
        kind = str(rng.choice(['road', 'crossing', 'street'], p=[0.7, 0.2, 0.1]))
    if kind == 'gravel':
        base = np.array([148, 138, 120]) * rng.uniform(0.8, 1.1)
    elif kind == 'yard':
        base = np.array([150, 147, 141]) * rng.uniform(0.75, 1.15)
    else:
        base = np.full(3, rng.uniform(72, 136)) + rng.normal(0, 1.5, 3) + [0, 0, 1.5]
    green = np.array([86, 98, 58]) * rng.uniform(0.7, 1.15) + rng.normal(0, 8, 3)
    bare = np.array([142, 132, 112]) * rng.uniform(0.8, 1.1)
    beside = green if rng.uniform() < 0.7 else bare
    return Place(
        kind,
        as_rgb(base, 50, 200),
        as_rgb(beside, 30, 200),
        lane=float(rng.uniform(2.4, 2.8) if kind == 'parking' else rng.uniform(3.0, 3.7)),
        lanes=1 if kind == 'street' else int(rng.integers(1, 4)),
        paint=float(rng.uniform(0.1, 1.0)),
        rough=float(rng.uniform(0, 1)),
        seed=int(rng.integers(1000)),
    )


def _sample_light(rng: np.random.Generator, weather: str, height: float) -> Light:
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)])
    share = {
        'clear': rng.uniform(0.16, 0.30),
        'hazy': rng.uniform(0.35, 0.6),
        'broken': rng.uniform(0.25, 0.45),
        'overcast': 1.0,
    }[weather]
    if weather == 'overcast':
        zenith, horizon = np.array([1.0, 1.0, 1.01]), np.full(3, rng.uniform(0.55, 0.8))
    else:
        blue = {'clear': 1.0, 'hazy': 0.4, 'broken': 0.6}[weather]
        zenith = 1 + blue * np.array([-0.17, -0.02, 0.22])
        horizon = np.array([0.98, 1.0, 1.03]) * rng.uniform(1.6, 2.8)
    level = 0.62 * zenith + 0.38 * horizon
    factor = share / level.mean()
    zenith, horizon = zenith * factor, horizon * factor
    level = level * factor
    # white in full light stays white, so the sun gives what the sky does not
    sunlight = np.clip(1 - level, 0, None) / sun[2] if weather != 'overcast' else np.zeros(3)
    around = LINEAR[int(rng.uniform(85, 125))]
    sun, sunlight, zenith, horizon = (v.astype(np.float32) for v in (sun, sunlight, zenith, horizon))
    return Light(
        sun,
        sunlight,
        zenith,
        horizon,
        ground=np.full(3, around, np.float32),
        angular_radius=float({'clear': 0.012, 'hazy': 0.04, 'broken': 0.03, 'overcast': 0.1}[weather]),
        surroundings=sample_sky(rng, weather, sun, zenith, horizon),
    )
