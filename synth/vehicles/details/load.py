"""Box bodies and open beds, and what is on them: floors, covers, toolboxes, roll bars and cargo."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...render.shapes import Mesh, box, cylinder, ellipsoid
from ..body import ARTICULATED, TRUCKS, Body
from ..colors import RGB, sample_part_color
from ..identity import Identity
from ..swatches import CHROME, MATT, PAINT, TRIM, Swatches
from ..texture import FRONT, REAR, SIDES, TOP, Atlas, Color
from .base import Detail, Layer, darker, paints


class BedFloor(Detail):
    """A floor, or a frame, in a color of its own."""

    name, order, weight, kinds = 'bed_floor', 36, 0.8, ('flatbed', 'pickup', 'tipper', 'skeleton')
    clear, colors = True, sample_part_color


def floor_color(identity: Identity, usual: Color) -> Color:
    """Return the color of `BedFloor`, or the usual one of a vehicle without it."""
    return identity.details['bed_floor'].color(MATT) if 'bed_floor' in identity.details else usual


@paints(Layer.LOAD)
def paint_load(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the box body or the bed of a truck."""
    if body.kind not in TRUCKS:
        return
    half, rear, front = body.width / 2, -body.length / 2, body.cab_rear - 0.03
    atlas.rectangle(REAR, (rear, -half, 0), (0, half, 0.8), (34, 34, 36, MATT))  # below the load
    if body.cargo and body.kind not in ARTICULATED:
        _paint_box(identity, body, atlas, rear, front)
    elif body.kind not in ARTICULATED:
        _paint_bed(identity, body, atlas, rear, front)


def _paint_box(identity: Identity, body: Body, atlas: Atlas, rear: float, front: float) -> None:
    half, second = body.width / 2, identity.second
    color = (*second.rgb, PAINT if second.material == PAINT else MATT)
    atlas.rectangle((TOP, *SIDES), (rear - 1, -half, 0), (front, half, 9), color)
    atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 9), color)
    z = body.at('roof', body.cab_rear + 0.5)
    atlas.rectangle(FRONT, (0, -half, z - 0.05), (0, half, 9), color)
    dark = darker(color, 0.72)
    atlas.rectangle(SIDES, (rear, 0, 0), (front, 0, 2 * body.wheel_radius + 0.08), (40, 40, 42, MATT))
    for y in (-half + 0.03, half - 0.03):
        atlas.rectangle(TOP, (rear, y - 0.04, 0), (front, y + 0.04, 9), dark)
    for x in np.arange(rear + 0.6, front, 0.62):
        atlas.line((TOP, *SIDES), [(x, -half, 0.9), (x, half, 0.9)], darker(color, 0.9), 0.015)
        atlas.line(SIDES, [(x, 0, 1.0), (x, 0, 9)], darker(color, 0.9), 0.015)
    atlas.line(REAR, [(rear, 0, 0.8), (rear, 0, 9)], dark, 0.03)


def _paint_bed(identity: Identity, body: Body, atlas: Atlas, rear: float, front: float) -> None:
    half, look, rgb = body.width / 2, identity.model.look, identity.second.rgb
    share = look['interior']
    wood = (118 + int(40 * share), 98 + int(34 * share), 76 + int(26 * share), MATT)
    floor = floor_color(identity, wood if look['windows'] < 0.6 else (74, 76, 80, MATT))
    atlas.rectangle(TOP, (rear, -half, 0), (front, half, 9), floor)
    for y in np.linspace(-half, half, 10):
        atlas.line(TOP, [(rear, y, 0), (front, y, 0)], darker(floor, 0.8), 0.02)
    atlas.rectangle(SIDES, (rear, 0, 2 * body.wheel_radius), (front, 0, 9), (*rgb, PAINT))
    atlas.rectangle(SIDES, (rear, 0, 0), (front, 0, 2 * body.wheel_radius + 0.05), (36, 36, 38, MATT))
    if body.kind == 'tipper':  # its boards of steel are higher
        atlas.rectangle(REAR, (rear, -half, 2.0), (0, half, 4), (*rgb, PAINT))
    for x in np.linspace(rear, front, 5):
        atlas.line(SIDES, [(x, 0, 0.9), (x, 0, 4)], darker((*rgb, MATT), 0.7), 0.05)
    atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 2.0), (*rgb, PAINT))


