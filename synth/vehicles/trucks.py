"""Bodies of trucks: a cab, and a box, a bed or a trailer behind it."""

from __future__ import annotations

import numpy as np

from ..render.shapes import Mesh, box, cylinder, ellipsoid, loft
from .body import ARTICULATED, Body, between
from .cars import Outline
from .swatches import DARK

__all__ = ['build_truck']


def build_truck(kind: str, s: dict[str, float]) -> Body:
    """Build a cab, with or without a short hood, and what it carries or tows; see `build_body`."""
    length, width, height = s['length'], s['width'], s['height']
    a, b, c, d, e, f = (s[k] for k in 'abcdef')
    towing = kind in ARTICULATED
    cab = between(1.75, 2.3, a) if not towing else between(2.15, 2.5, a)
    cab_height = height
    if kind == 'box_truck':
        cab_height = between(2.15, 2.75, b)
    elif towing and kind != 'skeleton':
        cab_height = between(2.85, 3.6, b)
    belt = cab_height * between(0.54, 0.60, c)
    hood = between(0.01, 0.16, d) if d > 0.4 and not towing else 0.01
    points = [(0.0, belt * 0.82), (0.02, belt * 0.95), (max(hood, 0.03), belt), (hood + 0.16, cab_height - 0.06)]
    points += [(0.55, cab_height), (0.95, cab_height - 0.03), (1.0, cab_height - 0.15)]
    cab_half = min(width, 2.2) / 2 if kind == 'box_truck' else width / 2 * 0.95
    shape = Outline(
        cab,
        2 * cab_half,
        np.array(points),
        belt_front=belt * 0.9,
        belt=belt,
        cowl=max(hood, 0.03),
        clearance=0.42,
        tumble=0.08,
        taper=0.06,
        soft=0.04,
        belt_rise=0.0,
        rear=(0.98, 0.99),
        boxy=True,
    )
    ahead = (length - cab) / 2
    radius = between(0.38, 0.46, e) if not towing else between(0.46, 0.52, e)
    front, rear = length / 2 - cab - (0.06 if not towing else between(0.4, 0.8, f)), -length / 2 + 0.02
    deck = radius * 2 + 0.12
    wheels = [length / 2 - cab * 0.62, -length / 2 + length * 0.2]
    if kind == 'tipper':
        wheels[1:] = [rear + 2.4, rear + 1.1]
    elif towing:
        wheels[1:] = [front - 0.95, *(rear + 1.2 + 1.32 * axle for axle in (2, 1, 0))]
    sides = width / 2
    parts = [
        loft(shape.rings()).moved(x=ahead),
        box((rear + 0.3, -0.45, 0.45), (front + 0.3, 0.45, deck - 0.1), 0.0, DARK),
    ]
    bed: tuple[float, float, float, float] | None = None
    cargo: tuple[float, float] | None = None
    top = height
    if towing:
        # the frame of the tractor
        parts.append(box((front - 1.7, -0.42, 0.5), (front + 0.7, 0.42, deck - 0.12), 0.0, DARK))
        load, cargo = _trailer(kind, s, front, rear, deck)
        parts += load
        top = height if cargo else deck
    elif kind == 'box_truck':
        cargo = (front, rear)
        parts.append(box((rear, -sides, deck - 0.06), (front, sides, height), between(0.015, 0.07, f)))
    else:
        rail = deck + (between(0.12, 0.55, f) if kind == 'flatbed' else between(0.75, 1.25, f))
        bed = (front, rear, deck, rail)
        board = box((rear, sides - 0.05, deck - 0.05), (front, sides, rail), 0.015)
        parts += [box((rear, -sides, deck - 0.14), (front, sides, deck), 0.02), board, board.mirrored()]
        parts.append(box((rear, -sides, deck - 0.05), (rear + 0.05, sides, rail), 0.015))
        parts.append(box((front - 0.06, -sides, deck - 0.05), (front, sides, max(rail, cab_height - 0.25)), 0.015))
        top = deck
    curves = shape.curves()
    curves['x'] = np.concatenate([[-length / 2, front - 0.02], curves['x'] + ahead])
    for name, value in (('roof', top), ('belt', deck), ('half', sides), ('edge', sides)):  # level behind the cab
        curves[name] = np.concatenate([[value, value], curves[name]])
    return Body(
        kind,
        length,
        width,
        max(height, cab_height),
        parts,
        curves,
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


def _trailer(
    kind: str, s: dict[str, float], front: float, rear: float, deck: float
) -> tuple[list[Mesh], tuple[float, float] | None]:
    """Build what a tractor tows: its parts, and (front x, rear x) of its load."""
    sides, height = s['width'] / 2, s['height']
    if kind == 'semitrailer':
        return [box((rear, -sides, deck - 0.1), (front, sides, height), between(0.015, 0.08, s['g']))], (front, rear)
    if kind == 'tanker':
        radius = min((height - deck + 0.1) / 2, sides)
        middle, start, end = height - radius, rear + 0.3, front - 0.3
        shell = cylinder((start, 0, middle), (end, 0, middle), radius, -1, 28)
        domes = [ellipsoid((x, 0, middle), (0.3, radius, radius), -1, 10, 28) for x in (start, end)]
        cradle = box((rear, -0.6, deck - 0.35), (front, 0.6, middle - radius * 0.7), 0.0, DARK)
        return [shell, *domes, cradle], (front, rear)
    # a frame of two beams and some cross members
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
