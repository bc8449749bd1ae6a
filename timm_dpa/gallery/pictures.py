"""What is kept of an image besides its embedding: a thumbnail, and how much the image tells."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

__all__ = ['quality_of', 'thumbnail_of']

_SIDE = 144  # pixels of a thumbnail's longer side, as in the picture of the ranks
_FULL_SIZE = 128  # pixels of the geometric mean of both sides from which on an image is large enough
_HALF_SHARP = 100.0  # variance of the Laplacian at which sharpness is 1/2
_LEAST = 0.02


def thumbnail_of(image: Image.Image) -> bytes:
    """A JPEG file of an RGB image, its longer side at most 144 pixels; 3 to 6 kB."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    small.save(content, 'JPEG', quality=80)
    return content.getvalue()


def quality_of(image: Image.Image) -> float:
    """How much an image tells, 0.02..1: its size times its sharpness.

    The size is the square root of width times height over 128 pixels, at most 1. The sharpness is v / (v + 100) with
    the variance v of the Laplacian (4 neighbors) of the gray image, 0..255, whose longer side is at most 128 pixels.
    """
    size = min(1.0, float(np.sqrt(image.width * image.height)) / _FULL_SIZE)
    gray = image.convert('L')
    gray.thumbnail((_FULL_SIZE, _FULL_SIZE), Image.Resampling.BOX)
    values = np.pad(np.asarray(gray, np.float64), 1, 'edge')
    center = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * center
    variance = float(laplacian.var())
    return max(_LEAST, size * variance / (variance + _HALF_SHARP))
