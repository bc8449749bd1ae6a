"""Patterns of shadow that fall on vehicles: of leaves, branches, palms, railings, cables and poles out of sight.

A pattern is no mesh. It is a level tile at some height above the place, with bars and upright poles. How much sun is
left at a point is looked up where the line from the point to the sun passes the tile. So a pattern is fixed in the
place: it slides over a vehicle that moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..random_field import random_field

__all__ = ['PATTERNS', 'ShadowPattern', 'sample_shadow_pattern']

#: kind -> share
PATTERNS = {'leaves': 0.34, 'palms': 0.26, 'branches': 0.14, 'bars': 0.14, 'poles': 0.12}
_SIZE = 512  # side of a tile in texels
_TILE = 16.0  # side of a tile in meters
_VARIANTS = 12  # tiles of each kind


@dataclass(frozen=True)
class ShadowPattern:
    """Something that shades a part of the place.

    Attributes:
        kind: a key of `PATTERNS`.
        tile: `(S, S)` uint8 share of the sun that is left, 255 for all, or None. Rows run along y of the place, and
            the tile repeats.
        offset: `(x, y)` of the tile's corner in coordinates of the place, meters.
        scale: texels per meter.
        height: height of tile and bars above the ground, meters.
        bars: `(K, 5)` level bars without ends: unit normal x and y, distance of the bar's middle from the origin of
            the place along it, half width, width of the soft edge; meters.
        poles: `(K, 4)` upright poles: x, y, radius, height; meters.
    """

    kind: str
    tile: np.ndarray | None
    offset: tuple[float, float]
    scale: float
    height: float
    bars: np.ndarray
    poles: np.ndarray

    def sun_left(self, points: np.ndarray, sun: np.ndarray, spot: tuple[float, float, float]) -> np.ndarray:
        """Return the share of the sun that reaches points.

        Args:
            points: `(3, N)` meters in coordinates of the scene.
            sun: `(3,)` unit vector to the sun in the same coordinates.
            spot: `(x, y, heading)` of the scene's origin in coordinates of the place.

        Returns:
            `(N,)` float32 in 0..1.
        """
        c, s = np.float32(np.cos(spot[2])), np.float32(np.sin(spot[2]))
        to_x, to_y = (np.float32(v / max(0.05, float(sun[2]))) for v in sun[:2])
        rise = np.maximum(np.float32(self.height) - points[2], 0)
        left = np.ones(points.shape[1], np.float32)
        x0, y0 = points[0] + to_x * rise, points[1] + to_y * rise
        if self.tile is not None:
            size, scale = len(self.tile), np.float32(self.scale)
            column = (c * x0 - s * y0) * scale + np.float32((spot[0] - self.offset[0]) * self.scale % size)
            row = (s * x0 + c * y0) * scale + np.float32((spot[1] - self.offset[1]) * self.scale % size)
            column, row = (np.floor(v).astype(np.int32) % size for v in (column, row))
            left *= self.tile[row, column] * np.float32(1 / 255)
        for a, b, distance, half, soft in self.bars.tolist():
            # the normal in coordinates of the scene
            away = (a * c + b * s) * x0 + (b * c - a * s) * y0 + np.float32(a * spot[0] + b * spot[1] - distance)
            left *= np.clip((np.abs(away) - np.float32(half)) * np.float32(1 / soft) + np.float32(0.5), 0, 1)
        flat = float(np.hypot(*sun[:2]))
        for x, y, radius, height in self.poles.tolist():
            px, py = x - spot[0], y - spot[1]
            px, py = (c * px + s * py) - points[0], (c * py - s * px) - points[1]
            towards = (px * sun[0] + py * sun[1]) / max(flat, 1e-6)
            away = np.abs(px * sun[1] - py * sun[0]) / max(flat, 1e-6)
            soft = 0.02 + 0.012 * np.clip(towards, 0, None)
            low = points[2] + towards * np.float32(sun[2] / max(flat, 1e-6)) < height
            left *= 1 - np.clip((radius - away) / soft + 0.5, 0, 1) * (low & (towards > 0))
        return left


def sample_shadow_pattern(
    seed: int, sun: np.ndarray, spot: tuple[float, float, float], rng: np.random.Generator, kind: str | None = None
) -> ShadowPattern:
    """Sample a pattern whose shadow falls on a spot, or near it.

    Args:
        seed: seed of the tiles, of which there are few.
        sun: `(3,)` unit vector to the sun in coordinates of the place.
        spot: `(x, y, heading)` in coordinates of the place, meters and radians.
        rng: generator of everything else.
        kind: a key of `PATTERNS`, or None to sample it.
    """
    kind = kind or str(rng.choice(list(PATTERNS), p=list(PATTERNS.values())))
    slope = np.array(sun[:2], np.float64) / max(0.05, float(sun[2]))
    # a value is sampled for every kind
    leaves, branches, palms, other = (rng.uniform(low, high) for low, high in ((3.5, 9), (3, 9), (4, 9), (1.2, 7)))
    height = float({'leaves': leaves, 'branches': branches, 'palms': palms}.get(kind, other))
    # where the ray from the vehicle to the sun is at that height
    middle = np.array(spot[:2]) + slope * (height - 0.8) + rng.normal(0, 0.8, 2)
    tile, offset, scale = None, (0.0, 0.0), _SIZE / _TILE
    bars, poles = np.empty((0, 5)), np.empty((0, 4))
    if kind in ('leaves', 'branches', 'palms'):
        tile, crowns = _tile(seed, kind, int(rng.integers(_VARIANTS)))
        scale *= float(rng.uniform(0.8, 1.35))
        crown = crowns[int(rng.integers(len(crowns)))]
        reach = rng.uniform(0.2, 1.0) * crown[2] / scale
        around = rng.uniform(-np.pi, np.pi)
        offset = middle - crown[:2] / scale + reach * np.array([np.cos(around), np.sin(around)])
        if kind == 'palms':  # trunks
            feet = offset + crowns[:, :2] / scale
            poles = np.column_stack([feet, rng.uniform(0.09, 0.2, len(feet)), np.full(len(feet), height)])
    elif kind == 'bars':
        turn = rng.uniform(0, np.pi)
        normal = np.array([np.cos(turn), np.sin(turn)])
        count = int(rng.integers(1, 9))
        half = rng.uniform(0.015, 0.06) if count > 3 else rng.uniform(0.02, 0.35)
        step = half * rng.uniform(3.5, 9)
        soft = 0.012 * height + 0.01
        at = middle @ normal + step * (np.arange(count) - (count - 1) / 2)
        bars = np.column_stack([np.tile(normal, (count, 1)), at, np.full(count, half), np.full(count, soft)])
        if rng.uniform() < 0.4:  # a cable across
            turn += rng.uniform(0.5, 2.6)
            normal = np.array([np.cos(turn), np.sin(turn)])
            bars = np.concatenate([bars, [[*normal, middle @ normal, rng.uniform(0.01, 0.04), soft]]])
    else:
        count = int(rng.integers(1, 4))
        heights = rng.uniform(3, 10, count)
        # somewhere on the way to the sun
        share = rng.uniform(0.15, 0.85, count) * heights
        aside = rng.normal(0, 1.2, (count, 1)) * np.array([-slope[1], slope[0]]) / max(1e-6, np.hypot(*slope))
        feet = np.array(spot[:2]) + slope * share[:, None] + aside
        poles = np.column_stack([feet, rng.uniform(0.05, 0.25, count), heights])
    return ShadowPattern(kind, tile, (float(offset[0]), float(offset[1])), scale, height, bars, poles)


@lru_cache(maxsize=48)
def _tile(seed: int, kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample a tile and its crowns: `(S, S)` uint8, and `(K, 3)` column, row and radius in texels."""
    rng = np.random.default_rng([seed, number, 26, list(PATTERNS).index(kind)])
    scale = _SIZE / _TILE
    most, low, high = (4, 2.0, 3.6) if kind == 'palms' else (5, 1.8, 4.2)
    count = int(rng.integers(2, most))
    crowns = np.column_stack([rng.uniform(0, _SIZE, (count, 2)), rng.uniform(low, high, count) * scale])
    if kind == 'leaves':
        dark = _leaves(rng, crowns)
    else:
        image = Image.new('L', (_SIZE, _SIZE))
        pen = _Repeating(ImageDraw.Draw(image))
        for column, row, radius in crowns:
            (_palm if kind == 'palms' else _boughs)(rng, pen, column, row, radius)
        wide = Image.new('L', (_SIZE + 32, _SIZE + 32))
        for x in (-1, 0, 1):
            for y in (-1, 0, 1):
                wide.paste(image, (16 + x * _SIZE, 16 + y * _SIZE))
        wide = wide.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 2.4)))
        dark = np.asarray(wide.crop((16, 16, 16 + _SIZE, 16 + _SIZE)), np.float32) / 255
    left = 1 - np.clip(dark * rng.uniform(0.85, 1.0), 0, 1)
    tile = np.round(255 * left).astype(np.uint8)
    tile.flags.writeable = False
    return tile, crowns


