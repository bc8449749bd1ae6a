"""From a clean render to what a drone's camera stores: haze, blur, resolution, color, noise, sharpening.

Also of use as augmentation while training: `draw_sensor` and `degrade` work on any RGB image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

__all__ = ['Sensor', 'degrade', 'draw_sensor', 'vary']


@dataclass(frozen=True)
class Sensor:
    """What happens to an image, in this order.

    Attributes:
        haze: share of the light that is the air's, 0..1.
        air: sRGB of the air, 0..255.
        gain: contrast about mid-gray, 1 leaves it.
        balance: `(3,)` factors of red, green and blue.
        saturation: 1 leaves colors as they are.
        lens: radius of the lens' blur, pixels (standard deviation).
        motion: `(2,)` pixels over which the image moves while it is taken: columns, rows.
        reduce: factor to a lower resolution and back, from 1.
        fringe: pixels by which red and blue lie apart.
        sharpen: strength of the halo that cameras add at edges.
        noise: standard deviation in the mid-tones, of 255.
        color_noise: share of the noise that differs between channels.
        quality: of JPEG.
    """

    haze: float = 0.0
    air: tuple[float, float, float] = (196.0, 200.0, 206.0)
    gain: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    lens: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    reduce: float = 1.0
    fringe: float = 0.0
    sharpen: float = 0.0
    noise: float = 0.0
    color_noise: float = 0.5
    quality: int = 92


def draw_sensor(rng: np.random.Generator, strength: float = 1.0) -> Sensor:
    """A camera and its air.

    Args:
        rng: where the numbers come from.
        strength: 0 is a perfect camera, 1 what drones bring home, more is worse.
    """
    s = strength
    tone = rng.uniform(168, 214)
    angle = rng.uniform(0, 2 * np.pi)
    motion = s * rng.gamma(1.2, 0.7)
    return Sensor(
        haze=float(np.clip(s * rng.beta(1.1, 3.6) * 0.85, 0, 0.75)),
        air=(tone, tone + rng.uniform(0, 5), tone + rng.uniform(0, 11)),
        gain=float(np.exp(s * rng.normal(0, 0.12))),
        balance=tuple(np.exp(s * rng.normal(0, 0.014, 3))),
        saturation=float(np.exp(s * rng.normal(-0.1, 0.2))),
        lens=float(s * rng.uniform(0.3, 0.9)),
        motion=(float(motion * np.cos(angle)), float(motion * np.sin(angle))),
        reduce=float(1 + s * max(0.0, rng.normal(0.0, 0.45))),
        fringe=float(s * rng.uniform(0, 0.5)),
        sharpen=float(s * rng.choice([0.0, rng.uniform(0.2, 1.1)])),
        noise=float(s * rng.gamma(2.0, 1.3)),
        color_noise=float(rng.uniform(0.2, 0.7)),
        quality=int(np.clip(96 - s * rng.gamma(2.0, 6.0), 35, 97)),
    )


def vary(sensor: Sensor, rng: np.random.Generator, strength: float = 1.0) -> Sensor:
    """The same camera a little later."""
    s = strength
    angle = rng.uniform(0, 2 * np.pi)
    length = np.hypot(*sensor.motion) * rng.uniform(0, 2)
    return replace(
        sensor,
        haze=float(np.clip(sensor.haze * np.exp(s * rng.normal(0, 0.25)), 0, 0.8)),
        gain=float(sensor.gain * np.exp(s * rng.normal(0, 0.05))),
        balance=tuple(float(b * np.exp(s * rng.normal(0, 0.004))) for b in sensor.balance),  # type: ignore[arg-type]
        lens=float(sensor.lens * rng.uniform(0.7, 1.5)),
        motion=(float(length * np.cos(angle)), float(length * np.sin(angle))),
        noise=float(sensor.noise * rng.uniform(0.7, 1.4)),
    )


def degrade(pixels: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of a clean image.

    Args:
        pixels: `(H, W, 3)` uint8 sRGB.
        sensor: see there; its JPEG quality is for the caller, see `PIL.Image.Image.save`.
        rng: of the noise.

    Returns:
        `(H, W, 3)` uint8.
    """
    work = pixels.astype(np.float32)
    if sensor.haze:
        work += sensor.haze * (np.array(sensor.air, np.float32) - work)
    height, width = work.shape[:2]
    if sensor.lens > 0.05:
        work = _blur(work, sensor.lens)
    if np.hypot(*sensor.motion) > 0.3:
        work = _move(work, sensor.motion)
    if sensor.reduce > 1.02 and min(height, width) / sensor.reduce >= 8:
        work = _resample(work, (round(width / sensor.reduce), round(height / sensor.reduce)), Image.Resampling.BOX)
        work = _resample(work, (width, height), Image.Resampling.BICUBIC)
    if sensor.fringe > 0.05:
        work[..., 0] = _shift(work[..., 0], sensor.fringe)
        work[..., 2] = _shift(work[..., 2], -sensor.fringe)
    if sensor.noise > 0:
        level = sensor.noise * np.sqrt(np.clip(work.mean(axis=2, keepdims=True), 8, 250) / 110)
        gray = rng.standard_normal((height, width, 1), np.float32)
        color = rng.standard_normal((height, width, 3), np.float32)
        c = np.float32(sensor.color_noise)
        work += level * (np.sqrt(1 - c) * gray + np.sqrt(c) * color)
    if sensor.sharpen:
        work += sensor.sharpen * (work - _blur(work, 1.1))
    work = (work - 118) * sensor.gain + 118
    if sensor.saturation != 1:
        gray = work @ np.array([0.299, 0.587, 0.114], np.float32)
        work = gray[..., None] + (work - gray[..., None]) * np.float32(sensor.saturation)
    work *= np.array(sensor.balance, np.float32)
    return np.clip(np.round(work), 0, 255).astype(np.uint8)


