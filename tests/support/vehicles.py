"""Small data sets: every vehicle has its own pattern of colours, under noise that a small network learns to ignore."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_vehicles(
    root: Path, identities: int = 12, images: int = 6, cameras: int = 2, size: int = 32, seed: int = 0
) -> Path:
    """The layout of VeRi-UAV: the first two thirds of the vehicles for training, the others for the test."""
    rng = np.random.default_rng(seed)
    for vehicle in range(identities):
        pattern = 128 + 40 * rng.standard_normal((4, 4, 3))
        for number in range(images):
            camera = number % cameras + 1
            noisy = np.clip(pattern * rng.uniform(0.7, 1.2) + rng.normal(0, 16, pattern.shape), 0, 255)
            part = 'train' if vehicle < identities * 2 // 3 else 'query' if number < cameras else 'test'
            path = root / f'image_{part}' / f'{vehicle:04d}_{camera:02d}_{number:03d}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(noisy.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
            image.save(path, quality=95)
    return root