def _leaves(rng: np.random.Generator, crowns: np.ndarray) -> np.ndarray:
    """Sample `(S, S)` shade of crowns with gaps through which the sun casts round spots."""
    side = np.arange(_SIZE, dtype=np.float32)
    edge = random_field(rng, _SIZE, 120, 6, 1.3)
    inside = np.zeros((_SIZE, _SIZE), np.float32)
    for column, row, radius in crowns:
        x, y = ((side - v + _SIZE / 2) % _SIZE - _SIZE / 2 for v in (column, row))
        away = np.hypot(x[None], y[:, None]) / radius
        inside = np.maximum(inside, np.clip((1 - away + 0.22 * edge) * 9, 0, 1))
    gaps = random_field(rng, _SIZE, rng.uniform(10, 40), rng.uniform(2.5, 7), 0.6)
    rim = random_field(rng, _SIZE, 100, 30, 1.0)
    light = np.clip((gaps + 0.4 * rim - rng.uniform(0.5, 1.3)) * rng.uniform(1.5, 5) + 0.5, 0, 1)
    return inside * (1 - light)


class _Repeating:
    """Draws lines on a tile that repeats."""

    def __init__(self, pen: ImageDraw.ImageDraw) -> None:
        self._pen = pen

    def line(self, points: np.ndarray, width: float, tone: int = 255) -> None:
        for x in (-_SIZE, 0, _SIZE):
            for y in (-_SIZE, 0, _SIZE):
                moved = points + np.array([x, y])
                if (moved.max(axis=0) >= 0).all() and (moved.min(axis=0) <= _SIZE).all():
                    self._pen.line([tuple(p) for p in moved.tolist()], fill=tone, width=max(1, round(width)))


