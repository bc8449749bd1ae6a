"""The ground: a place seen from above, drawn for the part that an image shows.

Coordinates of the place are in meters, and roads run along x. A place is an endless pattern, so any part of it can be
drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..render.shading import LINEAR

__all__ = ['PLACES', 'TRACK_PLACES', 'Place', 'draw_patch']

PLACES = ('road', 'parking', 'crossing', 'yard', 'gravel', 'street')
TRACK_PLACES = ('roundabout', 'bend', 'junction')  # where vehicles turn


@dataclass(frozen=True)
class Place:
    """How the ground of one flight looks.

    Attributes:
        kind: one of `PLACES`, or of `TRACK_PLACES`.
        base: sRGB of the surface.
        beside: sRGB of what lies beside the road.
        lane: width of lanes or bays, meters.
        lanes: number of lanes on each side of the middle line.
        paint: brightness of markings, 0..1.
        rough: strength of patches and stains, 0..1.
        seed: seed of its pattern.
        radius: radius of the middle of the road, meters, where it is a ring around the origin; otherwise 0.
    """

    kind: str
    base: tuple[int, int, int]
    beside: tuple[int, int, int]
    lane: float
    lanes: int
    paint: float
    rough: float
    seed: int
    radius: float = 0.0

    @property
    def circular(self) -> bool:
        """Whether the ring is a roundabout; otherwise it is a bend."""
        return 0 < self.radius < 25


class _Pen:
    """Draws on the image of a patch in meters of its place."""

    def __init__(self, image: Image.Image, low: np.ndarray, high: np.ndarray, texel: float) -> None:
        self._pen, self._size, self.low, self.high, self._texel = ImageDraw.Draw(image), image.size, low, high, texel

    def steps(self, axis: int, step: float, phase: float = 0.0) -> np.ndarray:
        """Return the multiples of `step`, shifted by `phase`, that cover the patch along an axis."""
        first, last = ((v[axis] - phase) / step for v in (self.low, self.high))
        return np.arange(np.floor(first), np.ceil(last) + 1) * step + phase

    def strip(self, y0: float, y1: float, color: tuple[int, ...]) -> None:
        """Fill what lies between two y, in meters."""
        self.rectangle(self.low[0], min(y0, y1), self.high[0], max(y0, y1), color)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, color: tuple[int, ...]) -> None:
        a, b = (np.array([x0, y0]) - self.low) / self._texel, (np.array([x1, y1]) - self.low) / self._texel
        if a[0] <= self._size[0] and b[0] >= 0 and a[1] <= self._size[1] and b[1] >= 0:
            self._pen.rectangle((a[0], a[1], max(a[0], b[0] - 1), max(a[1], b[1] - 1)), fill=color)

    def disc(self, x: float, y: float, radius: float, color: tuple[int, ...]) -> None:
        (a, b), r = (np.array([x, y]) - self.low) / self._texel, radius / self._texel
        self._pen.ellipse((a - r, b - r, a + r, b + r), fill=color)

    def polygon(self, points: np.ndarray, color: tuple[int, ...]) -> None:
        """Fill a polygon of `(N, 2)` corners."""
        flat = (points - self.low) / self._texel
        if (flat.min(0) <= self._size).all() and (flat.max(0) >= 0).all():
            self._pen.polygon([tuple(p) for p in flat], fill=color)

    def blot(self, x: float, y: float, rx: float, ry: float, color: tuple[int, ...], *, round_: bool) -> None:
        """Draw a stain: an ellipse, or a repair that is three times as long as it is wide."""
        (x, y), rx, ry = (np.array([x, y]) - self.low) / self._texel, rx / self._texel, ry / self._texel
        if round_:
            self._pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=color)
        else:
            self._pen.rectangle((x - 3 * rx, y - ry, x + 3 * rx, y + ry), fill=color)


def draw_patch(
    place: Place, low: np.ndarray, high: np.ndarray, texel: float, rng: np.random.Generator, *, steady: bool = False
) -> np.ndarray:
    """Draw the ground between two corners.

    Args:
        place: what to draw.
        low, high: `(2,)` meters in coordinates of the place.
        texel: side of a texel, meters.
        rng: generator of what differs between two visits: grain, and stains unless `steady`.
        steady: whether stains and the unevenness of the surface belong to the place.

    Returns:
        `(H, W, 3)` float32 linear reflectance; rows run along y upward, columns along x.
    """
    width, height = (max(2, int(np.ceil(v))) for v in (high - low) / texel)
    image = Image.new('RGB', (width, height), place.base)
    pen = _Pen(image, low, high, texel)
    _PATTERNS[place.kind](place, pen)
    own = np.random.default_rng([place.seed, 35]) if steady else rng
    if steady:
        _steady_stains(place, pen)
    else:
        _wear(place, ImageDraw.Draw(image), low, high, texel, rng)
    drawn = np.asarray(image)
    pixels = LINEAR[drawn]
    fine = rng.standard_normal((height, width), np.float32)
    # grass or soil beside the road; how rough all of it looks differs with the sun and the camera
    loose = (drawn == np.array(place.beside, np.uint8)).all(-1) if place.kind != 'gravel' else np.float32(1)
    strength = np.exp(own.normal(0, 0.4, 4))
    pixels *= (1 + (0.07 * (1 + place.rough) * strength[0] + 0.16 * strength[1] * loose) * fine)[..., None]
    for size, amount in ((2.5, 0.10 * strength[2]), (0.35, 0.06 * strength[3]), (0.12, 0.05 * strength[1])):  # meters
        if size < 1.5 * texel:
            continue
        if steady:
            cloud = _steady_cloud(place.seed, low, texel, (height, width), size)
        else:
            cells = (max(2, int((high[0] - low[0]) / size) + 2), max(2, int((high[1] - low[1]) / size) + 2))
            coarse = Image.fromarray(rng.standard_normal((cells[1], cells[0]), np.float32))
            cloud = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
        pixels *= (1 + amount * (0.4 + place.rough + loose * 0.8) * cloud)[..., None]
    return np.maximum(pixels, 0.003)


def _steady_stains(place: Place, pen: _Pen) -> None:
    """Draw oil and repairs that belong to the place; those of a square of 4 m follow from its coordinates."""
    far = 1 << 20  # entropy must not be negative
    first, last = (np.floor(v / 4).astype(int) for v in (pen.low - 2, pen.high + 2))
    for i in range(first[0], last[0] + 1):
        for j in range(first[1], last[1] + 1):
            rng = np.random.default_rng([place.seed, i + far, j + far, 34])
            if rng.uniform() < 0.45:
                x, y = (np.array([i, j]) + rng.uniform(0, 1, 2)) * 4
                rx, ry = rng.uniform(0.1, 0.5, 2)
                tone = tuple(int(v * rng.uniform(0.72, 0.95)) for v in place.base)
                pen.blot(x, y, rx, ry, tone, round_=rng.uniform() < 0.6)


def _steady_cloud(seed: int, low: np.ndarray, texel: float, shape: tuple[int, int], size: float) -> np.ndarray:
    """Return `(H, W)` float32 noise of mean 0 that belongs to the place, with features of `size` meters."""
    parts = []
    for axis, count in ((1, shape[0]), (0, shape[1])):
        where = (low[axis] + (np.arange(count) + 0.5) * texel) / size
        cell = np.floor(where).astype(np.int64)
        parts.append((cell, (where - cell).astype(np.float32)))
    (rows, b), (columns, a) = parts
    y, x = np.arange(rows[0], rows[-1] + 2)[:, None], np.arange(columns[0], columns[-1] + 2)[None]
    mixed = (x * 374761393 + y * 668265263 + (seed + int(size * 100)) * 2147483647).astype(np.uint64)
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    lattice = ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - 0.5) * np.float32(3.46)
    rows, columns = rows - rows[0], columns - columns[0]
    tall = lattice[rows] * (1 - b)[:, None] + lattice[rows + 1] * b[:, None]
    return tall[:, columns] * (1 - a) + tall[:, columns + 1] * a


def _wear(
    place: Place, pen: ImageDraw.ImageDraw, low: np.ndarray, high: np.ndarray, texel: float, rng: np.random.Generator
) -> None:
    """Draw oil, repairs, joints, cracks, tire tracks and stray markings."""
    size = (high - low) / texel
    base = np.array(place.base)

    def tone(share: float) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(base * share, 0, 255))

    def anywhere() -> np.ndarray:
        return rng.uniform(-0.1, 1.1, 2) * size

    def across(width: float, color: tuple[int, ...], shift: float = 0.0, points: int = 2) -> None:
        """Draw a line across the whole patch; `shift` is how far it strays per step, meters."""
        angle, reach = rng.uniform(0, 2 * np.pi), float(np.hypot(*size))
        way = np.array([np.cos(angle), np.sin(angle)])
        place_ = anywhere() + np.linspace(-reach, reach, points)[:, None] * way
        place_ = place_ + rng.normal(0, 1, (points, 2)).cumsum(axis=0) * (shift / texel)
        pen.line([tuple(p) for p in place_.tolist()], fill=color, width=max(1, round(width / texel)))

    for _ in range(int(rng.integers(0, 5))):
        (x, y), r = anywhere(), rng.uniform(0.08, 0.6, 2) / texel
        if rng.uniform() < 0.6:
            pen.ellipse((x - r[0], y - r[1], x + r[0], y + r[1]), fill=tone(rng.uniform(0.6, 0.95)))
        else:
            pen.rectangle((x - 3 * r[0], y - r[1], x + 3 * r[0], y + r[1]), fill=tone(rng.uniform(0.75, 1.2)))
    for chance, width, share, shift, points in (
        (0.3 + 0.3 * place.rough, 0.03, 0.55, 0.08, 60),  # a crack
        (0.3 * place.rough, 0.05, 0.5, 0.03, 20),  # filled with tar
        (0.25, 0.025, 0.7, 0.0, 2),  # a joint
        (0.2, 0.2, 0.8, 0.0, 2),  # a tire track
    ):
        while rng.uniform() < chance:
            across(width, tone(share * rng.uniform(0.85, 1.15)), shift, points)
    if place.kind != 'gravel' and rng.uniform() < 0.3:  # hatching, letters, old lines
        white = _mix(place.base, (226, 226, 220) if rng.uniform() < 0.75 else (214, 170, 50), rng.uniform(0.3, 1.0))
        (x, y), angle = anywhere(), rng.uniform(0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        wide, long, step = rng.uniform(0.08, 0.5), rng.uniform(0.5, 5), rng.uniform(0.4, 1.4)
        for n in range(int(rng.integers(1, 7))):
            a, b = n * step, n * step + wide
            quad = ((a, 0), (b, 0), (b, long), (a, long))
            pen.polygon([(x + (c * u - s * v) / texel, y + (s * u + c * v) / texel) for u, v in quad], fill=white)


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _road(place: Place, pen: _Pen) -> None:
    white = _mix(place.base, (226, 226, 220), 0.35 + 0.65 * place.paint)
    edge = place.lane * place.lanes
    for sign in (-1, 1):
        pen.strip(sign * (edge + 0.5), sign * 60, place.beside)
        pen.strip(sign * (edge + 0.35), sign * (edge + 0.55), _mix(place.base, (176, 174, 168), 0.7))
        pen.strip(sign * edge - 0.07, sign * edge + 0.07, white)
    for lane in range(-place.lanes, place.lanes):  # worn by wheels
        for wheel in (0.32, 0.68):
            y = (lane + wheel) * place.lane
            pen.strip(y - 0.25, y + 0.25, _mix(place.base, (40, 40, 42), 0.10))
    for line in range(-place.lanes + 1, place.lanes):
        y = line * place.lane
        if line == 0 and place.seed % 3:
            for shift in (-0.12, 0.12):
                pen.strip(y + shift - 0.06, y + shift + 0.06, white)
        else:
            for x in pen.steps(0, 9.0, place.seed % 9):
                pen.rectangle(x, y - 0.07, x + 3.5, y + 0.07, white)


def _crossing(place: Place, pen: _Pen) -> None:
    _road(place, pen)
    white = _mix(place.base, (228, 228, 222), 0.35 + 0.65 * place.paint)
    edge = place.lane * place.lanes
    for start in pen.steps(0, 28.0, place.seed % 28):
        for y in np.arange(-edge + 0.4, edge - 0.3, 1.0):
            pen.rectangle(start, y, start + 3.0, y + 0.5, white)
        pen.rectangle(start - 1.6, -edge, start - 1.2, 0, white)
        pen.rectangle(start + 4.2, 0, start + 4.6, edge, white)
        for lane in range(-place.lanes, place.lanes):  # arrows
            y = (lane + 0.5) * place.lane
            x = start - 9 if lane < 0 else start + 8
            pen.rectangle(x, y - 0.09, x + 3.2, y + 0.09, white)
            for step in range(4):
                tip = x + 3.2 + step * 0.3 if lane < 0 else x - step * 0.3 - 0.3
                pen.rectangle(tip, y - 0.4 + 0.1 * step, tip + 0.3, y + 0.4 - 0.1 * step, white)


def _parking(place: Place, pen: _Pen) -> None:
    """Draw rows of bays along x on both sides of lanes: from 3 to 8 m and from -8 to -3 m, every 16 m."""
    white = _mix(place.base, (222, 222, 216), 0.35 + 0.65 * place.paint)
    for middle in pen.steps(1, 16.0):
        for x in pen.steps(0, place.lane):
            pen.rectangle(x - 0.05, middle + 3, x + 0.05, middle + 13, white)
        if place.seed % 2:
            pen.strip(middle + 7.94, middle + 8.06, white)
        else:
            pen.strip(middle + 7.5, middle + 8.5, place.beside)
            pen.strip(middle + 7.4, middle + 7.5, (150, 148, 144))
            pen.strip(middle + 8.5, middle + 8.6, (150, 148, 144))


def _yard(place: Place, pen: _Pen) -> None:
    joint = _mix(place.base, (60, 60, 60), 0.45)
    step = 2.5 + place.seed % 4
    for x in pen.steps(0, step):
        pen.rectangle(x - 0.03, pen.low[1], x + 0.03, pen.high[1], joint)
    for y in pen.steps(1, step):
        pen.strip(y - 0.03, y + 0.03, joint)


def _street(place: Place, pen: _Pen) -> None:
    """Draw a narrow street with sidewalks of slabs, and green beside them."""
    edge = place.lane * place.lanes
    for sign in (-1, 1):
        a, b = sorted((sign * edge, sign * (edge + 2.2)))
        slab = _mix(place.base, (168, 164, 158), 0.65)
        pen.strip(a, b, slab)
        for x in pen.steps(0, 0.6):
            pen.rectangle(x, a, x + 0.03, b, _mix(slab, (80, 80, 80), 0.35))
        pen.strip(sign * edge, sign * (edge + 0.15), (172, 170, 166))
        pen.strip(sign * (edge + 2.2), sign * 60, place.beside)


def _gravel(place: Place, pen: _Pen) -> None:
    for sign in (-1, 1):
        for y in (0.8, 1.0):
            pen.strip(sign * y - 0.2, sign * y + 0.2, _mix(place.base, (70, 62, 52), 0.16))
    pen.strip(5 + place.seed % 5, 60, place.beside)


def _junction(place: Place, pen: _Pen) -> None:
    """Draw two roads that cross in the origin, along x and along y."""
    white = _mix(place.base, (226, 226, 220), 0.35 + 0.65 * place.paint)
    edge, corner = place.lane * place.lanes, 3.0
    stone = _mix(place.base, (176, 174, 168), 0.7)
    for sx in (-1, 1):
        for sy in (-1, 1):
            for inset, color in ((0.0, stone), (0.2, place.beside)):
                near, radius = edge + inset, corner
                for free in ((near, near + radius), (near + radius, near)):
                    x, y = (sorted((sign * away, sign * 80)) for sign, away in zip((sx, sy), free, strict=True))
                    pen.rectangle(x[0], y[0], x[1], y[1], color)
                pen.disc(sx * (near + radius), sy * (near + radius), radius, color)
    stop = edge + 3
    for line in range(-place.lanes + 1, place.lanes):
        for sign in (-1, 1):
            for start in np.arange(stop, 80, 9 if line else 3.4):
                a, b = sorted((sign * start, sign * (start + 3.5)))
                low_edge, high_edge = line * place.lane - 0.07, line * place.lane + 0.07
                pen.rectangle(a, low_edge, b, high_edge, white)
                pen.rectangle(low_edge, a, high_edge, b, white)
    for sign in (-1, 1):
        a, b = sorted((sign * stop, sign * (stop + 0.4)))
        side = sorted((0.0, sign * edge))
        pen.rectangle(a, side[0], b, side[1], white)
        side = sorted((0.0, -sign * edge))
        pen.rectangle(side[0], a, side[1], b, white)


def _ring(place: Place, pen: _Pen) -> None:
    """Draw a roundabout around the origin with roads that end in it, or a bend if the radius is large."""
    white = _mix(place.base, (226, 226, 220), 0.35 + 0.65 * place.paint)
    stone = _mix(place.base, (176, 174, 168), 0.7)
    half = place.lane * place.lanes / 2
    inner, outer = place.radius - half, place.radius + half
    pen.strip(pen.low[1], pen.high[1], place.beside)
    arms = 3 + place.seed % 3 if place.circular else 0
    for arm in range(arms):
        angle = 2 * np.pi * arm / arms + place.seed
        ahead, side = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for wide, color in ((place.lane + 0.35, stone), (place.lane, place.base)):
            ends = ((outer - 1, wide + 2.5), (outer + 3.5, wide), (90, wide), (90, -wide), (outer + 3.5, -wide))
            pen.polygon(np.array([ahead * a + side * b for a, b in (*ends, (outer - 1, -wide - 2.5))]), color)
        pen.polygon(
            np.array([ahead * a + side * b for a, b in ((outer + 1.2, 1.1), (outer + 9, 0), (outer + 1.2, -1.1))]),
            stone,
        )
        for step in np.arange(0.4, place.lane - 0.3, 1.0):  # yield lines
            corners = ((0.3, step), (0.3, step + 0.6), (0.7, step + 0.6), (0.7, step))
            pen.polygon(np.array([ahead * (outer + a) + side * b for a, b in corners]), white)
    pen.disc(0, 0, outer + 0.3, stone if not arms else place.base)
    pen.disc(0, 0, outer, white if not arms else place.base)
    pen.disc(0, 0, outer - 0.15, place.base)
    for lane in range(place.lanes):  # worn by wheels
        for wheel in (0.32, 0.68):
            r = outer - (lane + wheel) * place.lane
            pen.disc(0, 0, r + 0.25, _mix(place.base, (40, 40, 42), 0.10))
            pen.disc(0, 0, r - 0.25, place.base)
    for line in range(1, place.lanes):
        r = outer - line * place.lane
        count = max(8, round(2 * np.pi * r / 6))
        for dash in range(count):
            angles = (dash + np.linspace(0, 0.4, 5)) * 2 * np.pi / count
            way = np.stack([np.cos(angles), np.sin(angles)], 1)
            pen.polygon(np.concatenate([way * (r - 0.07), way[::-1] * (r + 0.07)]), white)
    pen.disc(0, 0, inner + 0.15, white)
    pen.disc(0, 0, inner, stone)
    apron = inner - 0.3 - (1.5 if arms and place.seed % 2 else 0)
    pen.disc(0, 0, inner - 0.3, _mix(place.base, (150, 110, 90), 0.5) if arms else place.beside)
    pen.disc(0, 0, apron, place.beside)


_PATTERNS = {'road': _road, 'crossing': _crossing, 'parking': _parking, 'yard': _yard, 'street': _street}
_PATTERNS |= {'gravel': _gravel, 'junction': _junction, 'roundabout': _ring, 'bend': _ring}
