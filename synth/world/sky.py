"""What paint and glass reflect: sky, clouds, the halo of the sun, trees and houses, as one environment map.

The map is a stereographic projection from below: a direction (x, y, z) lies at (x, y) / (1 + z), so that a look-up
needs no angle. It reaches a little below the horizon.
"""

from __future__ import annotations

import numpy as np

from .random_field import random_field

__all__ = ['REACH', 'SIZE', 'sample_sky']

SIZE = 384  # side of the map in texels
REACH = 1.3  # from the middle of the map, the zenith, to its sides; the horizon is at 1
_FIELD = 256


def sample_sky(
    rng: np.random.Generator, weather: str, sun: np.ndarray, zenith: np.ndarray, horizon: np.ndarray
) -> np.ndarray:
    """Sample the surroundings of a flight.

    Args:
        rng: generator of clouds, trees and houses.
        weather: clear, hazy, broken or overcast.
        sun: `(3,)` unit vector to the sun.
        zenith, horizon: `(3,)` radiance of the sky between clouds.

    Returns:
        `(3, SIZE * SIZE)` float32 radiance, rows along y.
    """
    sun, zenith, horizon = (np.asarray(v, np.float32) for v in (sun, zenith, horizon))
    # white balance neutralizes the light, but not the blue of reflections
    blue = rng.uniform(0.2, 1.0) * {'clear': 1.0, 'hazy': 0.35, 'broken': 0.8, 'overcast': 0.08}[weather]
    zenith = zenith * np.array([1 - 0.45 * blue, 1 - 0.12 * blue, 1 + 0.25 * blue], np.float32)
    side = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1) * REACH
    square = side[None] ** 2 + side[:, None] ** 2
    z = (1 - square) / (1 + square)
    x, y = side[None] * (1 + z), side[:, None] * (1 + z)
    low = (1 - np.clip(z, 0, 1)) ** 3
    sky = zenith[:, None, None] + low * (horizon - zenith)[:, None, None]
    near = np.clip(x * sun[0] + y * sun[1] + z * sun[2], 0, 1)
    halo = 2.2 * near**8
    if weather in ('clear', 'hazy', 'broken'):
        halo = halo + rng.uniform(1.0, 5.0) * near**60
    sky = sky + halo * horizon[:, None, None]
    sky = _clouds(rng, weather, sky, x, y, z, near)
    sky = _skyline(rng, sky, x, y, z)
    return np.clip(sky, 0.004, 6).reshape(3, -1).astype(np.float32)


def _wrapped(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Look up the field at coordinates in texels."""
    size = len(field)
    return field[np.floor(y).astype(np.int32) % size, np.floor(x).astype(np.int32) % size]


def _clouds(
    rng: np.random.Generator,
    weather: str,
    sky: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    near: np.ndarray,
) -> np.ndarray:
    """Add clouds; `near` is the cosine of the angle to the sun."""
    shape = random_field(rng, _FIELD, rng.uniform(50, 130), 3, 1.7)
    detail = random_field(rng, _FIELD, 30, 2, 1.2)
    # clouds at one height crowd and flatten toward the horizon
    spread = rng.uniform(30, 75) / (np.clip(z, 0, 1) + 0.25)
    form, grain = _wrapped(shape, x * spread, y * spread), _wrapped(detail, x * spread, y * spread)
    if weather == 'overcast':
        waves = np.exp(rng.uniform(0.25, 0.6) * form + 0.12 * grain)
        return sky * (waves / waves[z > 0].mean())
    cover, hard, veil = {
        'clear': (rng.uniform(-0.05, 0.3), rng.uniform(1.5, 4), rng.uniform(0.6, 1.0)),
        'hazy': (rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.5), rng.uniform(0.3, 0.7)),
        'broken': (rng.uniform(0.3, 0.7), rng.uniform(2, 5), rng.uniform(0.8, 1.0)),
    }[weather]
    edge = 1.3 - 2.2 * cover  # in standard deviations of the field
    thick = np.clip((form + 0.35 * grain - edge) * hard * 0.5, 0, 1)
    thick = thick * thick * (3 - 2 * thick) * veil
    # clouds near the sun shine at their edges; their thick middles are gray
    bright = rng.uniform(0.7, 1.4) * (1 + 0.9 * near**6) * (1 - rng.uniform(0.2, 0.6) * thick * thick)
    bright = bright * (1 + 0.18 * grain)
    return sky + thick * (bright - sky)


def _skyline(rng: np.random.Generator, sky: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Add trees and houses around, and crowns overhead."""
    angle = np.arctan2(y, x)
    grain = random_field(rng, _FIELD, 24, 2, 0.8)
    texture = _wrapped(grain, angle * (_FIELD / (2 * np.pi)), z * 120)
    line = random_field(rng, _FIELD, 90, 3, 1.1)[0]
    crowns = line[((angle / (2 * np.pi)) * _FIELD).astype(np.int32) % _FIELD]
    lean = rng.normal(0, 0.12, 2).tolist()
    top = rng.uniform(0.0, 0.28) + lean[0] * x + lean[1] * y + rng.uniform(0.02, 0.10) * crowns
    green = np.array([0.9, 1.0, 0.6], np.float32) * float(np.exp(rng.uniform(np.log(0.02), np.log(0.10))))
    hidden = np.clip((top - z) * 20 + 0.5 + 0.4 * texture, 0, 1)
    sky = sky + hidden * (green[:, None, None] * np.exp(0.5 * texture) - sky)
    height = z / np.sqrt(1 - np.clip(z, 0, 0.95) ** 2)
    for _ in range(int(rng.integers(0, 9))):  # houses
        middle, half, roof = rng.uniform(-np.pi, np.pi), rng.uniform(0.08, 0.5), rng.uniform(0.08, 0.62)
        tone = float(np.exp(rng.uniform(np.log(0.05), np.log(0.6)))) * (1 + rng.normal(0, 0.06, 3)).astype(np.float32)
        away = np.abs((angle - middle + np.pi) % (2 * np.pi) - np.pi)
        inside = np.clip((half - away) * 40, 0, 1) * np.clip((roof - z) * 40, 0, 1)
        rows = np.where(np.sin(height * rng.uniform(30, 70)) > 0.2, np.float32(0.45), np.float32(1))
        sky = sky + inside * (tone[:, None, None] * rows - sky)
    if rng.uniform() < 0.45:
        for _ in range(int(rng.integers(1, 5))):
            up, around = rng.uniform(0.3, 0.95), rng.uniform(-np.pi, np.pi)
            flat = float(np.sqrt(1 - up * up))
            cosine = x * (flat * float(np.cos(around))) + y * (flat * float(np.sin(around))) + z * up
            size = float(np.cos(rng.uniform(0.12, 0.5)))
            patch = _wrapped(grain, x * 150, y * 150)
            inside = np.clip((cosine - size) / (1 - size) * 3 + 0.5 * patch, 0, 1) * rng.uniform(0.7, 1.0)
            sky = sky + inside * (green[:, None, None] * np.exp(0.4 * patch) - sky)
    return sky
