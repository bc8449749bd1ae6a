"""What is mounted on roofs: rails, bars, boxes, ladders, signs, antennas and units for air."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...render.shapes import Mesh, box, cylinder, ellipsoid
from ..body import ARTICULATED, VANS, Body
from ..colors import RGB, Paint, sample_marking_color, sample_muted_color, sample_part_color
from ..identity import Identity
from ..swatches import BODY, CHROME, GLASS, LAMP, MATT, PAINT, TRIM, Swatches
from ..texture import TOP, Atlas
from .base import CARS, Detail, Layer, roof_ends


class Rails(Detail):
    name, order, weight, kinds = 'rails', 3, 1.0, ('estate', 'suv', *VANS, 'hatchback')
    colors = sample_part_color

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        color = swatches.add((150, 152, 154), CHROME) if self.u < 0.6 else TRIM
        y = body.at('edge', (front + rear) / 2) - 0.06
        z = body.at('roof', (front + rear) / 2)
        rail = box((rear, y - 0.025, z - 0.02), (front, y + 0.02, z + 0.045), 0.015, color)
        return [rail, rail.mirrored()]


class Bars(Detail):
    name, order, weight, kinds = 'bars', 4, 0.8, ('hatchback', 'estate', 'suv', 'sedan', *VANS)
    clear, colors = True, sample_part_color

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        color = swatches.add((140, 142, 145), CHROME) if self.v < 0.5 else TRIM
        y = body.at('edge', (front + rear) / 2) + 0.02
        along = rear + (front - rear) * (0.2 + np.linspace(0, 0.6, 2 + self.n // 3) + 0.1 * (self.u - 0.5))
        heights = [body.at('roof', x) for x in along]
        return [
            box((x - 0.03, -y, z + 0.05), (x + 0.03, y, z + 0.09), 0.01, color)
            for x, z in zip(along, heights, strict=True)
        ]


class RoofBox(Detail):
    name, order, weight, kinds = 'roof_box', 5, 0.6, CARS
    clear, replaces = True, ('panorama',)

    @classmethod
    def sample_color(cls, rng: np.random.Generator, kind: str, paint: Paint) -> RGB:
        color = sample_marking_color(rng, kind, paint)
        return sample_muted_color(rng) if rng.uniform() < 0.9 else color

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        length = min(1.3 + 0.8 * self.s, (front - rear) * 1.1)
        middle = (front + rear) / 2
        width = 0.36 + 0.12 * self.v
        y = (self.u - 0.5) * 0.5
        z = body.at('roof', middle) + 0.06
        shell = self.color(PAINT)
        if self.n > 1:
            shell = (26, 26, 28, PAINT) if self.n < 4 else (170, 172, 175, PAINT)
        case = box(
            (middle - length / 2, y - width, z),
            (middle + length / 2, y + width, z + 0.34),
            0.14,
            swatches.add(shell[:3], PAINT),
        )
        return [case, *Bars(u=0.5, v=1.0, s=0.5, n=1).build(identity, body, swatches)]


class Ladder(Detail):
    name, order, weight, kinds = 'ladder', 19, 0.5, (*VANS, 'pickup', 'estate')
    clear, colors, replaces = True, sample_part_color, ('roof_box',)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body) if body.kind != 'pickup' else (body.screen_top, -body.length / 2)
        length = (front - rear) * (0.75 + 0.3 * self.s)
        middle, y = (front + rear) / 2, (self.u - 0.5) * body.width * 0.5
        start, end = middle - length / 2, middle + length / 2
        z = max(body.curves['roof']) + 0.16
        color = swatches.add((178, 180, 182), CHROME) if self.v < 0.6 else swatches.add((198, 150, 52), MATT)
        rails = [box((start, y + s - 0.025, z), (end, y + s + 0.025, z + 0.07), 0.0, color) for s in (-0.2, 0.2)]
        rungs = [
            box((x - 0.02, y - 0.2, z + 0.02), (x + 0.02, y + 0.2, z + 0.05), 0.0, color)
            for x in np.arange(start + 0.15, end, 0.3)
        ]
        posts = [
            box((x - 0.03, -0.75, z - 0.06), (x + 0.03, 0.75, z), 0.0, TRIM)
            for x in (middle - length * 0.3, middle + length * 0.3)
        ]
        return [*rails, *rungs, *posts]


class TaxiSign(Detail):
    name, order, weight, kinds = 'taxi_sign', 18, 0.35, ('sedan', 'estate', 'hatchback', *VANS)
    clear, replaces = True, ('roof_box',)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        x = front - 0.15 - 0.5 * (front - rear) * self.u
        color = swatches.add((232, 186, 36) if self.v < 0.6 else (228, 228, 224), LAMP)
        y, z = 0.22 + 0.12 * self.s, body.at('roof', x)
        return [box((x - 0.09, -y, z), (x + 0.09, y, z + 0.17), 0.04, color)]


class Beacon(Detail):
    """A warning light, or a bar of them."""

    name, order, weight, kinds = 'beacon', 20, 0.4, (*VANS, 'pickup', 'suv', 'box_truck', 'flatbed', 'tipper')

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, _ = roof_ends(body)
        color = swatches.add((226, 120, 20) if self.v < 0.6 else (40, 80, 200), LAMP)
        x = front - 0.2
        z = body.at('roof', x)
        if self.n <= 2:
            return [cylinder((x, self.u - 0.5, z - 0.03), (x, self.u - 0.5, z + 0.16), 0.09, color, 10)]
        return [box((x - 0.12, -0.55, z), (x + 0.12, 0.55, z + 0.13), 0.04, color)]


class Antenna(Detail):
    name, order, weight, kinds = 'aerial', 7, 0.8, (*CARS, *VANS, 'pickup')

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        x, y = (front - 0.05, 0.0) if self.u < 0.4 else (rear, 0.0)
        if self.u >= 0.7:
            x, y = body.cowl + 0.15, body.width / 2 * 0.8
        z = body.at('roof', x) - 0.06
        return [cylinder((x, y, z), (x - 0.25 - 0.2 * self.s, y, z + 0.5 + 0.4 * self.s), 0.012, TRIM, 5)]


class Fin(Detail):
    """An antenna in the shape of a fin."""

    name, order, weight, kinds = 'fin', 8, 0.8, CARS

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        _, rear = roof_ends(body)
        color = BODY if self.u < 0.5 else swatches.add((18, 18, 20), PAINT)
        x = rear + 0.05
        return [ellipsoid((x, 0, body.at('roof', x) - 0.02), (0.12, 0.035, 0.09), color, 4, 8)]


class Vents(Detail):
    name, order, weight, kinds = 'vents', 31, 1.4, (*VANS, 'bus', 'box_truck', 'semitrailer', 'container')
    clear = True

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        color = swatches.add((90, 92, 94) if self.s < 0.5 else (205, 205, 203))
        return _units(self, body, 1 + self.n // 2, (0.22, 0.22, 0.12), color)


class AirConditioner(Detail):
    name, order, weight, kinds = 'air_conditioner', 32, 1.0, ('bus', 'box_truck', *VANS, 'semitrailer')
    clear = True

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        if body.cargo and self.n <= 2:  # a cooler above the cab
            front = body.cargo[0]
            color = swatches.add((214, 214, 212), PAINT)
            return [box((front - 0.1, -0.7, body.height - 0.85), (front + 0.45, 0.7, body.height - 0.05), 0.06, color)]
        bus = body.kind == 'bus'
        color = swatches.add((186, 188, 190) if self.v < 0.6 else (70, 72, 75))
        return _units(self, body, 1, (0.35 + (1.1 if bus else 0.3) * self.s, 0.85 if bus else 0.55, 0.2), color)


class Hatches(Detail):
    name, order, weight, kinds = 'hatches', 33, 1.2, ('bus', 'box_truck', 'tanker')
    clear = True

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        color = swatches.add((200, 202, 202) if self.s < 0.6 else (50, 52, 56), GLASS if self.s > 0.8 else MATT)
        return _units(replace(self, v=0.5), body, self.n, (0.38, 0.38, 0.07), color)


class Skylight(Detail):
    """A pale strip in the roof of a box body, or a window in the roof of a van."""

    name, order, weight, kinds = 'skylight', 34, 0.8, ('box_truck', *VANS)
    clear, layer = True, Layer.ON_LOAD

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        if not body.cargo:
            return
        half, rear, front = body.width / 2, -body.length / 2, body.cab_rear - 0.03
        x, y = rear + (front - rear) * 0.3 * self.u + 0.2, half * (0.3 + 0.5 * self.s)
        atlas.rectangle(TOP, (x, -y, 0), (x + (front - rear) * 0.55, y, 9), (150, 158, 150, MATT))

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        if body.cargo:
            return []
        return _units(self, body, 1, (0.3 + 0.3 * self.s, 0.3, 0.05), swatches.add((30, 32, 36), GLASS))


class Deflector(Detail):
    """A wind deflector on the roof of a cab, in front of the trailer."""

    name, order, weight, kinds = 'deflector', 35, 1.0, ARTICULATED
    clear = True

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear = roof_ends(body)
        z = body.at('roof', (front + rear) / 2)
        y = body.at('edge', (front + rear) / 2) * (0.6 + 0.3 * self.s)
        color = BODY if self.u < 0.6 else swatches.add(identity.second.rgb, PAINT)
        top = z + 0.18 + 0.3 * self.u
        return [box((rear - 0.1, -y, z - 0.05), (rear + 0.5 + 0.5 * self.v, y, top), 0.12, color)]


def _units(detail: Detail, body: Body, count: int, size: tuple[float, float, float], color: int) -> list[Mesh]:
    """Build boxes in a row along the roof; `size` is half a length, half a width and a height, in meters."""
    if body.cargo:
        front, rear = body.cargo[0] - 0.3, body.cargo[1] + 0.3
    else:
        front, rear = body.screen_top - 0.15 - 0.3, body.rear_top + 0.12 + 0.2
    y = (detail.v - 0.5) * body.width * 0.4
    z = body.height if body.cargo else body.at('roof', (front + rear) / 2)
    along = [front + (rear - front) * ((i + detail.u) / count) for i in range(count)]
    return [
        box((x - size[0], y - size[1], z - 0.06), (x + size[0], y + size[1], z + size[2]), 0.05, color) for x in along
    ]
