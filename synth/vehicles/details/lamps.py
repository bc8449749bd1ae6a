"""Lamps, grille and license plates, which every vehicle has."""

from __future__ import annotations

import numpy as np

from ..body import TRUCKS, VANS, Body
from ..identity import Identity
from ..swatches import CHROME, LAMP, MATT, PAINT
from ..texture import FRONT, LEFT, REAR, RIGHT, TOP, Atlas, Color
from .base import BLACK, CHROME_RGB, Layer, paints, seam_color

_CHROME: Color = (*CHROME_RGB, CHROME)
_PLATES = ((224, 224, 220), (224, 224, 220), (224, 224, 220), (226, 184, 40), (206, 214, 206), (60, 110, 70))


@paints(Layer.LAMPS)
def paint_front(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the headlamps and the grille."""
    look = identity.model.look
    half, nose = body.width / 2, body.length / 2
    truck, bus = body.kind in TRUCKS, body.kind == 'bus'
    front = 0.95 if truck else 0.9 if bus else body.at('belt', nose - 0.12)
    z1 = front * (0.97 - 0.08 * look['lamp_height'])
    z0 = z1 - 0.09 - 0.1 * look['lamp']
    inner = 0.50 + 0.2 * look['lamp']
    reach = 0.10 + 0.26 * look['lamp_height']
    clear: Color = (176, 182, 188, LAMP)
    for sign, side in ((-1, RIGHT), (1, LEFT)):
        low, high = sorted((sign * half * inner, sign * half))
        atlas.rectangle(FRONT, (nose - 0.3, low, z0), (nose, high, z1), clear)
        if not truck and not bus:
            outline = [
                (nose - 0.05, sign * half * inner, 0),
                (nose - 0.05 - reach * 0.6, sign * half * (inner + 0.05), 0),
                (nose - 0.1 - reach, sign * half * 0.97, 0),
                (nose - 0.1, sign * half, 0),
                (nose, sign * half * 0.7, 0),
            ]
            atlas.polygon(TOP, outline, clear)
        atlas.rectangle(side, (nose - 0.12 - reach * 0.7, 0, z0), (nose, 0, z1), clear)
    if bus:
        return
    top = z1 - 0.02
    grille = 0.10 + 0.22 * look['grille']
    atlas.rectangle(FRONT, (0, -half * 0.42, top - grille), (nose, half * 0.42, top), (22, 22, 24, PAINT))
    atlas.rectangle(FRONT, (0, -half * 0.6, 0.24), (nose, half * 0.6, 0.36), BLACK)
    if look['trim'] > 0.6:
        z = top - grille / 2
        atlas.rectangle(FRONT, (0, -half * 0.4, z - 0.02), (nose, half * 0.4, z), _CHROME)
    if not truck:
        atlas.rectangle(TOP, (nose - 0.035, -half * 0.42, 0), (nose, half * 0.42, 9), (26, 26, 28, PAINT))


@paints(Layer.LAMPS)
def paint_rear(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the rear lamps and what lies between them."""
    look, half, rear = identity.model.look, body.width / 2, -body.length / 2
    truck, big = body.kind in TRUCKS, body.kind in ('bus', *TRUCKS)
    red: Color = (128 + int(60 * look['rim']), 12, 16, LAMP)
    amber, white = (206, 112, 24, LAMP), (206, 208, 206, LAMP)
    top = body.at('belt', rear + 0.1) - 0.02 if not big else 1.15 if truck else 1.35
    tall = body.kind in ('estate', *VANS, 'suv', 'hatchback', 'bus')
    low = top - (0.13 + 0.35 * look['tail'] * tall)
    inner = (0.62 + 0.2 * look['tail']) if not tall or look['line'] < 0.5 else 0.78
    for sign, side in ((-1, RIGHT), (1, LEFT)):
        a, b = sorted((sign * half * inner, sign * half))
        atlas.rectangle(REAR, (rear, a, low), (0, b, top), red)
        atlas.rectangle(side, (rear, 0, low), (rear + 0.12 + 0.16 * look['lamp'] * (not truck), 0, top), red)
        # turn signal and reversing lamp, below or further in
        if look['lamp_height'] < 0.5:
            z = low + (top - low) * 0.35
            atlas.rectangle(REAR, (rear, a, low), (0, b, z), amber if look['lamp'] < 0.5 else white)
        else:
            c, d = sorted((sign * half * inner, sign * half * (inner + 0.09)))
            atlas.rectangle(REAR, (rear, c, low), (0, d, top), white)
        if body.kind == 'sedan':
            atlas.rectangle(TOP, (rear, a, 0), (rear + 0.07, b, 9), red)
        if not big:  # reflectors in the bumper
            c, d = sorted((sign * half * 0.7, sign * half * 0.9))
            atlas.rectangle(REAR, (rear, c, 0.38), (0, d, 0.43), (120, 20, 20, LAMP))
    if big:
        return
    if look['frame'] > 0.82:  # a light bar from lamp to lamp
        atlas.rectangle(REAR, (rear, -half * inner, top - 0.07), (0, half * inner, top - 0.01), red)
    elif look['trim'] > 0.55:
        atlas.rectangle(REAR, (rear, -half * 0.45, top - 0.06), (0, half * 0.45, top - 0.02), _CHROME)
    atlas.rectangle(REAR, (rear, -0.07, top - 0.12), (0, 0.07, top - 0.01), _CHROME)  # badge
    z = 0.62 if look['tail'] < 0.5 else 0.52
    atlas.line(REAR, [(rear, -half * 0.78, z), (rear, half * 0.78, z)], seam_color(identity), 0.016)  # below the lid
    if look['bumper'] > 0.3:
        atlas.rectangle(REAR, (rear, -half * 0.7, 0), (0, half * 0.7, 0.30), (34, 34, 36, MATT))
    if look['pillar'] > 0.6:  # exhausts
        for y in (-0.6, 0.6) if look['pillar'] > 0.8 else (-0.6,):
            atlas.disc(REAR, (rear, y * half, 0.27), 0.05, _CHROME)
    if body.kind not in ('sedan', 'pickup'):  # the third brake lamp, and a wiper
        z = body.at('roof', body.rear_top) - 0.05
        atlas.rectangle(REAR, (rear, -0.16, z - 0.02), (9, 0.16, z + 0.01), red)
        z = body.at('roof', body.rear_base) + 0.05
        atlas.line(REAR, [(rear, 0, z), (rear, half * 0.3, z + 0.05)], BLACK, 0.02)


@paints(Layer.PLATES)
def paint_plates(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the license plates; the rear one is yellow in some countries."""
    rear = -body.length / 2
    rng = np.random.default_rng([identity.grain, 5])
    front_tone = _PLATES[int(rng.integers(len(_PLATES)))]
    rear_tone = (226, 184, 40) if rng.uniform() < 0.15 else front_tone
    marks = rng.uniform(size=int(rng.integers(5, 8)))
    ink = (34, 34, 40, MATT) if max(front_tone) > 120 else (226, 226, 222, MATT)
    long, high = (0.26, 0.12) if rng.uniform() < 0.75 else (0.17, 0.17)
    rear_height = 0.50 if identity.model.look['tail'] < 0.5 else 0.72
    for view, z, tone in ((FRONT, 0.42, front_tone), (REAR, rear_height, rear_tone)):
        atlas.rectangle(view, (rear, -long - 0.01, z - 0.01), (-rear, long + 0.01, z + high + 0.01), BLACK)
        atlas.rectangle(view, (rear, -long, z), (-rear, long, z + high), (*tone, MATT))
        if long > 0.2 and front_tone[2] > 215:
            atlas.rectangle(view, (rear, long - 0.04, z), (-rear, long, z + high), (30, 56, 140, MATT))
        step = (2 * long - 0.1) / len(marks)
        for n, mark in enumerate(marks):
            if mark > 0.12:
                start = -long + 0.03 + n * step
                low, end = (rear, start, z + 0.025), (-rear, start + step * (0.4 + 0.3 * mark), z + high - 0.025)
                atlas.rectangle(view, low, end, ink)