@paints(Layer.BED_FLOOR)
def paint_pickup_bed(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the floor of a pickup's bed with its ridges, or the one of `BedFloor`."""
    if not body.bed or body.kind != 'pickup':
        return
    (front, rear, _, _), half = body.bed, body.width / 2
    atlas.rectangle(TOP, (rear - 0.005, -half * 0.87, 0), (front + 0.01, half * 0.87, 9), (44, 45, 47, MATT))
    for y in np.linspace(-0.75, 0.75, 9) * half:
        atlas.line(TOP, [(rear, y, 0), (front, y, 0)], (34, 35, 37, MATT), 0.03)
    if 'bed_floor' in identity.details:
        color = identity.details['bed_floor'].color(MATT)
        atlas.rectangle(TOP, (rear + 0.02, -half * 0.7, 0), (front - 0.02, half * 0.7, 9), color)


def _bed(body: Body) -> tuple[float, float, float, float]:
    """Return the bed of a body of a kind that has one."""
    if body.bed is None:
        raise ValueError(f'a {body.kind} has no bed; correct the kinds of the detail')
    return body.bed


class Cover(Detail):
    """A cover over the bed: flat, or as high as the cab."""

    name, order, weight, kinds = 'cover', 28, 1.2, ('pickup',)
    clear, colors, replaces = True, sample_part_color, ('cargo',)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear, _, rail = _bed(body)
        red, green, blue, material = self.color(PAINT)
        if self.n <= 2:
            red, green, blue, material = 26, 26, 28, MATT
        elif self.n == 3:
            red, green, blue = identity.paint.rgb
        color = swatches.add((red, green, blue), material)
        y = body.width / 2 - 0.07
        rear = rear if self.u < 0.7 else (front + rear) / 2
        height = 0.04 if self.v < 0.6 else 0.55
        return [box((rear, -y, rail - 0.02), (front, y, rail + height), 0.03 if height < 0.1 else 0.1, color)]


class Toolbox(Detail):
    name, order, weight, kinds = 'toolbox', 29, 0.8, ('pickup',)
    clear, colors = True, sample_part_color

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, _, _, rail = _bed(body)
        color = swatches.add((168, 170, 172), CHROME) if self.v < 0.5 else swatches.add(self.color(MATT)[:3], MATT)
        y = body.width / 2 - 0.08
        return [box((front - 0.38 - 0.15 * self.s, -y, rail - 0.2), (front - 0.02, y, rail + 0.1), 0.02, color)]


class RollBar(Detail):
    name, order, weight, kinds = 'roll_bar', 30, 0.7, ('pickup',)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, _, _, rail = _bed(body)
        color = swatches.add((150, 152, 154), CHROME) if self.v < 0.5 else TRIM
        x, y, z = front - 0.15, body.width / 2 - 0.12, rail + 0.42
        leg = cylinder((x - 0.25, y, rail - 0.05), (x, y * 0.92, z), 0.04, color, 8)
        return [cylinder((x, -y * 0.92, z), (x, y * 0.92, z), 0.04, color, 8), leg, leg.mirrored()]


class Cargo(Detail):
    """Cargo on an open bed: crates, pipes, a heap, or something below a tarpaulin."""

    name, order, weight, kinds = 'cargo', 37, 0, ('flatbed', 'tipper', 'pickup')
    clear, colors = True, sample_part_color
    usual: ClassVar = {'flatbed': 0.5, 'tipper': 0.5}

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        front, rear, floor, _ = _bed(body)
        rng = np.random.default_rng([identity.grain, 2])
        front, rear, y = front - 0.1, rear + 0.1, body.width / 2 - 0.2
        span, rgb = front - rear, self.color(MATT)[:3]
        if self.n == 1:
            return self._crates(rng, front, rear, floor, y, swatches)
        if self.n == 2:  # pipes or beams
            tone: RGB = ((170, 130, 86), (128, 132, 136), (196, 120, 44))[int(3 * self.u * 0.999)]
            color = swatches.add(tone, MATT)
            reach = y * (0.3 + 0.6 * self.s)
            across = np.linspace(-reach, reach, 4 + int(5 * self.s))
            lengths = span * rng.uniform(0.7, 1.0, len(across))
            return [
                cylinder((front - 0.05, at, floor + 0.12), (front - length, at, floor + 0.12), 0.1, color, 7)
                for at, length in zip(across, lengths, strict=True)
            ]
        if self.n == 3:  # a heap of earth, gravel or plants
            tone = ((122, 98, 70), (150, 146, 138), (92, 84, 74), (74, 88, 52))[int(4 * self.u * 0.999)]
            color = swatches.add(tone, MATT)
            heap = []
            for _ in range(4):
                center = (rng.uniform(rear + 0.3, front - 0.3), rng.uniform(-0.4, 0.4) * y, floor)
                radii = (span * rng.uniform(0.15, 0.34), y * 0.6, rng.uniform(0.25, 0.7))
                heap.append(ellipsoid(center, radii, color, 5, 9))
            return heap
        color = swatches.add(rgb, MATT)
        height = 0.5 + 1.1 * self.s if body.kind in ('flatbed', 'tipper') else 0.4 + 0.3 * self.s
        start = rear + span * 0.4 * self.u
        return [box((start, -y, floor), (start + span * (0.35 + 0.25 * self.v), y, floor + height), 0.06, color)]

    def _crates(
        self, rng: np.random.Generator, front: float, rear: float, floor: float, y: float, swatches: Swatches
    ) -> list[Mesh]:
        crates = []
        for _ in range(3 + int(4 * self.s)):
            size = rng.uniform([0.35, 0.3, 0.25], [0.9, 0.7, 0.8]) * min(1.0, (front - rear) / 2)
            x, side = rng.uniform(rear, front - size[0]), rng.uniform(-y, y - size[1])
            tones = ((150, 118, 80), (118, 120, 122), self.color(MATT)[:3], (196, 190, 176))
            color = swatches.add(tones[int(rng.integers(4))])
            crates.append(box((x, side, floor), (x + size[0], side + size[1], floor + size[2]), 0.01, color))
        return crates
