"""Random fields that repeat, of which clouds and leaves are made."""

from __future__ import annotations

import numpy as np

__all__ = ['random_field']


def random_field(rng: np.random.Generator, size: int, coarse: float, fine: float, slope: float = 1.5) -> np.ndarray:
    """Sample a Gaussian field that repeats at its borders.

    Args:
        rng: generator of the field.
        size: side of the square, in texels.
        coarse, fine: longest and shortest wavelength, in texels.
        slope: exponent by which the amplitude of waves falls with their frequency.

    Returns:
        `(size, size)` float32 of mean 0 and standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    weight = frequency**-slope * np.exp(-((frequency * fine) ** 2)) * (1 - np.exp(-((frequency * coarse) ** 2)))
    weight[0, 0] = 0
    field = np.fft.irfft2(spectrum * weight, (size, size)).astype(np.float32)
    return field / max(float(field.std()), 1e-9)