def _palm(rng: np.random.Generator, pen: _Repeating, column: float, row: float, radius: float) -> None:
    """Draw fronds that radiate from a trunk, with leaflets to both sides."""
    count = int(rng.integers(11, 22))
    for angle in np.arange(count) * (2 * np.pi / count) + rng.normal(0, 0.12, count):
        reach, bend = radius * rng.uniform(0.7, 1.1), rng.normal(0, 0.35)
        share = np.linspace(0, 1, 9)
        way = angle + bend * share**2
        rib = np.array([column, row]) + (reach * share)[:, None] * np.column_stack([np.cos(way), np.sin(way)])
        pen.line(rib, 2)
        leaf = radius * rng.uniform(0.13, 0.24)
        for place in np.arange(0.12, 1.0, rng.uniform(0.022, 0.05)):
            start = np.array([np.interp(place, share, rib[:, i]) for i in (0, 1)])
            size = leaf * np.sin(np.pi * min(1.0, 0.2 + 0.8 * place)) ** 0.6 * rng.uniform(0.7, 1.1)
            for lean in (0.75, -0.75):
                turn = np.interp(place, share, way) + lean + rng.normal(0, 0.1)
                pen.line(np.stack([start, start + size * np.array([np.cos(turn), np.sin(turn)])]), 1.6)


def _boughs(rng: np.random.Generator, pen: _Repeating, column: float, row: float, radius: float) -> None:
    """Draw bare branches that fork."""
    tips = [(np.array([column, row]), angle, radius * 0.42, 7.0) for angle in rng.uniform(-np.pi, np.pi, 6)]
    for _ in range(4):
        grown = []
        for start, angle, size, width in tips:
            end = start + size * np.array([np.cos(angle), np.sin(angle)])
            pen.line(np.stack([start, end]), width)
            grown += [
                (end, angle + rng.normal(0, 0.5), size * rng.uniform(0.55, 0.8), width * 0.6)
                for _ in range(int(rng.integers(2, 4)))
            ]
        tips = grown
