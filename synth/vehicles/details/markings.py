"""What is painted on the body: roofs and panels of another color, stripes, decals, letters and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..body import ARTICULATED, TRUCKS, VANS, Body
from ..colors import RGB, Paint, sample_marking_color
from ..identity import Identity
from ..swatches import PAINT
from ..texture import FRONT, LEFT, REAR, RIGHT, SIDES, TOP, Atlas
from .base import ANY, CARS, Detail, Layer


class TwoTone(Detail):
    name, order, weight, kinds = 'two_tone', 16, 0.5, CARS
    clear, layer, replaces = True, Layer.ROOF_COLOR, ('roof_patch',)

    @classmethod
    def sample_color(cls, rng: np.random.Generator, kind: str, paint: Paint) -> RGB:
        color = sample_marking_color(rng, kind, paint)
        if rng.uniform() < 0.85:
            return (18, 18, 20) if max(paint.rgb) > 60 else (214, 214, 212)
        return color

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        half, back, front = body.width / 2, body.rear_top - 0.1, body.screen_top + 0.1
        atlas.rectangle(TOP, (back, -half, 0), (front, half, 9), self.color(PAINT))
        atlas.rectangle(SIDES, (back, -half, max(body.curves['roof']) - 0.16), (front, half, 9), self.color(PAINT))


class RoofPatch(Detail):
    name, order, weight, kinds = 'roof_patch', 17, 0.4, (*CARS, *VANS, 'tipper', *ARTICULATED)
    clear, colors, layer = True, sample_marking_color, Layer.ROOF_COLOR

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        half, span = body.width / 2, body.screen_top - body.rear_top
        x = body.rear_top + span * 0.6 * self.u
        y = half * (0.9 if self.v < 0.5 else 0.0)
        atlas.rectangle(TOP, (x, -half, 0), (x + span * (0.2 + 0.3 * self.s), y, 9), self.color(PAINT))


class Panel(Detail):
    """A hood, a fender, a trunk lid or a door from another vehicle."""

    name, order, weight, kinds = 'panel', 15, 0.7, (*CARS, *VANS, 'pickup')
    clear, colors, layer = True, sample_marking_color, Layer.PANELS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        half, length, color = body.width / 2, body.length, self.color(PAINT)
        which = self.n if body.kind not in (*VANS, 'pickup') else 1 + self.n % 2
        belt = body.at('belt', body.cowl)
        side, sign = (LEFT, 1) if self.u < 0.5 else (RIGHT, -1)
        if which == 1:
            atlas.rectangle(TOP, (body.cowl, -half * 0.84, 0), (length / 2 - 0.12, half * 0.84, 9), color)
        elif which == 2:
            atlas.rectangle(side, (body.cowl - 0.15, 0, 0.2), (length / 2, 0, belt), color)
            atlas.rectangle(TOP, (body.cowl - 0.15, sign * half * 0.7, 0), (length / 2, sign * half, 9), color)
        elif which == 3:
            low, high = (-length / 2, -half * 0.8, 0.5), (body.rear_base + 0.02, half * 0.8, 9)
            atlas.rectangle((TOP, REAR), low, high, color)
        else:
            atlas.rectangle(side, (body.cowl - 1.2, 0, 0.25), (body.cowl - 0.15, 0, belt), color)


class Stripes(Detail):
    """Stripes from the front to the rear, or around the sides."""

    name, order, weight, kinds = 'stripes', 11, 0.7, (*CARS, 'pickup', *VANS, 'bus')
    clear, colors, layer = True, sample_marking_color, Layer.STRIPES

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        half, length, color = body.width / 2, body.length, self.color(PAINT)
        width = 0.07 + 0.16 * self.s
        if self.n <= 2 and body.kind != 'bus':
            for y in (-width * 0.8, width * 0.8) if self.n == 1 else ((self.v - 0.5) * half,):
                low, high = (-length / 2, y - width / 2, 0), (length / 2, y + width / 2, 9)
                atlas.rectangle((TOP, FRONT, REAR), low, high, color)
            return
        z = body.at('belt', 0) * (0.5 + 0.4 * self.u)
        atlas.rectangle((*SIDES, FRONT, REAR), (-length, -half, z - width), (length, half, z + width), color)
        if body.kind == 'bus':
            x = (self.v - 0.5) * length * 0.6
            atlas.rectangle((TOP, *SIDES), (x, -half, 0), (x + 0.6 + 2.5 * self.s, half, 9), color)


def _area(body: Body) -> tuple[float, float]:
    """Return x of the front and of the rear end of the area for signs: the load, or else the roof."""
    if body.cargo:
        return body.cargo
    if body.kind in TRUCKS:
        return body.screen_top, body.cab_rear
    return (body.screen_top, body.rear_top) if body.kind == 'pickup' else (body.screen_top - 0.2, body.rear_top + 0.2)


class Decal(Detail):
    """A sticker on each side, and often on the hood or the roof."""

    name, order, weight, kinds = 'decal', 12, 1.2, ANY
    colors, layer = sample_marking_color, Layer.MARKINGS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        front, rear = _area(body)
        big = body.kind == 'bus' or body.cargo is not None
        color = self.color(PAINT)
        size = (0.1 + 0.14 * self.s) * (2.2 if big else 1.0)
        x, y = rear + (front - rear) * self.u, (self.v - 0.5) * body.width / 2
        if self.n <= 2:
            if self.n == 1 and body.cowl < body.length / 2 - 0.6:
                x = body.cowl + 0.2 + (body.length / 2 - 0.4 - body.cowl) * self.u * 0.7
            if self.s < 0.5:
                atlas.disc(TOP, (x, y, 0), size, color)
            else:
                atlas.rectangle(TOP, (x - size, y - size * 0.6, 0), (x + size, y + size * 0.6, 9), color)
        z = body.at('belt', 0) * 0.68 if not big else body.height * 0.6
        atlas.rectangle(SIDES, (x - size * 1.5, 0, z - size * 0.6), (x + size * 1.5, 0, z + size * 0.6), color)


class Lettering(Detail):
    """The name of a company on each side, and often on the roof."""

    name, order, weight = 'lettering', 13, 1.0
    kinds = (*VANS, 'bus', 'box_truck', 'hatchback', 'estate', 'flatbed', 'pickup', 'tipper', 'semitrailer')
    colors, layer = sample_marking_color, Layer.MARKINGS

    @classmethod
    def sample(cls, rng: np.random.Generator, kind: str, paint: Paint) -> Detail:
        detail = super().sample(rng, kind, paint)
        letters = ('ABCDEFGHIKLMNOPRSTUVWXZ', 'AEIOU')
        sets = [letters[i % 2] for i in range(int(rng.integers(3, 8)))]
        return replace(detail, text=''.join(some[int(rng.integers(len(some)))] for some in sets))

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        front, rear = _area(body)
        text, color, middle = self.text or '', self.color(PAINT), (front + rear) / 2
        tall = body.cargo is not None or body.kind == 'bus'
        usual = {'bus': 0.45, 'van': 0.35, 'minibus': 0.3}.get(body.kind, 0.7 if body.cargo else 0.18)
        span = (front - rear) if tall else body.length * 0.6
        height = min(usual * (0.7 + 0.6 * self.s), 1.3 * span / max(3, len(text)))
        z = body.height * 0.62 if body.cargo else body.at('belt', 0) * 0.72
        for view in SIDES:
            atlas.text(view, (middle, 0, z), text, height, color)
        if self.n <= 2 and body.kind != 'pickup':
            turns = self.n % 2 * 3 if tall else 3
            atlas.text(TOP, (middle, 0, 0), text, min(height, body.width / 2 * 0.8), color, turns)


class RoofNumber(Detail):
    name, order, weight = 'roof_number', 14, 0.5
    kinds = (*VANS, 'bus', 'box_truck', 'sedan', 'estate', 'flatbed', 'suv', 'tipper', *ARTICULATED)
    clear, colors, layer = True, sample_marking_color, Layer.MARKINGS

    @classmethod
    def sample(cls, rng: np.random.Generator, kind: str, paint: Paint) -> Detail:
        return replace(super().sample(rng, kind, paint), text=str(int(rng.integers(10, 999))))

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        front, rear = _area(body)
        x = (front + rear) / 2 + (self.u - 0.5) * (front - rear) * 0.3
        height = min(1.1 if body.kind == 'bus' or body.cargo is not None else 0.55, body.width / 2 * 0.9)
        atlas.text(TOP, (x, 0, 0), self.text or '', height, self.color(PAINT), 3 if self.n % 2 else 1)
