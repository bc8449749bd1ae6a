"""Augmentation that changes how one vehicle looks from one flight to the next: box, shadows, reflections, tone.

Each class takes and gives an RGB PIL image; all random numbers come from `random`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

import numpy as np
from PIL import Image

__all__ = ['RandomBox', 'RandomGlare', 'RandomShadow', 'RandomTone']

_MASK = 64  # side in pixels of the fields that shadows and reflections are made of, before they are enlarged


class RandomBox:
    """Move every side of the crop by itself, as the boxes of a detector are: some cut the vehicle, some are loose.

    Args:
        reach: each side moves by uniform `-reach..reach` of the crop's width or height, outward or inward. What lies
            outside of the image repeats its border.
    """

    def __init__(self, reach: float) -> None:
        self.reach = reach

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        left, right = (round(width * random.uniform(-self.reach, self.reach)) for _ in range(2))
        top, bottom = (round(height * random.uniform(-self.reach, self.reach)) for _ in range(2))
        columns = np.clip(np.arange(-left, max(width + right, 4 - left)), 0, width - 1)
        rows = np.clip(np.arange(-top, max(height + bottom, 4 - top)), 0, height - 1)
        return Image.fromarray(np.asarray(image)[rows[:, None], columns[None]])

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.reach})'


class _Sometimes(ABC):
    """Changes an image with a probability, 0..1."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= self.probability:
            return image
        return self._change(image, np.random.default_rng(random.getrandbits(64)))

    @abstractmethod
    def _change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image: ...

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.probability})'


class RandomShadow(_Sometimes):
    """Lay the shadow of something across the image: an edge, the gaps between leaves, fronds of a palm, or poles.

    Args:
        probability: of a shadow, 0..1.
    """

    def _change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        makers = (_edge, _leaves, _fronds, _poles)
        field = makers[rng.choice(4, p=[0.3, 0.35, 0.15, 0.2])](rng)
        soft = rng.uniform(0.03, 0.4)
        cover = _enlarged(np.clip(field / soft + 0.5, 0, 1), image.size)
        # what is left is the light of the sky, which is bluer than the sun
        left = rng.uniform(0.3, 0.75) * np.array([1.0, 1.03, rng.uniform(1.05, 1.25)])
        factors = 1 - cover[..., None] * (1 - np.minimum(left, 1.0)).astype(np.float32)
        return _image(np.asarray(image, np.float32) * factors)


class RandomGlare(_Sometimes):
    """Add reflections of the sky or the sun: soft, bright patches, as they wander over roofs and glass.

    Args:
        probability: of any, 0..1.
    """

    def _change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        x, y = _grid()
        cover = np.zeros_like(x)
        for _ in range(int(rng.integers(1, 4))):
            a, b, angle = *rng.uniform(0.15, 0.85, 2), rng.uniform(0, np.pi)
            along = ((x - a) * np.cos(angle) + (y - b) * np.sin(angle)) / rng.uniform(0.06, 0.4)
            across = ((y - b) * np.cos(angle) - (x - a) * np.sin(angle)) / rng.uniform(0.03, 0.15)
            sharp = rng.uniform(1, 3)
            patch = rng.uniform(0.2, 0.95) * np.exp(-((along**2 + across**2) ** sharp))
            cover = np.maximum(cover, patch)
        share = _enlarged(cover, image.size)[..., None]
        sky = np.sort(rng.uniform(190, 255, 3)).astype(np.float32)  # white to blue
        pixels = np.asarray(image, np.float32)
        return _image(pixels + share * np.maximum(sky - pixels, 0))


class RandomTone:
    """Change exposure, tone curve, color cast and the veil of the air, as two flights differ.

    Args:
        strength: 0 changes nothing, 1 is for two flights of two cameras; at most 4.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, image: Image.Image) -> Image.Image:
        rng, s = np.random.default_rng(random.getrandbits(64)), self.strength
        light = np.asarray(image, np.float32) / 255
        light = light ** np.float32(np.exp(s * rng.normal(0, 0.22)))
        gray = light @ np.array([0.299, 0.587, 0.114], np.float32)
        light = gray[..., None] + (light - gray[..., None]) * np.float32(np.exp(s * rng.normal(-0.1, 0.25)))
        light *= np.exp(s * rng.normal(0, 0.16) + s * rng.normal(0, 0.035, 3)).astype(np.float32)
        veil = min(0.7, s * rng.beta(0.7, 5.0))
        air = rng.uniform(0.45, 0.9) * np.exp(s * rng.normal([-0.03, 0.0, 0.04], 0.03))
        light += np.float32(veil) * (air.astype(np.float32) - light)
        return _image(255 * light)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.strength})'


# --- fields: positive where there is shadow -------------------------------------------------------------------------


def _grid() -> tuple[np.ndarray, np.ndarray]:
    middle = (np.arange(_MASK, dtype=np.float32) + 0.5) / _MASK
    return np.meshgrid(middle, middle)


def _edge(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    angle = rng.uniform(0, 2 * np.pi)
    wave = 0.05 * np.sin(rng.uniform(2, 14) * (y * np.cos(angle) - x * np.sin(angle)) + rng.uniform(0, 6))
    return (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + wave + rng.uniform(-0.35, 0.25)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes, enlarged."""
    field = np.zeros((_MASK, _MASK), np.float32)
    coarse = int(rng.integers(2, 6))
    for octave, weight in enumerate((1.0, 0.7, 0.4)):
        cells = coarse * 2**octave
        noise = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
        field += weight * np.asarray(noise.resize((_MASK, _MASK), Image.Resampling.BICUBIC))
    return 0.5 * field + rng.uniform(-0.3, 0.3)


def _fronds(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    a, b = rng.uniform(-0.3, 1.3, 2)
    angle, distance = np.arctan2(y - b, x - a), np.hypot(x - a, y - b)
    stripes = np.cos(int(rng.integers(5, 13)) * angle + rng.uniform(0, 6) + rng.uniform(-2, 2) * distance)
    reach = rng.uniform(0.4, 1.0)
    return np.minimum(stripes - rng.uniform(-0.3, 0.4), 4 * (reach - distance)).astype(np.float32)


def _poles(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    angle, count = rng.uniform(0, np.pi), int(rng.integers(1, 5))
    along = x * np.cos(angle) + y * np.sin(angle)
    gaps = [np.abs(along - rng.uniform(-0.3, 1.3)) for _ in range(count)]
    return rng.uniform(0.02, 0.09) - np.min(gaps, axis=0)


def _enlarged(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
