"""Bodies: from a kind of vehicle and its proportions to a skin and the places of windows, lamps and doors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .shapes import Mesh, box, cylinder, ellipsoid, join, loft
from .swatches import BODY, DARK, RIM, TIRE, TRIM

__all__ = ['ARTICULATED', 'KINDS', 'TRUCKS', 'VANS', 'Body', 'build_body']

#: kind -> (length, width, height) in meters, each from .. to
KINDS: dict[str, tuple[tuple[float, float], ...]] = {
    'sedan': ((4.35, 5.05), (1.76, 1.92), (1.41, 1.50)),
    'hatchback': ((3.60, 4.45), (1.64, 1.82), (1.44, 1.56)),
    'estate': ((4.45, 4.95), (1.77, 1.90), (1.44, 1.54)),
    'suv': ((4.15, 5.05), (1.80, 2.00), (1.60, 1.85)),
    'pickup': ((4.95, 5.70), (1.80, 2.00), (1.72, 1.90)),
    'van': ((4.70, 6.30), (1.86, 2.06), (1.90, 2.75)),
    'bus': ((8.50, 13.0), (2.40, 2.55), (2.85, 3.30)),
    'box_truck': ((5.60, 8.60), (2.05, 2.50), (2.90, 3.70)),
    'flatbed': ((5.40, 8.60), (2.00, 2.45), (2.10, 2.80)),
    'minibus': ((5.30, 7.40), (1.94, 2.10), (2.30, 2.80)),
    'tipper': ((6.60, 9.20), (2.35, 2.52), (2.70, 3.10)),
    'semitrailer': ((13.5, 16.5), (2.48, 2.56), (3.70, 4.05)),
    'container': ((13.5, 16.5), (2.44, 2.52), (3.80, 4.05)),
    'skeleton': ((13.5, 16.5), (2.44, 2.52), (2.90, 3.60)),
    'tanker': ((13.0, 16.0), (2.46, 2.54), (3.30, 3.65)),
}
VANS = ('van', 'minibus')
#: a tractor and its trailer
ARTICULATED = ('semitrailer', 'container', 'skeleton', 'tanker')
TRUCKS = ('box_truck', 'flatbed', 'tipper', *ARTICULATED)


@dataclass
class Body:
    """What fittings and paint need to know of a body; all meters, x from the middle, forwards.

    Attributes:
        length, width, height: of the whole vehicle, without mirrors and fittings.
        mesh: the skin, wheels and mirrors.
        xs: stations, from the rear to the front, for the curves below.
        roof: height of the middle line at each station.
        belt: height of the shoulder at each station.
        half: half width of the shoulder at each station.
        edge: half width of the roof or hood at each station.
        cowl, screen_top, rear_top, rear_base: x where the windshield and the rear window end.
        wheels: x of the axles.
        wheel_radius: of the tires.
        bed: (front x, rear x, floor z, rail z) of an open bed, or None.
        cargo: (front x, rear x) of a box body, or None.
        cab_rear: x where the painted cab ends.
    """

    kind: str
    length: float
    width: float
    height: float
    mesh: Mesh
    xs: np.ndarray
    roof: np.ndarray
    belt: np.ndarray
    half: np.ndarray
    edge: np.ndarray
    cowl: float
    screen_top: float
    rear_top: float
    rear_base: float
    clearance: float
    wheels: tuple[float, ...]
    wheel_radius: float
    bed: tuple[float, float, float, float] | None = None
    cargo: tuple[float, float] | None = None
    cab_rear: float = 0.0
    curves: dict[str, float] = field(default_factory=dict)

    def at(self, name: str, x: float) -> float:
        """One of the curves at `x`."""
        return float(np.interp(x, self.xs, getattr(self, name)))


def build_body(kind: str, shape: dict[str, float]) -> Body:
    """The body of a model.

    Args:
        kind: one of `KINDS`.
        shape: `length`, `width`, `height` in meters and the shares `a` to `h` in 0..1 that vary the proportions.
    """
    return _truck(kind, shape) if kind in TRUCKS else _car(kind, shape)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _car(kind: str, s: dict[str, float]) -> Body:
    length, height = s['length'], s['height']
    a, b, c, d, e, f = (s[k] for k in 'abcdef')
    bed = None
    if kind in ('sedan', 'hatchback', 'estate', 'suv', 'pickup'):
        tall = kind in ('suv', 'pickup')
        belt = height * _between(0.60, 0.66, a) if not tall else height * _between(0.56, 0.62, a)
        nose = belt * _between(0.68, 0.80, b) if not tall else belt * _between(0.78, 0.90, b)
        cowl = _between(0.235, 0.30, c) if kind != 'hatchback' else _between(0.20, 0.27, c)
        top = cowl + _between(0.13, 0.19, d) * 4.6 / length * (0.9 if tall else 1.0)
        if kind == 'pickup':
            top = cowl + 0.11
    else:
        belt = height * _between(0.48, 0.56, a) if kind in VANS else height * _between(0.42, 0.48, a)
        nose = belt * _between(0.66, 0.82, b) if kind in VANS else belt * 0.9
        cowl = _between(0.09, 0.17, c) if kind in VANS else 0.008
        top = cowl + (_between(0.10, 0.16, d) * 5.0 / length if kind in VANS else _between(0.012, 0.03, d))
    hood = belt + 0.01
    points = [(0.0, nose * 0.86), (0.018, nose), (cowl * 0.55, _between(nose, hood, 0.72)), (cowl, hood)]
    if kind == 'bus':
        points = [(0.0, nose), (cowl, belt)]
    points += [(top, height - 0.035), (top + 0.10, height)]
    if kind == 'sedan':
        rear_top, rear_base = _between(0.66, 0.70, e), _between(0.82, 0.88, f)
        deck = belt + _between(0.03, 0.10, b)
        points += [(rear_top, height - 0.05), (rear_base, deck), (0.975, deck - 0.02), (1.0, deck - 0.16)]
    elif kind == 'hatchback':
        rear_top, rear_base = _between(0.84, 0.90, e), _between(0.955, 0.975, f)
        points += [(rear_top, height - 0.07), (rear_base, belt + 0.04), (0.992, belt - 0.10), (1.0, belt - 0.25)]
    elif kind in ('estate', 'suv'):
        rear_top, rear_base = _between(0.885, 0.94, e), _between(0.965, 0.98, f)
        points += [(rear_top, height - 0.06), (rear_base, belt + 0.04), (0.992, belt - 0.10), (1.0, belt - 0.25)]
    elif kind == 'pickup':
        rear_top = _between(0.52, 0.62, e)
        rear_base = rear_top + 0.022
        rail = belt + _between(-0.02, 0.05, f)
        points += [(rear_top, height - 0.03), (rear_base, rail + 0.0), (0.985, rail), (1.0, rail - 0.08)]
        bed = (rear_base + 0.012, 0.978, rail - _between(0.42, 0.50, d), rail)
    else:
        rear_top, rear_base = (0.965, 0.992) if kind in VANS else (0.985, 0.996)
        points += [(rear_top, height - 0.02), (rear_base, belt), (1.0, belt - 0.2)]
    shape = _Curves(
        length,
        s['width'],
        np.array(points),
        belt_front=nose,
        belt=belt,
        cowl=cowl,
        clearance=0.17 if not bed and kind not in ('suv', 'bus', *VANS) else 0.24,
        tumble=_between(0.26, 0.38, e) if kind not in (*VANS, 'bus') else _between(0.05, 0.12, e),
        taper=_between(0.07, 0.13, f) if kind != 'bus' else 0.03,
        flat=kind in (*VANS, 'bus'),
        soft=_between(0.03, 0.06, c),
        belt_rise=_between(0.0, 0.06, d) if kind in ('hatchback', 'suv') else 0.02,
        rear=(rear_top, rear_base),
        bed=bed,
        boxy=kind in (*VANS, 'bus'),
    )
    mesh = loft(shape.rings())
    radius = {'suv': 0.36, 'pickup': 0.38, 'van': 0.34, 'minibus': 0.35, 'bus': 0.48}.get(kind, 0.315)
    axles = {'bus': (0.21, 0.72), 'van': (0.17, 0.76), 'minibus': (0.17, 0.76), 'pickup': (0.17, 0.76)}.get(
        kind, (0.18, 0.79)
    )
    wheels = tuple(length * (0.5 - x) for x in axles)

    def x_of(share: float) -> float:
        return length * (0.5 - share)

    body = Body(
        kind,
        length,
        s['width'],
        height,
        mesh,
        *shape.sampled(),
        cowl=x_of(cowl),
        screen_top=x_of(top),
        rear_top=x_of(rear_top),
        rear_base=x_of(rear_base),
        clearance=shape.clearance,
        wheels=wheels,
        wheel_radius=radius,
        bed=None if bed is None else (x_of(bed[0]), x_of(bed[1]), bed[2], bed[3]),
        cab_rear=-length / 2,
    )
    body.mesh = join([mesh, *_wheels(body), *_mirrors(body)])
    return body


@dataclass
class _Curves:
    """The outline of a lofted body; x as share of the length from the nose."""

    length: float
    width: float
    points: np.ndarray
    belt_front: float
    belt: float
    cowl: float
    clearance: float
    tumble: float
    taper: float
    flat: bool
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
        reach = 0.8 if not self.boxy else 0.5
        near = np.clip(1 - ends / reach, 0, 1)
        half = self.width / 2 * (1 - self.taper * near**2)
        radius = 0.22 if not self.flat else 0.12
        rest = np.clip(1 - ends / radius, 0, 1)
        self.half = half - 1.15 * radius * (1 - np.sqrt(1 - 0.98 * rest**2))

    def sampled(self) -> tuple[np.ndarray, ...]:
        """Stations from the rear to the front, and roof, belt, half width and edge there."""
        x = (self.length / 2 - self.x)[::-1]
        rise = self.top - self.shoulder
        edge = 0.93 * self.half - np.minimum(self.tumble * rise, 0.35) - 0.02
        return x, self.top[::-1], self.shoulder[::-1], self.half[::-1], edge[::-1]

    def rings(self) -> np.ndarray:
        special = [p for p in self.points[:, 0] * self.length if 0 < p < self.length]
        stations = [0.0, 0.03, 0.08, 0.15, 0.24, 0.4, self.length - 0.4, self.length - 0.24, self.length - 0.15]
        stations += [self.length - 0.08, self.length - 0.03, self.length]
        stations += [q for p in special for q in (p - 0.09, p, p + 0.09)]
        if self.bed:
            stations = [x for x in stations if not self.rear[1] * self.length - 0.04 < x < self.length - 0.2]
            stations += [self.bed[0] * self.length + d for d in (-0.03, -0.015, 0.0, 0.4)]
            stations += [self.bed[1] * self.length + d for d in (-0.4, 0.0, 0.015, 0.04)]
        stations += list(np.linspace(0.5, self.length - 0.5, 9))
        stations = np.unique(np.clip(np.round(stations, 3), 0, self.length))
        keep = np.concatenate([[True], np.diff(stations) > 0.012])
        return np.stack([self._ring(x) for x in stations[keep]])

    def _ring(self, x: float) -> np.ndarray:
        top, belt, half = (float(np.interp(x, self.x, v)) for v in (self.top, self.shoulder, self.half))
        end = min(x, self.length - x)
        low = self.clearance + 0.10 * np.clip(1 - end / 0.5, 0, 1) ** 2
        deep = belt - low
        rise = top - belt
        edge = 0.93 * half - min(self.tumble * rise, 0.35) - 0.02
        rounding = min(0.10, 0.45 * rise)
        crown = min(0.075 if not self.flat else 0.05, 0.55 * rise)
        side = np.array([0.94 * half, belt + 0.15 * min(rise, 0.1)])
        shoulder_edge = np.array([edge, top - rounding - 0.2 * crown])
        points = [
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
        points = np.array(points)
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
        if self.flat:
            bulge *= 0.5
        # the middle lies further forward than the sides
        forward = self.length / 2 - x + bulge * (1 - (points[:, 0] / half) ** 2)
        left = np.column_stack([forward, points])
        right = left[::-1] * [1, -1, 1]
        return np.concatenate([left, right])


def _wheels(body: Body, twin: bool = False) -> list[Mesh]:
    """Tires that end a little inside of the skin; what lies outside of it is painted onto it."""
    found = []
    for x in body.wheels:
        outer = body.at('half', x) - 0.015
        wheel = cylinder(
            (x, outer - 0.22, body.wheel_radius), (x, outer, body.wheel_radius), body.wheel_radius, TIRE, 14
        )
        rim = cylinder(
            (x, outer - 0.02, body.wheel_radius),
            (x, outer + 0.004, body.wheel_radius),
            body.wheel_radius * 0.66,
            RIM,
            10,
        )
        found += [wheel, rim, wheel.mirrored(), rim.mirrored()]
    return found


def _mirrors(body: Body) -> list[Mesh]:
    x = body.cowl - 0.25 * min(1.0, abs(body.cowl - body.screen_top) / 0.5)
    side = body.at('half', x)
    z = body.at('belt', x) + 0.06
    if body.kind in ('bus', *TRUCKS):
        shell = box((body.cowl + 0.05, side - 0.02, z + 0.5), (body.cowl + 0.15, side + 0.2, z + 0.95), 0.03, TRIM)
    else:
        shell = box((x - 0.05, side - 0.08, z), (x + 0.09, side + 0.16, z + 0.15), 0.06, BODY)
    return [shell, shell.mirrored()]


def _truck(kind: str, s: dict[str, float]) -> Body:
    """A cab-over or a short-hood cab before what it carries or tows."""
    length, width, height = s['length'], s['width'], s['height']
    a, b, c, d, e, f = (s[k] for k in 'abcdef')
    towing = kind in ARTICULATED
    cab = _between(1.75, 2.3, a) if not towing else _between(2.15, 2.5, a)
    cab_height = height
    if kind == 'box_truck':
        cab_height = _between(2.15, 2.75, b)
    elif towing and kind != 'skeleton':
        cab_height = _between(2.85, 3.6, b)
    belt = cab_height * _between(0.54, 0.60, c)
    hood = _between(0.01, 0.16, d) if d > 0.4 and not towing else 0.01
    points = [(0.0, belt * 0.82), (0.02, belt * 0.95), (max(hood, 0.03), belt), (hood + 0.16, cab_height - 0.06)]
    points += [(0.55, cab_height), (0.95, cab_height - 0.03), (1.0, cab_height - 0.15)]
    cab_half = min(width, 2.2) / 2 if kind == 'box_truck' else width / 2 * 0.95
    shape = _Curves(
        cab,
        2 * cab_half,
        np.array(points),
        belt_front=belt * 0.9,
        belt=belt,
        cowl=max(hood, 0.03),
        clearance=0.42,
        tumble=0.08,
        taper=0.06,
        flat=True,
        soft=0.04,
        belt_rise=0.0,
        rear=(0.98, 0.99),
        boxy=True,
    )
    ahead = (length - cab) / 2
    skin = loft(shape.rings()).moved(x=ahead)
    x, roof, belt_line, half, edge = shape.sampled()
    x = x + ahead
    radius = _between(0.38, 0.46, e) if not towing else _between(0.46, 0.52, e)
    front, rear = length / 2 - cab - (0.06 if not towing else _between(0.4, 0.8, f)), -length / 2 + 0.02
    deck = radius * 2 + 0.12
    wheels = [length / 2 - cab * 0.62, -length / 2 + length * 0.2]
    if kind == 'tipper':
        wheels[1:] = [rear + 2.4, rear + 1.1]
    elif towing:
        wheels[1:] = [front - 0.95, *(rear + 1.2 + 1.32 * axle for axle in (2, 1, 0))]
    parts = [skin]
    sides = width / 2
    parts.append(box((rear + 0.3, -0.45, 0.45), (front + 0.3, 0.45, deck - 0.1), 0.0, DARK))
    bed = cargo = None
    top = height
    if towing:
        # the tractor's frame, and what is above it
        parts.append(box((front - 1.7, -0.42, 0.5), (front + 0.7, 0.42, deck - 0.12), 0.0, DARK))
        load, cargo = _trailer(kind, s, front, rear, deck)
        parts += load
        top = height if cargo else deck
    elif kind == 'box_truck':
        cargo = (front, rear)
        parts.append(box((rear, -sides, deck - 0.06), (front, sides, height), _between(0.015, 0.07, f)))
    else:
        rail = deck + (_between(0.12, 0.55, f) if kind == 'flatbed' else _between(0.75, 1.25, f))
        bed = (front, rear, deck, rail)
        parts.append(box((rear, -sides, deck - 0.14), (front, sides, deck), 0.02))
        parts += [box((rear, sides - 0.05, deck - 0.05), (front, sides, rail), 0.015)]
        parts.append(parts[-1].mirrored())
        parts.append(box((rear, -sides, deck - 0.05), (rear + 0.05, sides, rail), 0.015))
        parts.append(box((front - 0.06, -sides, deck - 0.05), (front, sides, max(rail, cab_height - 0.25)), 0.015))
        top = deck
    tail = np.array([-length / 2, front - 0.02])
    extend = {'roof': (roof, top), 'belt': (belt_line, deck), 'half': (half, sides), 'edge': (edge, sides)}
    values = {k: np.concatenate([np.full(2, v), curve]) for k, (curve, v) in extend.items()}
    body = Body(
        kind,
        length,
        width,
        max(height, cab_height),
        skin,
        np.concatenate([tail, x]),
        values['roof'],
        values['belt'],
        values['half'],
        values['edge'],
        cowl=length / 2 - cab * max(hood, 0.03),
        screen_top=length / 2 - cab * (hood + 0.16),
        rear_top=length / 2 - cab,
        rear_base=length / 2 - cab,
        clearance=0.42,
        wheels=tuple(wheels),
        wheel_radius=radius,
        bed=bed,
        cargo=cargo,
        cab_rear=length / 2 - cab,
    )
    body.mesh = join([*parts, *_wheels(body), *_mirrors(body)])
    return body


def _trailer(
    kind: str, s: dict[str, float], front: float, rear: float, deck: float
) -> tuple[list[Mesh], tuple[float, float] | None]:
    """What a tractor tows: parts, and (front x, rear x) of its load."""
    sides, height = s['width'] / 2, s['height']
    if kind == 'semitrailer':
        return [box((rear, -sides, deck - 0.1), (front, sides, height), _between(0.015, 0.08, s['g']))], (front, rear)
    if kind == 'tanker':
        radius = min((height - deck + 0.1) / 2, sides)
        middle, start, end = height - radius, rear + 0.3, front - 0.3
        shell = cylinder((start, 0, middle), (end, 0, middle), radius, -1, 28)
        domes = [ellipsoid((x, 0, middle), (0.3, radius, radius), -1, 10, 28) for x in (start, end)]
        cradle = box((rear, -0.6, deck - 0.35), (front, 0.6, middle - radius * 0.7), 0.0, DARK)
        return [shell, *domes, cradle], (front, rear)
    # a frame of two beams and some traverses
    beams = [box((rear, 0.38, deck - 0.3), (front, 0.56, deck - 0.02), 0.0)]
    beams.append(beams[0].mirrored())
    for x in np.linspace(rear + 0.12, front - 0.12, 4 + round(3 * s['h'])):
        beams.append(box((x - 0.1, -sides, deck - 0.2), (x + 0.1, sides, deck), 0.0))
    if kind == 'skeleton':
        return beams, None
    # 40 feet, or 20 in the middle or at the rear
    size = min(12.19, front - rear) if s['g'] < 0.65 else 6.06
    start = rear if s['g'] < 0.85 else (front + rear - size) / 2
    return [*beams, box((start, -sides, height - 2.6), (start + size, sides, height), 0.02)], (start + size, start)