def _blur(work: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian; borders are continued."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        wide = np.pad(work, pad, mode='edge')
        size = work.shape[axis]
        total = np.zeros_like(work)
        for index, tap in enumerate(taps):
            cut = [slice(None)] * 3
            cut[axis] = slice(index, index + size)
            total += tap * wide[tuple(cut)]
        work = total
    return work


def _move(work: np.ndarray, motion: tuple[float, float]) -> np.ndarray:
    """Mean along a line."""
    height, width = work.shape[:2]
    steps = int(np.ceil(np.hypot(*motion))) + 1
    reach = int(np.ceil(max(abs(motion[0]), abs(motion[1])) / 2)) + 1
    wide = np.pad(work, ((reach, reach), (reach, reach), (0, 0)), mode='edge')
    total = np.zeros_like(work)
    for place in np.linspace(-0.5, 0.5, steps):
        x, y = place * motion[0] + reach, place * motion[1] + reach
        i, j = int(np.floor(x)), int(np.floor(y))
        a, b = np.float32(x - i), np.float32(y - j)
        for rows, columns, share in (
            (j, i, (1 - a) * (1 - b)),
            (j, i + 1, a * (1 - b)),
            (j + 1, i, (1 - a) * b),
            (j + 1, i + 1, a * b),
        ):
            if share > 1e-3:
                total += share * wide[rows : rows + height, columns : columns + width]
    return total / np.float32(steps)


def _shift(channel: np.ndarray, pixels: float) -> np.ndarray:
    """Along the rows, by less than a pixel."""
    other = np.roll(channel, 1 if pixels > 0 else -1, axis=1)
    edge = 0 if pixels > 0 else -1
    other[:, edge] = channel[:, edge]
    return channel + np.float32(abs(pixels)) * (other - channel)


def _resample(work: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    planes = [np.asarray(Image.fromarray(np.ascontiguousarray(work[..., c])).resize(size, method)) for c in range(3)]
    return np.stack(planes, axis=-1)
