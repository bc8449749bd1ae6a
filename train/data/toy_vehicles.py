"""Drawn vehicles, seen from above, to try and test the package with next to no work.

They are flat drawings, made here: synthetic images that say nothing about the quality of a model.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ['draw_car', 'draw_vehicle', 'park']

_PAINTS = ('#c9cdd2', '#2a2c30', '#8f1d1d', '#1f3f7a', '#e8e6df', '#5c6b4f', '#d3a01e', '#7a7f86')
_SIZE = 128  # pixels, a crop
_SCALE = 4  # drawn larger and reduced: smooth edges


def draw_vehicle(identity: int, view: int, seed: int = 0) -> Image.Image:
    """One vehicle from above, 128 x 128 RGB.

    Args:
        identity: decides body, paint, roof and load; 0, 1, 2, ...
        view: decides heading, light, place in the crop and noise; 0, 1, 2, ...
        seed: of the whole set.
    """
    scene = np.random.default_rng([seed, identity, view, 1])
    side = _SIZE * _SCALE
    gray = scene.integers(92, 128)
    ground = Image.new('RGB', (side, side), tuple(int(gray + v) for v in scene.integers(-4, 5, 3)))  # asphalt
    ImageDraw.Draw(ground).rectangle(
        (int(side * scene.uniform(0.78, 0.95)), 0, int(side * 0.97), side), fill='#b9b9b2'
    )  # lane marking

    angle = scene.uniform(-25, 25) + 180 * (view % 2)
    shift = tuple(scene.integers(-side // 24, side // 24, 2))
    car = draw_car(identity, side, seed).rotate(angle, resample=Image.Resampling.BICUBIC, translate=shift)
    park(ground, car, int(side * 0.03))

    pixels: np.ndarray = np.asarray(ground.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS), np.float32)
    light = scene.uniform(0.85, 1.12) * (1 + 0.03 * math.sin(view))
    pixels = pixels * light + scene.normal(0, 4, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_car(identity: int, side: int, seed: int = 0) -> Image.Image:
    """The vehicle alone, heading up in the middle of a transparent square of `side` pixels, RGBA.

    The first eight have a paint of their own out of few; from then on paint, roof, stripes and load are continuous.
    """
    looks = np.random.default_rng([seed, identity])
    length, width = looks.uniform(0.62, 0.80) * side, looks.uniform(0.27, 0.36) * side
    car = Image.new('RGBA', (side, side))
    draw = ImageDraw.Draw(car)
    left, top = (side - width) / 2, (side - length) / 2

    def part(x0: float, y0: float, x1: float, y1: float, round_: float = 0.06, **how) -> None:
        draw.rounded_rectangle(
            (left + x0 * width, top + y0 * length, left + x1 * width, top + y1 * length), radius=width * round_, **how
        )

    many = identity >= len(_PAINTS)
    more = np.random.default_rng([seed, identity, 2])
    paint = _mix_paint(more) if many else _PAINTS[identity]
    part(0, 0, 1, 1, 0.25, fill=paint, outline='#202020', width=max(1, side // _SIZE))
    if many:
        if more.random() < 0.35:  # bonnet or boot of another color
            y = more.choice([0.04, 0.80])
            part(0.06, y, 0.94, y + 0.16, fill=_mix_paint(more))
        if more.random() < 0.35:  # stripes along
            stripe, at, wide = _mix_paint(more), more.uniform(0.1, 0.4), more.uniform(0.06, 0.14)
            for x in (at, 1 - at - wide)[: more.integers(1, 3)]:
                part(x, 0.02, x + wide, 0.98, 0, fill=stripe)
        if more.random() < 0.4:  # roof
            part(0.10, 0.42, 0.90, 0.84, fill=_mix_paint(more))

    front = looks.uniform(0.22, 0.30)
    part(0.10, front, 0.90, front + 0.11, fill='#26323c')  # windscreen
    if identity % 3 == 1:  # pick-up: open bed with cargo
        part(0.10, 0.55, 0.90, 0.96, fill='#3a3a3a')
        for _ in range(3):
            x, y = looks.uniform(0.15, 0.6), looks.uniform(0.58, 0.85)
            load = _PAINTS[int(looks.integers(len(_PAINTS)))]
            part(x, y, x + 0.22, y + 0.08, fill=_mix_paint(more) if many else load)
    else:
        part(0.12, 0.86, 0.88, 0.92, fill='#26323c')  # rear window
    if identity % 3 == 2:  # roof rack
        for y in (0.45, 0.58, 0.71):
            part(0.12, y, 0.88, y + 0.02, fill='#111111')
    if looks.random() < 0.5:
        part(0.30, 0.42, 0.70, 0.53, fill='#0f1a24')  # sunroof
    if many and more.random() < 0.4:  # box on the roof
        x, y = more.uniform(0.15, 0.45), more.uniform(0.42, 0.65)
        part(x, y, x + more.uniform(0.2, 0.4), y + more.uniform(0.08, 0.18), fill=_mix_paint(more), outline='#202020')
    return car


def park(ground: Image.Image, car: Image.Image, offset: int) -> None:
    """Paste `car`, and its shadow `offset` pixels to the lower right, on `ground` of the same size."""
    shadow = Image.new('RGBA', car.size)
    shadow.paste((0, 0, 0, 110), (offset, offset), car.getchannel('A'))
    ground.paste(shadow, (0, 0), shadow.filter(ImageFilter.GaussianBlur(car.width / 60)))
    ground.paste(car, (0, 0), car)


def _mix_paint(rng: np.random.Generator) -> tuple[int, int, int]:
    """Half of the vehicles are black, gray or white."""
    hue, value = rng.random(), rng.uniform(0.15, 0.95)
    saturation = rng.uniform(0.4, 0.95) if rng.random() < 0.5 else rng.uniform(0, 0.12)
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
