"""Bodies that are lofted from one outline: cars, pickups, vans and buses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..render.shapes import loft
from .body import VANS, Body, between

__all__ = ['Outline', 'build_car']


def build_car(kind: str, s: dict[str, float]) -> Body:
    """Build the body of a car, a pickup, a van or a bus; see `build_body`."""
    length, height = s['length'], s['height']
    a, b, c, d, e, f = (s[k] for k in 'abcdef')
    bed: tuple[float, float, float, float] | None = None
    if kind in ('sedan', 'hatchback', 'estate', 'suv', 'pickup'):
        tall = kind in ('suv', 'pickup')
        belt = height * between(0.60, 0.66, a) if not tall else height * between(0.56, 0.62, a)
        nose = belt * between(0.68, 0.80, b) if not tall else belt * between(0.78, 0.90, b)
        cowl = between(0.235, 0.30, c) if kind != 'hatchback' else between(0.20, 0.27, c)
        top = cowl + between(0.13, 0.19, d) * 4.6 / length * (0.9 if tall else 1.0)
        if kind == 'pickup':
            top = cowl + 0.11
    else:
        belt = height * between(0.48, 0.56, a) if kind in VANS else height * between(0.42, 0.48, a)
        nose = belt * between(0.66, 0.82, b) if kind in VANS else belt * 0.9
        cowl = between(0.09, 0.17, c) if kind in VANS else 0.008
        top = cowl + (between(0.10, 0.16, d) * 5.0 / length if kind in VANS else between(0.012, 0.03, d))
    hood = belt + 0.01
    points = [(0.0, nose * 0.86), (0.018, nose), (cowl * 0.55, between(nose, hood, 0.72)), (cowl, hood)]
    if kind == 'bus':
        points = [(0.0, nose), (cowl, belt)]
    points += [(top, height - 0.035), (top + 0.10, height)]
    if kind == 'sedan':
        rear_top, rear_base = between(0.66, 0.70, e), between(0.82, 0.88, f)
        deck = belt + between(0.03, 0.10, b)
        points += [(rear_top, height - 0.05), (rear_base, deck), (0.975, deck - 0.02), (1.0, deck - 0.16)]
    elif kind == 'hatchback':
        rear_top, rear_base = between(0.84, 0.90, e), between(0.955, 0.975, f)
        points += [(rear_top, height - 0.07), (rear_base, belt + 0.04), (0.992, belt - 0.10), (1.0, belt - 0.25)]
    elif kind in ('estate', 'suv'):
        rear_top, rear_base = between(0.885, 0.94, e), between(0.965, 0.98, f)
        points += [(rear_top, height - 0.06), (rear_base, belt + 0.04), (0.992, belt - 0.10), (1.0, belt - 0.25)]
    elif kind == 'pickup':
        rear_top = between(0.52, 0.62, e)
        rear_base = rear_top + 0.022
        rail = belt + between(-0.02, 0.05, f)
        points += [(rear_top, height - 0.03), (rear_base, rail), (0.985, rail), (1.0, rail - 0.08)]
        bed = (rear_base + 0.012, 0.978, rail - between(0.42, 0.50, d), rail)
    else:
        rear_top, rear_base = (0.965, 0.992) if kind in VANS else (0.985, 0.996)
        points += [(rear_top, height - 0.02), (rear_base, belt), (1.0, belt - 0.2)]
    shape = Outline(
        length,
        s['width'],
        np.array(points),
        belt_front=nose,
        belt=belt,
        cowl=cowl,
        clearance=0.24 if bed or kind in ('suv', 'bus', *VANS) else 0.17,
        tumble=between(0.26, 0.38, e) if kind not in (*VANS, 'bus') else between(0.05, 0.12, e),
        taper=between(0.07, 0.13, f) if kind != 'bus' else 0.03,
        soft=between(0.03, 0.06, c),
        belt_rise=between(0.0, 0.06, d) if kind in ('hatchback', 'suv') else 0.02,
        rear=(rear_top, rear_base),
        bed=bed,
        boxy=kind in (*VANS, 'bus'),
    )
    radius = {'suv': 0.36, 'pickup': 0.38, 'van': 0.34, 'minibus': 0.35, 'bus': 0.48}.get(kind, 0.315)
    axles = (0.21, 0.72) if kind == 'bus' else (0.17, 0.76) if kind in (*VANS, 'pickup') else (0.18, 0.79)

    def x_of(share: float) -> float:
        return length * (0.5 - share)

    return Body(
        kind,
        length,
        s['width'],
        height,
        [loft(shape.rings())],
        shape.curves(),
        cowl=x_of(cowl),
        screen_top=x_of(top),
        rear_top=x_of(rear_top),
        rear_base=x_of(rear_base),
        clearance=shape.clearance,
        wheels=tuple(x_of(x) for x in axles),
        wheel_radius=radius,
        bed=None if bed is None else (x_of(bed[0]), x_of(bed[1]), bed[2], bed[3]),
        cab_rear=-length / 2,
    )


@dataclass
class Outline:
    """The outline of a lofted body. Positions along it are shares of its length, from the nose.

    Attributes:
        length, width: size in meters.
        points: `(N, 2)` position and height of corners of the roof line, which is smoothed.
        belt_front, belt: height of the shoulder at the nose and at the windshield, meters.
        cowl: position of the lower end of the windshield.
        clearance: height of the lower edge, meters.
        tumble: slope of the side windows.
        taper: share by which the ends are narrower than the middle.
        soft: standard deviation of the smoothing of the roof line, meters.
        belt_rise: height by which the shoulder rises to the rear, meters.
        rear: positions of the upper and of the lower end of the rear window.
        bed: positions of the front and the rear of an open bed, and the height of its floor and rail; or None.
        boxy: whether it is a van, a bus or the cab of a truck.
    """

    length: float
    width: float
    points: np.ndarray
    belt_front: float
    belt: float
    cowl: float
    clearance: float
    tumble: float
    taper: float
    soft: float
    belt_rise: float
    rear: tuple[float, float]
    bed: tuple[float, float, float, float] | None = None
    boxy: bool = False

    def __post_init__(self) -> None:
        step = 0.01
        self.x = np.arange(0, self.length + step / 2, step)  # meters behind the nose
        roof = np.interp(self.x / self.length, *self.points.T)
        taps = np.arange(-20, 21) * step
        kernel = np.exp(-0.5 * (taps / self.soft) ** 2)
        padded = np.concatenate([2 * roof[0] - roof[20:0:-1], roof, 2 * roof[-1] - roof[-2:-22:-1]])
        self.top = np.convolve(padded, kernel / kernel.sum(), 'valid')
        share = self.x / self.length
        high = self.belt + self.belt_rise * np.clip((share - self.cowl) / 0.6, 0, 1)
        low = np.interp(
            share, [0, 0.02, max(self.cowl, 0.03)], [self.belt_front * 0.80, self.belt_front * 0.91, self.belt - 0.035]
        )
        self.shoulder = np.minimum(np.where(share < self.cowl, low, high), self.top - 0.02)
        ends = np.minimum(self.x, self.length - self.x)
        reach = 0.5 if self.boxy else 0.8
        near = np.clip(1 - ends / reach, 0, 1)
        half = self.width / 2 * (1 - self.taper * near**2)
        radius = 0.12 if self.boxy else 0.22
        rest = np.clip(1 - ends / radius, 0, 1)
        self.half = half - 1.15 * radius * (1 - np.sqrt(1 - 0.98 * rest**2))

    def curves(self) -> dict[str, np.ndarray]:
        """Return `Body.curves`."""
        edge = 0.93 * self.half - np.minimum(self.tumble * (self.top - self.shoulder), 0.35) - 0.02
        x = self.length / 2 - self.x
        curves = {'x': x, 'roof': self.top, 'belt': self.shoulder, 'half': self.half, 'edge': edge}
        return {name: curve[::-1] for name, curve in curves.items()}

    def rings(self) -> np.ndarray:
        """Return the rings for `loft`."""
        special = [p for p in self.points[:, 0] * self.length if 0 < p < self.length]
        stations = [0.0, 0.03, 0.08, 0.15, 0.24, 0.4, self.length - 0.4, self.length - 0.24, self.length - 0.15]
        stations += [self.length - 0.08, self.length - 0.03, self.length]
        stations += [q for p in special for q in (p - 0.09, p, p + 0.09)]
        if self.bed:
            stations = [x for x in stations if not self.rear[1] * self.length - 0.04 < x < self.length - 0.2]
            stations += [self.bed[0] * self.length + d for d in (-0.03, -0.015, 0.0, 0.4)]
            stations += [self.bed[1] * self.length + d for d in (-0.4, 0.0, 0.015, 0.04)]
        stations += list(np.linspace(0.5, self.length - 0.5, 9))
        xs = np.unique(np.clip(np.round(stations, 3), 0, self.length))
        keep = np.concatenate([[True], np.diff(xs) > 0.012])
        return np.stack([self._ring(x) for x in xs[keep].tolist()])

    def _ring(self, x: float) -> np.ndarray:
        top, belt, half = (float(np.interp(x, self.x, v)) for v in (self.top, self.shoulder, self.half))
        end = min(x, self.length - x)
        low = self.clearance + 0.10 * np.clip(1 - end / 0.5, 0, 1) ** 2
        deep = belt - low
        rise = top - belt
        edge = 0.93 * half - min(self.tumble * rise, 0.35) - 0.02
        rounding = min(0.10, 0.45 * rise)
        crown = min(0.05 if self.boxy else 0.075, 0.55 * rise)
        side = np.array([0.94 * half, belt + 0.15 * min(rise, 0.1)])
        shoulder_edge = np.array([edge, top - rounding - 0.2 * crown])
        corners = [
            (0.82 * half, low),
            (0.95 * half, low + 0.015),
            (0.985 * half, low + 0.18 * deep),
            (half, low + 0.5 * deep),
            (0.998 * half, low + 0.78 * deep),
            (0.975 * half, belt - 0.03 * min(1, deep)),
            tuple(side),
            tuple(side * 0.9 + shoulder_edge * 0.1),
            tuple(side * 0.5 + shoulder_edge * 0.5 + np.array([0.012, 0]) * min(rise, 1)),
            tuple(shoulder_edge),
            (edge - 0.3 * rounding, top - 0.3 * rounding - crown * 0.75),
            (edge - rounding, top - 0.06 * rounding - crown * 0.68),
            (0.62 * edge, top - crown * 0.36),
            (0.22 * edge, top - crown * 0.04),
        ]
        points = np.array(corners)
        if self.bed:
            front, rear, floor, rail = self.bed
            if front * self.length - 0.02 < x <= rear * self.length + 0.001:
                inner = half - 0.11
                open_bed = x > front * self.length - 0.005
                points[5] = (0.985 * half, rail - 0.03)
                points[6] = (half - 0.03, rail)
                if open_bed:
                    points[7:] = [
                        (inner + 0.02, rail),
                        (inner, rail - 0.02),
                        (inner, (rail + floor) / 2),
                        (inner, floor + 0.02),
                        (inner - 0.03, floor),
                        (0.6 * inner, floor),
                        (0.2 * inner, floor),
                    ]
        bulge = 0.0
        share = x / self.length
        if self.cowl * 0.6 < share < self.cowl + 0.25:
            bulge = (
                0.13 * np.clip((share - self.cowl * 0.6) / 0.1, 0, 1) * np.clip((self.cowl + 0.25 - share) / 0.1, 0, 1)
            )
        elif self.rear[0] - 0.1 < share < self.rear[1] and not self.bed:
            bulge = -0.06 * np.clip((share - self.rear[0] + 0.1) / 0.1, 0, 1)
            bulge *= np.clip((self.rear[1] - share) / 0.05, 0, 1)
        if self.boxy:
            bulge *= 0.5
        # the middle lies further ahead than the sides
        forward = self.length / 2 - x + bulge * (1 - (points[:, 0] / half) ** 2)
        left = np.column_stack([forward, points])
        right = left[::-1] * [1, -1, 1]
        return np.concatenate([left, right])
