"""Plain colors of small parts, and materials."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ['BODY', 'DARK', 'RIM', 'TIRE', 'TRIM', 'Swatches']
__all__ += ['CHROME', 'GLASS', 'LAMP', 'MATERIALS', 'MATT', 'METALLIC', 'PAINT']

# indices of plain colors; more are added by `Swatches.add`
TIRE, RIM, TRIM, DARK, BODY = range(5)

# materials
MATT, PAINT, METALLIC, GLASS, CHROME, LAMP = range(6)


class _Material(NamedTuple):
    """How a material reflects light.

    Attributes:
        facing: share of light that is reflected when seen at a right angle.
        diffuse: weight of scattered light.
        flakes: weight of the wide, colored gloss of metallic paint.
        clarity: sharpness of reflections, 0..1.
    """

    facing: float
    diffuse: float
    flakes: float
    clarity: float


#: in the order of the indices above
MATERIALS = (
    _Material(0.012, 1.0, 0.0, 0.1),
    _Material(0.055, 1.0, 0.0, 1.0),
    _Material(0.065, 0.60, 0.42, 0.9),
    _Material(0.15, 0.6, 0.0, 1.0),
    _Material(0.45, 0.5, 0.2, 0.8),
    _Material(0.12, 0.9, 0.0, 0.9),
)


class Swatches:
    """The plain colors of one vehicle."""

    def __init__(self) -> None:
        self._colors: list[tuple[int, int, int, int]] = [
            (24, 24, 25, MATT),
            (150, 152, 154, CHROME),
            (28, 28, 30, MATT),
            (14, 14, 15, MATT),
            (128, 128, 128, PAINT),
        ]

    def add(self, rgb: tuple[int, int, int], material: int = MATT) -> int:
        """Add a color; returns its index."""
        self._colors.append((*rgb, material))
        return len(self._colors) - 1

    def set(self, index: int, rgb: tuple[int, int, int], material: int) -> None:
        """Replace the color of an index."""
        self._colors[index] = (*rgb, material)

    def as_array(self) -> np.ndarray:
        """Return `(N, 4)` uint8: red, green, blue, material."""
        return np.array(self._colors, np.uint8)
