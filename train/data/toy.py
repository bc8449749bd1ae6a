"""A toy data set in the layout of VeRi-UAV, to try the full pipeline without photographs.

Its images are flat drawings, made here: they show that the pipeline learns, and say nothing about real vehicles.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from timm_dpa.files import atomic_folder

from .provenance import write_about
from .toy_vehicles import draw_car, park

__all__ = ['draw_data_set']

_GROUNDS = ((104, 105, 108), (150, 146, 138), (86, 104, 66), (128, 112, 92))  # asphalt, concrete, grass, gravel
_SCALE = 2  # drawn larger and reduced: smooth edges


def draw_data_set(
    out: str | os.PathLike[str],
    identities: int = 32,
    images: int = 8,
    *,
    cameras: int = 4,
    size: int = 128,
    seed: int = 0,
) -> Path:
    """Write `image_train/`, `image_query/` and `image_test/` with JPEGs `<vehicle>_<camera>_<number>.jpg`, and a
    `dataset.json` that says what they are.

    Half of the vehicles are for training. Of the others, the first image by each camera is a query, the rest is the
    gallery. A camera has a ground, a height, a tilt, a light and a blur of its own; vehicles head anywhere. The folder
    appears when it is complete.

    Args:
        out: folder to make; may exist if it is empty.
        identities: vehicles, at least 4.
        images: of each vehicle, at least two by each camera.
        cameras: 2 to 99.
        size: of the images of the lowest camera in pixels, at least 16; others see less.
        seed: random seed; the same seed gives the same files.

    Returns:
        The folder.

    Raises:
        ValueError: numbers out of range.
        FileExistsError: `out` holds something.
    """
    if identities < 4:
        raise ValueError(f'identities must be at least 4, not {identities}')
    if not 2 <= cameras <= 99:
        raise ValueError(f'cameras must be in 2..99, not {cameras}')
    if images < 2 * cameras:
        raise ValueError(f'images must be at least {2 * cameras}, two by each of {cameras} cameras, not {images}')
    if size < 16:
        raise ValueError(f'size must be at least 16, not {size}')
    out = Path(out)
    with atomic_folder(out) as making:
        for part in ('train', 'query', 'test'):
            (making / f'image_{part}').mkdir()
        for identity in range(identities):
            car = draw_car(identity, size * _SCALE, seed)
            for number in range(images):
                camera = number % cameras
                part = 'train' if identity % 2 == 0 else 'query' if number < cameras else 'test'
                path = making / f'image_{part}' / f'{identity:04d}_{camera + 1:02d}_{number:04d}.jpg'
                rng = np.random.default_rng([seed, identity, number, 3])
                _photograph(car, camera, seed, rng).save(path, quality=92)
        write_about(
            making,
            'timm-dpa drawn vehicles',
            f'Flat drawings of {identities} vehicles on four backgrounds, one for each of {cameras} "cameras", made by '
            f'timm-dpa data draw (seed {seed}). No photograph is among them.',
            synthetic=True,
        )
    return out


def _photograph(car: Image.Image, camera: int, seed: int, rng: np.random.Generator) -> Image.Image:
    """`car` as `camera` sees it; `rng` decides what differs between its images."""
    side = car.width
    setup = np.random.default_rng([seed, camera, 4])
    ground = _draw_ground(side, camera % len(_GROUNDS), setup.uniform(0.85, 1.15), rng)
    heading = rng.uniform(0, 360)
    right, down = (int(v) for v in rng.integers(-side // 16, side // 16 + 1, 2))
    turned = car.rotate(heading, Image.Resampling.BILINEAR, translate=(right, down))
    park(ground, turned, int(side * setup.uniform(0.01, 0.05)))

    resolution = setup.uniform(0.45, 1.0)  # by height
    width = max(8, round(side / _SCALE * resolution * rng.uniform(0.9, 1.1)))
    height = max(8, round(width * setup.uniform(0.75, 1.0)))  # by tilt
    pixels: np.ndarray = np.asarray(ground.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    light = setup.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15) * (1 + setup.uniform(-0.12, 0.12, 3))
    haze = setup.uniform(0, 0.35)
    pixels = (pixels * (1 - haze) + 150 * haze) * light + rng.normal(0, 5, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_ground(side: int, kind: int, tone: float, rng: np.random.Generator) -> Image.Image:
    rough = (3, 4, 22, 14)[kind]
    cells = max(2, side // (2, 2, 8, 4)[kind])
    texture = rng.normal(0, rough, (cells, cells, 1)) + np.array(_GROUNDS[kind]) * tone
    ground = Image.fromarray(np.clip(texture, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(ground)
    at = int(side * rng.uniform(0, 1))
    if kind == 0:  # lane marking
        draw.rectangle((at, 0, at + side // 20, side), fill='#c4c4bc')
    elif kind == 1:  # joints of concrete slabs
        for place in (at, (at + side // 2) % side):
            draw.line((place, 0, place, side), fill='#6f6c66', width=max(1, side // 64))
            draw.line((0, place, side, place), fill='#6f6c66', width=max(1, side // 64))
    return ground
