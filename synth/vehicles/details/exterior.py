"""Seams and trim that every vehicle has, and what is mounted on the body below the roof."""

from __future__ import annotations

import numpy as np

from ...render.shapes import Mesh, box, cylinder
from ..body import TRUCKS, VANS, Body
from ..identity import Identity
from ..swatches import BODY, CHROME, GLASS, MATT, PAINT, TIRE, TRIM, Swatches
from ..texture import FRONT, REAR, RIGHT, SIDES, TOP, Atlas
from .base import BLACK, CARS, Detail, Layer, darker, paints, seam_color


class Bumpers(Detail):
    """Black bumpers, see `paint_bumpers`, or a bar in front."""

    name, order, weight, kinds = 'bumpers', 10, 0.8, (*CARS, 'pickup', *VANS)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        if self.s < 0.75:
            return []
        x, y = body.length / 2 + 0.06, body.width / 2 * 0.55
        color = swatches.add((160, 162, 164), CHROME)
        return [cylinder((x, -y, z), (x, y, z), 0.04, color, 7) for z in (0.75, 0.5)]


@paints(Layer.BUMPERS)
def paint_bumpers(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint black bumpers, of `Bumpers` or of the model, and dark sills."""
    half, look = body.width / 2, identity.model.look
    bumpers = identity.details.get('bumpers')
    if (bumpers and bumpers.s < 0.75) or look['bumper'] < 0.12:
        black, z = (42, 42, 44, MATT), 0.62 if body.kind not in VANS else 0.7
        for x0, x1 in ((-body.length / 2, -body.length / 2 + 0.14), (body.length / 2 - 0.14, body.length / 2)):
            atlas.rectangle((FRONT, REAR, *SIDES), (x0, -half, 0), (x1, half, z), black)
            atlas.rectangle(TOP, (x0, -half, 0), (x0 + 0.09 if x0 < 0 else x1, half, z), black)
    if look['trim'] < 0.35:
        atlas.rectangle(SIDES, (-body.length, 0, 0), (body.length, 0, body.clearance + 0.14), BLACK)


@paints(Layer.SEAMS)
def paint_seams(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the gaps between hood, doors and trunk lid, the doors of a bus and the handles."""
    look, fill = identity.model.look, (*identity.paint.rgb, identity.paint.material)
    seam = seam_color(identity)
    kind, half, nose = body.kind, body.width / 2, body.length / 2
    belt = body.at('belt', body.cowl)
    if kind == 'bus':
        for x in np.linspace(-nose + 1.2, nose - 1.2, 7):
            atlas.line(TOP, [(x, -half * 0.95, 0), (x, half * 0.95, 0)], darker(fill, 0.82), 0.02)
        for x in (nose - 1.3, nose - 1.3 - body.length * 0.42):
            atlas.rectangle(RIGHT, (x, 0, 0.45), (x + 1.1, 0, body.height - 0.45), (16, 17, 19, GLASS))
            atlas.line(RIGHT, [(x + 0.55, 0, 0.45), (x + 0.55, 0, body.height - 0.45)], (90, 90, 92, MATT), 0.03)
        return
    if kind not in TRUCKS:
        edge = half * (0.70 + 0.10 * look['line'])
        front = nose - 0.12 - 0.1 * look['grille']
        for sign in (-1, 1):
            atlas.line(TOP, [(body.cowl + 0.02, sign * edge, 0), (front, sign * edge * 0.86, 0)], seam, 0.016)
        atlas.line(TOP, [(front, -edge * 0.86, 0), (front + 0.03, 0, 0), (front, edge * 0.86, 0)], seam, 0.02)
        if look['line'] > 0.4:  # creases of the hood
            for sign in (-1, 1):
                y = sign * half * (0.3 + 0.2 * look['lamp'])
                atlas.line(TOP, [(body.cowl + 0.05, y * 1.15, 0), (front, y * 0.8, 0)], darker(fill, 0.86), 0.03)
        # the cowl below the wipers
        low = body.at('half', body.cowl) * 0.84
        bulge = 0.13 if kind not in VANS else 0.06
        arc = np.linspace(-1, 1, 9)
        atlas.line(TOP, [(body.cowl + bulge * (0.85 - 0.74 * t * t), low * t, 0) for t in arc], BLACK, 0.07)
    if kind == 'sedan':
        for sign in (-1, 1):
            ends = [(body.rear_base - 0.02, sign * half * 0.74, 0), (-nose + 0.1, sign * half * 0.70, 0)]
            atlas.line(TOP, ends, seam, 0.016)
        x, z = -nose + 0.05, belt - 0.12
        atlas.line((TOP, REAR), [(x, -half * 0.7, z), (x, half * 0.7, z)], seam, 0.016)
    doors = [body.cowl - 0.12, body.cowl - 1.22]
    if kind in ('sedan', 'estate', 'suv') or (kind in ('hatchback', 'pickup') and look['windows'] >= 0.3):
        doors.append(body.cowl - 2.12)
    if kind in VANS:
        doors.append(body.cowl - 2.4)
    for x in doors:
        if x > body.cab_rear + 0.1:
            atlas.line(SIDES, [(x, 0, body.clearance + 0.1), (x, 0, body.at('belt', x))], seam, 0.014)
    for x in doors[1:]:
        atlas.rectangle(SIDES, (x + 0.06, 0, belt - 0.14), (x + 0.24, 0, belt - 0.11), darker(fill, 0.6))
    if kind in VANS:
        atlas.line(REAR, [(0, 0, 0.5), (0, 0, body.height - 0.2)], seam, 0.02)


@paints(Layer.WHEELS)
def paint_wheels(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint wheel arches and rims on the sides."""
    r = body.wheel_radius
    for x in body.wheels:
        center = (x, 0, r)
        atlas.disc(SIDES, center, r + 0.06, (10, 10, 11, MATT))
        atlas.disc(SIDES, center, r, (24, 24, 25, MATT))
        atlas.disc(SIDES, center, r * 0.66, (150, 152, 154, CHROME))
        for angle in np.arange(5) * 1.2566:
            tip = (x + r * 0.5 * np.cos(angle), 0, r + r * 0.5 * np.sin(angle))
            atlas.disc(SIDES, tip, r * 0.15, (40, 40, 42, MATT))


class Spoiler(Detail):
    name, order, weight, kinds = 'spoiler', 6, 0.7, CARS

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        color = BODY if self.u < 0.6 else swatches.add((20, 20, 22), PAINT)
        if body.kind == 'sedan':
            x, z = -body.length / 2 + 0.14, body.at('roof', -body.length / 2 + 0.15) + 0.1 + 0.1 * self.s
            y = body.width / 2 * 0.72
            wing = box((x - 0.09, -y, z), (x + 0.12, y, z + 0.035), 0.015, color)
            leg = box((x - 0.03, y * 0.7, z - 0.2), (x + 0.04, y * 0.7 + 0.04, z + 0.01), 0.0, color)
            return [wing, leg, leg.mirrored()]
        x = body.rear_top - 0.03
        y, z = body.at('edge', x) - 0.03, body.at('roof', x) - 0.01
        return [box((x - 0.22 - 0.12 * self.s, -y, z - 0.02), (x + 0.10, y, z + 0.04), 0.02, color)]


class SpareWheel(Detail):
    name, order, weight, kinds = 'spare_wheel', 9, 0.5, ('suv',)

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        x, y = -body.length / 2 - 0.02, (self.u - 0.5) * 0.4
        z = body.at('belt', -body.length / 2 + 0.2) - 0.15
        cover = swatches.add((30, 30, 31), MATT) if self.v < 0.5 else BODY
        return [cylinder((x + 0.1, y, z), (x - 0.14, y, z), 0.36, TIRE, 16, cap=cover)]


class HoodScoop(Detail):
    """An air intake on the hood."""

    name, order, weight, kinds = 'bonnet_scoop', 27, 0.4, (*CARS, 'pickup')

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        x = body.cowl + 0.25 + 0.25 * (body.length / 2 - body.cowl) * self.u
        y, z = 0.16 + 0.15 * self.s, body.at('roof', x)
        mouth = box((x + 0.2, -y * 0.85, z - 0.03), (x + 0.235, y * 0.85, z + 0.035), 0.0, TRIM)
        return [box((x - 0.2, -y, z - 0.1), (x + 0.22, y, z + 0.05), 0.05, BODY), mouth]
