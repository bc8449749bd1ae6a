"""Colors of vehicles and of their details, in the shares in which traffic shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import TRUCKS, VANS
from .swatches import METALLIC, PAINT

__all__ = ['RGB', 'Paint', 'as_rgb', 'sample_marking_color', 'sample_muted_color', 'sample_paint', 'sample_part_color']

RGB = tuple[int, int, int]  # sRGB, 0..255

#: color -> share in traffic, sRGB from .. to, share of metallic paint
_COLORS: dict[str, tuple[float, RGB, RGB, float]] = {
    'white': (0.25, (214, 214, 212), (233, 233, 231), 0.1),
    'black': (0.19, (16, 16, 18), (34, 34, 37), 0.5),
    'grey': (0.20, (66, 68, 71), (122, 124, 127), 0.85),
    'silver': (0.13, (158, 160, 162), (192, 194, 196), 1.0),
    'blue': (0.09, (22, 40, 82), (52, 92, 158), 0.7),
    'red': (0.065, (112, 16, 20), (186, 30, 32), 0.4),
    'brown': (0.025, (62, 46, 38), (112, 90, 72), 0.8),
    'green': (0.02, (26, 56, 44), (70, 98, 70), 0.6),
    'beige': (0.02, (168, 156, 132), (204, 192, 168), 0.5),
    'yellow': (0.01, (206, 160, 24), (228, 188, 50), 0.0),
    'orange': (0.01, (188, 84, 24), (216, 110, 40), 0.2),
}
_COMMERCIAL = {'white': 0.62, 'grey': 0.08, 'silver': 0.08, 'blue': 0.08, 'red': 0.05, 'yellow': 0.05, 'black': 0.04}
_CONTAINER = {'blue': 0.27, 'red': 0.2, 'green': 0.12, 'white': 0.12, 'grey': 0.1, 'orange': 0.1, 'brown': 0.09}
_BUS = {'white': 0.32, 'yellow': 0.13, 'red': 0.16, 'blue': 0.15, 'green': 0.12, 'silver': 0.07, 'orange': 0.05}
_VIVID: tuple[RGB, ...] = ((230, 230, 228), (24, 24, 26), (176, 26, 30), (30, 62, 140), (226, 180, 30), (40, 110, 60))
_VIVID += ((222, 110, 30), (128, 130, 132), (70, 160, 200))


@dataclass(frozen=True)
class Paint:
    """A paint.

    Attributes:
        name: name of the color.
        rgb: sRGB, 0..255.
        material: index of a material, see `swatches`.
    """

    name: str
    rgb: RGB
    material: int


def sample_paint(rng: np.random.Generator, kind: str, *, load: bool = False) -> Paint:
    """Sample the paint of a vehicle of this kind, or of its load."""
    shares = _BUS if kind == 'bus' else _COMMERCIAL if kind in (*VANS, *TRUCKS) else None
    if kind == 'container' and load:
        shares = _CONTAINER
    if shares is None:
        shares = {name: entry[0] for name, entry in _COLORS.items()}
    weights = np.array(list(shares.values()))
    name = str(rng.choice(list(shares), p=weights / weights.sum()))
    _, low, high, metallic = _COLORS[name]
    share = rng.uniform(0, 1)
    rgb = np.array(low) + (np.array(high) - np.array(low)) * np.clip(share + rng.normal(0, 0.04, 3), 0, 1)
    tint = rng.normal(0, 3.0 if name not in ('white', 'silver') else 1.0, 3)
    return Paint(name, as_rgb(rgb + tint, 8, 238), METALLIC if rng.uniform() < metallic else PAINT)


def sample_marking_color(rng: np.random.Generator, kind: str, paint: Paint) -> RGB:
    """Sample the color of something painted on a vehicle: close to its paint, neutral, or in contrast to it."""
    if rng.uniform() >= (0.5 if kind in ('bus', *VANS, *TRUCKS) else 0.8):
        for _ in range(20):
            color = _sample_vivid_color(rng)
            if np.abs(np.subtract(color, paint.rgb)).max() > 60:
                break
        return color
    if rng.uniform() < 0.6:
        tone = float(rng.choice([24, 70, 130, 180, 224]))
        return as_rgb(np.full(3, tone + rng.normal(0, 6)), 5, 240)
    return as_rgb(np.array(paint.rgb) * rng.uniform(0.6, 0.85) + rng.normal(0, 4, 3) + rng.choice([0, 55]), 5, 240)


def sample_part_color(rng: np.random.Generator, kind: str, paint: Paint) -> RGB:
    """Sample the color of something mounted on a vehicle or carried by it: mostly muted, whatever the vehicle."""
    return sample_muted_color(rng) if rng.uniform() < 0.7 else _sample_vivid_color(rng)


def sample_muted_color(rng: np.random.Generator) -> RGB:
    """Sample a gray, a brown or a dull green."""
    gray = rng.choice([28, 60, 100, 150, 200])
    return as_rgb(gray + rng.normal(0, 8) + np.array([1, 0, -1]) * rng.normal(2, 6), 8, 230)


def _sample_vivid_color(rng: np.random.Generator) -> RGB:
    return as_rgb(np.array(_VIVID[int(rng.integers(len(_VIVID)))]) + rng.normal(0, 6, 3), 5, 240)


def as_rgb(values: np.ndarray, low: int, high: int) -> RGB:
    """Clip three values to `low`..`high` and round them down."""
    red, green, blue = (int(v) for v in np.clip(values, low, high))
    return red, green, blue
