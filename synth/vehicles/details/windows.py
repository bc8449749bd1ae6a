"""Windows, which every vehicle has, and details behind and in glass: seats, sunshades, shelves and sunroofs."""

from __future__ import annotations

import numpy as np

from ..body import ARTICULATED, TRUCKS, VANS, Body
from ..colors import sample_part_color
from ..identity import Identity
from ..swatches import CHROME, GLASS, METALLIC
from ..texture import FRONT, REAR, SIDES, TOP, Atlas, Color
from .base import CARS, CHROME_RGB, GLOSS, Detail, Layer, paints

_Points = list[tuple[float, float, float]]


def _glass(identity: Identity) -> Color:
    tone = 10 + int(14 * identity.model.look['interior'])
    return tone, tone + 1, tone + 2, GLASS


def _shrunk(points: _Points, share: float) -> _Points:
    """Scale a polygon about its center."""
    middle = np.mean(points, axis=0)
    return [_point(middle + (np.array(p) - middle) * share) for p in points]


def _point(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values
    return x, y, z


def _windshield(body: Body) -> _Points:
    """Outline of the windshield: its lower edge from the right to the left, then its upper edge; 18 points, bus 4."""
    cowl, top = body.cowl, body.screen_top
    low, high = body.at('half', cowl) * 0.86, body.at('edge', top) - 0.02
    z_low, z_high = body.at('belt', cowl) + 0.03, body.at('roof', top) - 0.04
    if body.kind == 'bus':
        nose, z = body.length / 2, z_low - 0.25
        return [(nose, -low, z), (nose, low, z), (top, low, z_high - 0.1), (top, -low, z_high - 0.1)]
    bulge = 0.13 if body.kind not in (*VANS, *TRUCKS) else 0.06
    arc = np.linspace(-1, 1, 9)
    return [
        *((cowl - 0.02 + bulge * (1 - 0.74 * t * t) - 0.2 * bulge, low * t, z_low) for t in arc),
        *((top + 0.02 + bulge * 0.8 * (1 - t * t), -high * t, z_high) for t in arc),
    ]


def _behind_windshield(body: Body, share: float) -> _Points | None:
    """Outline of the lower part of the windshield, `share` of its height; None for a bus."""
    inner = _shrunk(_windshield(body), 0.90)
    if len(inner) < 18:
        return None
    pairs = zip(inner[8::-1], inner[9:], strict=True)
    return [*inner[:9], *(_point(np.array(a) * (1 - share) + np.array(b) * share) for a, b in pairs)]


@paints(Layer.WINDSHIELD)
def paint_windshield(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the windshield and its frame."""
    outline, glass = _windshield(body), _glass(identity)
    atlas.polygon((TOP, FRONT), outline, GLOSS if identity.model.look['frame'] < 0.6 else glass)
    atlas.polygon((TOP, FRONT), _shrunk(outline, 0.93), glass)


class Seats(Detail):
    """Pale seats behind the windshield."""

    name, order, weight, kinds = 'seats', 25, 0.6, CARS
    layer = Layer.SEATS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        color = (92 + int(60 * self.s), 80 + int(50 * self.s), 62 + int(40 * self.s), GLASS)
        atlas.polygon((TOP, FRONT), _shrunk(_windshield(body), 0.8), color)


@paints(Layer.DASHBOARD)
def paint_dashboard(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the dashboard, unless a sunshade covers it."""
    outline = _behind_windshield(body, 0.35)
    if outline and 'sunshade' not in identity.details:
        tone = 30 + int(34 * identity.model.look['interior'])
        atlas.polygon((TOP, FRONT), outline, (tone, tone, tone - 4, GLASS))


class Sunshade(Detail):
    name, order, weight = 'sunshade', 24, 0.6
    kinds = (*CARS, *VANS, 'pickup', 'flatbed', 'box_truck', 'tipper', *ARTICULATED)
    clear, colors, layer = True, sample_part_color, Layer.DASHBOARD

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        red, green, blue, _ = (min(235, c + 20) for c in self.color(GLASS))
        color = (red, green, blue, GLASS) if self.v < 0.4 else (186, 190, 194, GLASS)
        outline = _behind_windshield(body, 0.8)
        if outline:
            atlas.polygon((TOP, FRONT), outline, color)


@paints(Layer.REAR_WINDOW)
def paint_rear_window(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the rear window; trucks and some vans have none."""
    look = identity.model.look
    top, base = body.rear_top, body.rear_base
    if body.kind in TRUCKS or (body.kind == 'van' and look['windows'] < 0.4):
        return
    low, high = body.at('half', base) * 0.80, body.at('edge', top) - 0.05
    z_low, z_high = body.at('roof', base) + 0.02, body.at('roof', top) - 0.06
    views: tuple[int, ...] = (TOP, REAR)
    if body.kind in (*VANS, 'bus'):
        z_low, z_high, low, views = body.at('belt', 0) + 0.1, body.height - 0.3, high, (REAR,)
    x = top - 0.03
    outline = [(base, -low, z_low), (base, low, z_low), (x, high, z_high), (top - 0.09, 0, z_high), (x, -high, z_high)]
    atlas.polygon(views, outline, GLOSS)
    atlas.polygon(views, _shrunk(outline, 0.92), _glass(identity))
    if body.kind == 'sedan':  # the shelf behind the seats
        gray = 40 + int(50 * look['interior'])
        pairs = ((outline[1], outline[2]), (outline[0], outline[4]))
        shelf = [*outline[:2], *(_point(0.6 * np.array(a) + 0.4 * np.array(b)) for a, b in pairs)]
        atlas.polygon(TOP, _shrunk(shelf, 0.9), (gray, gray, gray - 3, GLASS))


class Shelf(Detail):
    """Something pale on the shelf behind the rear window."""

    name, order, weight, kinds = 'shelf', 26, 0.5, ('sedan', 'hatchback', 'estate')
    layer = Layer.REAR_SHELF

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        x = body.rear_base * 0.7 + body.rear_top * 0.3
        y = (self.u - 0.5) * (body.at('half', body.rear_base) * 0.80)
        atlas.rectangle(TOP, (x, y - 0.14, 0), (x + 0.2, y + 0.14, 9), (170, 160, 130, GLASS))


@paints(Layer.SIDE_WINDOWS)
def paint_side_windows(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the windows of both sides with their frames and pillars."""
    look, kind = identity.model.look, body.kind
    boxy = kind in ('bus', *VANS, *TRUCKS)

    def z_top(x: float) -> float:
        return body.at('roof', x) - (0.28 if boxy else 0.13)

    def z_low(x: float) -> float:
        return body.at('belt', x) + 0.035

    front_low, front_high = body.cowl - 0.16, body.screen_top - 0.03
    rear_low, rear_high = body.rear_base + (0.28 if kind == 'sedan' else 0.12), body.rear_top - 0.02
    if kind == 'pickup':
        rear_low = rear_high = body.rear_top + 0.05
    elif kind in VANS:
        cab_only = look['windows'] < 0.5 and kind == 'van'
        rear_low = rear_high = body.cowl - 1.35 if cab_only else -body.length / 2 + 0.35
    elif kind == 'bus':
        front_low = front_high = body.length / 2 - 0.3
        rear_low = rear_high = -body.length / 2 + 0.3
    elif kind in TRUCKS:
        rear_low = rear_high = body.cab_rear + 0.35
        front_low, front_high = body.cowl - 0.1, body.screen_top - 0.02
    share = np.linspace(0, 1, 24)
    upper = [(x, 0, max(z_top(x), z_low(x) + 0.02)) for x in front_high + (rear_high - front_high) * share]
    lower = [(x, 0, z_low(x)) for x in front_low + (rear_low - front_low) * share[::-1]]
    outline = [(front_low, 0, z_low(front_low)), *upper, *lower]
    frame = (*CHROME_RGB, CHROME) if 0.6 < look['frame'] < 0.8 and kind in ('sedan', 'estate', 'suv') else GLOSS
    atlas.polygon(SIDES, outline, _glass(identity))
    atlas.line(SIDES, [*outline, outline[0]], frame, 0.035)
    span = front_low - rear_low
    pillars = {'bus': int(span / 1.4), 'van': max(1, int(span / 1.3)), 'minibus': int(span / 1.2), 'pickup': 1}.get(
        kind, 0 if kind in TRUCKS else 2
    )
    if kind in ('hatchback', 'sedan') and look['windows'] < 0.3:
        pillars = 1
    for index in range(pillars):
        where = (index + 1) / (pillars + 1) if pillars > 2 else (0.46 if index == 0 else 0.82)
        x = front_low - span * where
        ends = [(x, 0, z_low(x)), (x - 0.05, 0, z_top(x) + 0.05)]
        atlas.line(SIDES, ends, GLOSS, 0.04 + 0.05 * look['pillar'])


def _roof_glass(body: Body) -> tuple[float, float, float]:
    """Return x of the front and of the rear end of the roof between the windows, and half its width there."""
    front, rear = body.screen_top - 0.18, body.rear_top + 0.15
    return front, rear, body.at('edge', (front + rear) / 2)


class Sunroof(Detail):
    """A sunroof that is closed, or slid open to the rear."""

    name, order, weight, kinds = 'sunroof', 1, 1.6, CARS
    clear, layer = True, Layer.ROOF_GLASS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        front, _, half = _roof_glass(body)
        x = front - 0.05 - 0.3 * self.u
        size = 0.38 + 0.25 * self.s
        atlas.rectangle(TOP, (x - size, -half * 0.62, 0), (x, half * 0.62, 9), (12, 13, 15, GLASS))
        if self.n == 1:
            low, high = (x - size - 0.25, -half * 0.6, 0), (x - size - 0.05, half * 0.6, 9)
            atlas.rectangle(TOP, low, high, (150, 152, 150, METALLIC))


class Panorama(Detail):
    name, order, weight, kinds = 'panorama', 2, 1.0, CARS
    clear, layer, replaces = True, Layer.ROOF_GLASS, ('sunroof',)

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        front, rear, half = _roof_glass(body)
        y, back = half * 0.84, rear + (front - rear) * 0.35 * self.u
        atlas.rectangle(TOP, (back, -y, 0), (front, y, 9), (10, 11, 13, GLASS))
        x = (back + front) / 2
        atlas.rectangle(TOP, (x - 0.04, -y, 0), (x + 0.04, y, 9), GLOSS)
