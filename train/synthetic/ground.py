"""Ground: a place seen from above, drawn anew for the piece that an image shows.

Coordinates of the place in metres: roads run along x. A place is an endless pattern, so that any point of it can be
looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .materials import LINEAR

__all__ = ['PLACES', 'Place', 'draw_patch']

PLACES = ('road', 'parking', 'crossing', 'yard', 'gravel', 'street')


@dataclass(frozen=True)
class Place:
    """How the ground of one flight looks.

    Attributes:
        kind: one of `PLACES`.
        base: sRGB of the surface.
        beside: sRGB of what lies beside the road.
        lane: width of lanes or bays in metres.
        lanes: to each side of the middle line.
        paint: brightness of markings, 0..1.
        rough: strength of patches and stains.
        seed: of its pattern.
    """

    kind: str
    base: tuple[int, int, int]
    beside: tuple[int, int, int]
    lane: float
    lanes: int
    paint: float
    rough: float
    seed: int


def draw_patch(place: Place, low: np.ndarray, high: np.ndarray, texel: float, rng: np.random.Generator) -> np.ndarray:
    """The ground between two corners.

    Args:
        place: what to draw.
        low, high: `(2,)` metres in coordinates of the place.
        texel: metres.
        rng: for what differs between two visits: stains.

    Returns:
        `(H, W, 3)` float32, linear reflectance; rows along y upwards, columns along x.
    """
    width, height = (max(2, int(np.ceil(v))) for v in (high - low) / texel)
    image = Image.new('RGB', (width, height), place.base)
    pen = ImageDraw.Draw(image)

    def rectangle(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...]) -> None:
        a, b = (np.array([x0, y0]) - low) / texel, (np.array([x1, y1]) - low) / texel
        if a[0] <= width and b[0] >= 0 and a[1] <= height and b[1] >= 0:
            pen.rectangle((a[0], a[1], max(a[0], b[0] - 1), max(a[1], b[1] - 1)), fill=colour)

    _PATTERNS[place.kind](place, low, high, rectangle)
    _wear(place, pen, low, high, texel, rng)
    drawn = np.asarray(image)
    pixels = LINEAR[drawn]
    fine = rng.standard_normal((height, width), np.float32)
    # what is beside the road is grass or soil; how rough all of it looks differs with the sun and the camera
    loose = (drawn == np.array(place.beside, np.uint8)).all(-1) if place.kind != 'gravel' else np.float32(1)
    strength = np.exp(rng.normal(0, 0.4, 4))
    pixels *= (1 + (0.07 * (1 + place.rough) * strength[0] + 0.16 * strength[1] * loose) * fine)[..., None]
    for size, amount in ((2.5, 0.10 * strength[2]), (0.35, 0.06 * strength[3]), (0.12, 0.05 * strength[1])):  # metres
        if size < 1.5 * texel:
            continue
        cells = (max(2, int((high[0] - low[0]) / size) + 2), max(2, int((high[1] - low[1]) / size) + 2))
        coarse = Image.fromarray(rng.standard_normal((cells[1], cells[0]), np.float32))
        cloud = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
        pixels *= (1 + amount * (0.4 + place.rough + loose * 0.8) * cloud)[..., None]
    return np.maximum(pixels, 0.003)


def _wear(
    place: Place, pen: ImageDraw.ImageDraw, low: np.ndarray, high: np.ndarray, texel: float, rng: np.random.Generator
) -> None:
    """Oil, repairs, joints, cracks, tracks of tyres, and markings wherever they are."""
    size = (high - low) / texel
    base = np.array(place.base)

    def tone(share: float) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(base * share, 0, 255))

    def anywhere() -> np.ndarray:
        return rng.uniform(-0.1, 1.1, 2) * size

    def across(width: float, colour: tuple[int, ...], shift: float = 0.0, points: int = 2) -> None:
        """A line through the whole patch; `shift` is how far it strays, in metres a step."""
        angle, reach = rng.uniform(0, 2 * np.pi), float(np.hypot(*size))
        way = np.array([np.cos(angle), np.sin(angle)])
        place_ = anywhere() + np.linspace(-reach, reach, points)[:, None] * way
        place_ = place_ + rng.normal(0, 1, (points, 2)).cumsum(axis=0) * (shift / texel)
        pen.line([tuple(p) for p in place_.tolist()], fill=colour, width=max(1, round(width / texel)))

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
        (0.2, 0.2, 0.8, 0.0, 2),  # of a tyre
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


def _steps(low: float, high: float, step: float, phase: float = 0.0) -> np.ndarray:
    return np.arange(np.floor((low - phase) / step), np.ceil((high - phase) / step) + 1) * step + phase


def _road(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    white = _mix(place.base, (226, 226, 220), 0.35 + 0.65 * place.paint)
    edge = place.lane * place.lanes
    for sign in (-1, 1):
        a, b = sorted((sign * (edge + 0.5), sign * 60))
        rectangle(low[0], a, high[0], b, place.beside)
        kerb = sorted((sign * (edge + 0.35), sign * (edge + 0.55)))
        rectangle(low[0], kerb[0], high[0], kerb[1], _mix(place.base, (176, 174, 168), 0.7))
        rectangle(low[0], sign * edge - 0.07, high[0], sign * edge + 0.07, white)
    for lane in range(-place.lanes, place.lanes):  # where wheels run
        for wheel in (0.32, 0.68):
            y = (lane + wheel) * place.lane
            rectangle(low[0], y - 0.25, high[0], y + 0.25, _mix(place.base, (40, 40, 42), 0.10))
    for line in range(-place.lanes + 1, place.lanes):
        y = line * place.lane
        if line == 0 and place.seed % 3:
            for shift in (-0.12, 0.12):
                rectangle(low[0], y + shift - 0.06, high[0], y + shift + 0.06, white)
        else:
            for x in _steps(low[0], high[0], 9.0, place.seed % 9):
                rectangle(x, y - 0.07, x + 3.5, y + 0.07, white)


def _crossing(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    _road(place, low, high, rectangle)
    white = _mix(place.base, (228, 228, 222), 0.35 + 0.65 * place.paint)
    edge = place.lane * place.lanes
    for start in _steps(low[0], high[0], 28.0, place.seed % 28):
        for y in np.arange(-edge + 0.4, edge - 0.3, 1.0):
            rectangle(start, y, start + 3.0, y + 0.5, white)
        rectangle(start - 1.6, -edge, start - 1.2, 0, white)
        rectangle(start + 4.2, 0, start + 4.6, edge, white)
        for lane in range(-place.lanes, place.lanes):  # arrows
            y = (lane + 0.5) * place.lane
            x = start - 9 if lane < 0 else start + 8
            rectangle(x, y - 0.09, x + 3.2, y + 0.09, white)
            for step in range(4):
                tip = x + 3.2 + step * 0.3 if lane < 0 else x - step * 0.3 - 0.3
                rectangle(tip, y - 0.4 + 0.1 * step, tip + 0.3, y + 0.4 - 0.1 * step, white)


def _parking(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    """Rows of bays along x on both sides of lanes: bays reach from 3 to 8 m and from -8 to -3 m, every 16 m."""
    white = _mix(place.base, (222, 222, 216), 0.35 + 0.65 * place.paint)
    for middle in _steps(low[1], high[1], 16.0):
        for x in _steps(low[0], high[0], place.lane):
            rectangle(x - 0.05, middle + 3, x + 0.05, middle + 13, white)
        if place.seed % 2:
            rectangle(low[0], middle + 7.94, high[0], middle + 8.06, white)
        else:
            rectangle(low[0], middle + 7.5, high[0], middle + 8.5, place.beside)
            rectangle(low[0], middle + 7.4, high[0], middle + 7.5, (150, 148, 144))
            rectangle(low[0], middle + 8.5, high[0], middle + 8.6, (150, 148, 144))


def _yard(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    joint = _mix(place.base, (60, 60, 60), 0.45)
    step = 2.5 + place.seed % 4
    for x in _steps(low[0], high[0], step):
        rectangle(x - 0.03, low[1], x + 0.03, high[1], joint)
    for y in _steps(low[1], high[1], step):
        rectangle(low[0], y - 0.03, high[0], y + 0.03, joint)


def _street(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    """A narrow street with parked cars: pavements of slabs, then green."""
    edge = place.lane * place.lanes
    for sign in (-1, 1):
        a, b = sorted((sign * edge, sign * (edge + 2.2)))
        slab = _mix(place.base, (168, 164, 158), 0.65)
        rectangle(low[0], a, high[0], b, slab)
        for x in _steps(low[0], high[0], 0.6):
            rectangle(x, a, x + 0.03, b, _mix(slab, (80, 80, 80), 0.35))
        kerb = sorted((sign * edge, sign * (edge + 0.15)))
        rectangle(low[0], kerb[0], high[0], kerb[1], (172, 170, 166))
        a, b = sorted((sign * (edge + 2.2), sign * 60))
        rectangle(low[0], a, high[0], b, place.beside)


def _gravel(place: Place, low: np.ndarray, high: np.ndarray, rectangle) -> None:
    for sign in (-1, 1):
        for y in (0.8, 1.0):
            rectangle(low[0], sign * y - 0.2, high[0], sign * y + 0.2, _mix(place.base, (70, 62, 52), 0.16))
    rectangle(low[0], 5 + place.seed % 5, high[0], 60, place.beside)


_PATTERNS = {
    'road': _road,
    'crossing': _crossing,
    'parking': _parking,
    'yard': _yard,
    'street': _street,
    'gravel': _gravel,
}
