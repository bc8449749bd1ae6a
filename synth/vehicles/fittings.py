"""Parts that stand off the skin: racks, boxes, signs, ladders, cargo, roof units."""

from __future__ import annotations

import numpy as np

from .body import Body
from .catalog import Identity
from .shapes import Mesh, box, cylinder, ellipsoid, join
from .swatches import BODY, CHROME, GLASS, LAMP, MATT, PAINT, RIM, TIRE, TRIM, Swatches

__all__ = ['fit']


def fit(identity: Identity, body: Body, swatches: Swatches) -> Mesh:
    """The body with everything that is mounted on it.

    Args:
        identity: names the parts.
        body: is left as it is.
        swatches: gets the colors of the parts.
    """
    look = identity.model.look
    swatches.set(BODY, identity.paint.rgb, identity.paint.material)
    rim = 150 if look['rim'] < 0.7 else 30
    swatches.set(RIM, (rim, rim, rim + 2), LAMP if rim > 100 else MATT)
    skin = body.mesh
    parts = [skin]
    for name, values in identity.details.items():
        make = _PARTS.get(name)
        if make:
            parts += make(values, body, swatches, identity)
    if 'missing' in identity.details and identity.details['missing']['n'] == 1:
        parts[0] = _without_mirror(skin, identity.details['missing']['u'] < 0.5)
    return join(parts)


def _without_mirror(skin: Mesh, left: bool) -> Mesh:
    y = skin.corners[..., 1].max(axis=1) * (1 if left else -1) if left else -skin.corners[..., 1].min(axis=1)
    keep = ~((skin.colors == BODY) & (y > 0))
    return Mesh(skin.corners[keep], skin.normals[keep], skin.colors[keep])


def _roof(body: Body, x: float) -> float:
    return body.at('roof', x)


def _span(body: Body) -> tuple[float, float]:
    """Front and rear end of the roof."""
    return body.screen_top - 0.15, body.rear_top + 0.12


def _rails(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = _span(body)
    color = swatches.add((150, 152, 154), CHROME) if v['u'] < 0.6 else TRIM
    y = body.at('edge', (front + rear) / 2) - 0.06
    z = _roof(body, (front + rear) / 2)
    rail = box((rear, y - 0.025, z - 0.02), (front, y + 0.02, z + 0.045), 0.015, color)
    return [rail, rail.mirrored()]


def _bars(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = _span(body)
    color = swatches.add((140, 142, 145), CHROME) if v['v'] < 0.5 else TRIM
    y = body.at('edge', (front + rear) / 2) + 0.02
    places = rear + (front - rear) * (0.2 + np.linspace(0, 0.6, 2 + v['n'] // 3) + 0.1 * (v['u'] - 0.5))
    return [
        box((x - 0.03, -y, _roof(body, x) + 0.05), (x + 0.03, y, _roof(body, x) + 0.09), 0.01, color) for x in places
    ]


def _roof_box(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = _span(body)
    length = min(1.3 + 0.8 * v['s'], (front - rear) * 1.1)
    middle = (front + rear) / 2
    width = 0.36 + 0.12 * v['v']
    y = (v['u'] - 0.5) * 0.5
    z = _roof(body, middle) + 0.06
    rgb = v['rgb'] if v['n'] == 1 else ([26, 26, 28] if v['n'] < 4 else [170, 172, 175])
    shell = swatches.add(tuple(rgb), PAINT)
    case = box((middle - length / 2, y - width, z), (middle + length / 2, y + width, z + 0.34), 0.14, shell)
    return [case, *_bars({'v': 1.0, 'n': 1, 'u': 0.5}, body, swatches, identity)]


def _spoiler(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    color = BODY if v['u'] < 0.6 else swatches.add((20, 20, 22), PAINT)
    if body.kind == 'sedan':
        x, z = -body.length / 2 + 0.14, body.at('roof', -body.length / 2 + 0.15) + 0.1 + 0.1 * v['s']
        y = body.width / 2 * 0.72
        wing = box((x - 0.09, -y, z), (x + 0.12, y, z + 0.035), 0.015, color)
        leg = box((x - 0.03, y * 0.7, z - 0.2), (x + 0.04, y * 0.7 + 0.04, z + 0.01), 0.0, color)
        return [wing, leg, leg.mirrored()]
    x = body.rear_top - 0.03
    y, z = body.at('edge', x) - 0.03, _roof(body, x) - 0.01
    return [box((x - 0.22 - 0.12 * v['s'], -y, z - 0.02), (x + 0.10, y, z + 0.04), 0.02, color)]


def _aerial(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = _span(body)
    x, y = (
        (front - 0.05, 0.0)
        if v['u'] < 0.4
        else (rear, 0.0)
        if v['u'] < 0.7
        else (body.cowl + 0.15, body.width / 2 * 0.8)
    )
    z = _roof(body, x) - 0.06
    return [cylinder((x, y, z), (x - 0.25 - 0.2 * v['s'], y, z + 0.5 + 0.4 * v['s']), 0.012, TRIM, 5)]


def _fin(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    _, rear = _span(body)
    color = BODY if v['u'] < 0.5 else swatches.add((18, 18, 20), PAINT)
    x = rear + 0.05
    return [ellipsoid((x, 0, _roof(body, x) - 0.02), (0.12, 0.035, 0.09), color, 4, 8)]


def _spare_wheel(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    x, z, y = -body.length / 2 - 0.02, body.at('belt', -body.length / 2 + 0.2) - 0.15, (v['u'] - 0.5) * 0.4
    cover = swatches.add((30, 30, 31), MATT) if v['v'] < 0.5 else BODY
    return [cylinder((x + 0.1, y, z), (x - 0.14, y, z), 0.36, TIRE, 16, cap=cover)]


def _taxi_sign(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = _span(body)
    x = front - 0.15 - 0.5 * (front - rear) * v['u']
    color = swatches.add((232, 186, 36) if v['v'] < 0.6 else (228, 228, 224), LAMP)
    y, z = 0.22 + 0.12 * v['s'], _roof(body, x)
    return [box((x - 0.09, -y, z), (x + 0.09, y, z + 0.17), 0.04, color)]


def _ladder(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear = (_span(body)) if body.kind != 'pickup' else (body.screen_top, -body.length / 2)
    length = (front - rear) * (0.75 + 0.3 * v['s'])
    middle, y = (front + rear) / 2, (v['u'] - 0.5) * body.width * 0.5
    z = max(body.roof) + 0.16
    color = swatches.add((178, 180, 182) if v['v'] < 0.6 else (198, 150, 52), CHROME if v['v'] < 0.6 else MATT)
    rails = [
        box((middle - length / 2, y + s - 0.025, z), (middle + length / 2, y + s + 0.025, z + 0.07), 0.0, color)
        for s in (-0.2, 0.2)
    ]
    rungs = [
        box((x - 0.02, y - 0.2, z + 0.02), (x + 0.02, y + 0.2, z + 0.05), 0.0, color)
        for x in np.arange(middle - length / 2 + 0.15, middle + length / 2, 0.3)
    ]
    posts = [
        box((x - 0.03, -0.75, z - 0.06), (x + 0.03, 0.75, z), 0.0, TRIM)
        for x in (middle - length * 0.3, middle + length * 0.3)
    ]
    return [*rails, *rungs, *posts]


def _beacon(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, _ = _span(body)
    color = swatches.add((226, 120, 20) if v['v'] < 0.6 else (40, 80, 200), LAMP)
    x = front - 0.2
    z = _roof(body, x)
    if v['n'] <= 2:
        return [cylinder((x, (v['u'] - 0.5), z - 0.03), (x, (v['u'] - 0.5), z + 0.16), 0.09, color, 10)]
    return [box((x - 0.12, -0.55, z), (x + 0.12, 0.55, z + 0.13), 0.04, color)]


def _scoop(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    x = body.cowl + 0.25 + 0.25 * (body.length / 2 - body.cowl) * v['u']
    z = body.at('roof', x)
    y = 0.16 + 0.15 * v['s']
    mouth = box((x + 0.2, -y * 0.85, z - 0.03), (x + 0.235, y * 0.85, z + 0.035), 0.0, TRIM)
    return [box((x - 0.2, -y, z - 0.1), (x + 0.22, y, z + 0.05), 0.05, BODY), mouth]


def _cover(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear, _, rail = body.bed
    rgb = [26, 26, 28] if v['n'] <= 2 else list(identity.paint.rgb) if v['n'] == 3 else v['rgb']
    color = swatches.add(tuple(rgb), MATT if v['n'] <= 2 else PAINT)
    y = body.width / 2 - 0.07
    rear = rear if v['u'] < 0.7 else (front + rear) / 2
    height = 0.04 if v['v'] < 0.6 else 0.55
    return [box((rear, -y, rail - 0.02), (front, y, rail + height), 0.03 if height < 0.1 else 0.1, color)]


def _toolbox(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, _, _floor, rail = body.bed
    color = swatches.add((168, 170, 172), CHROME) if v['v'] < 0.5 else swatches.add(tuple(v['rgb']), MATT)
    y = body.width / 2 - 0.08
    return [box((front - 0.38 - 0.15 * v['s'], -y, rail - 0.2), (front - 0.02, y, rail + 0.1), 0.02, color)]


def _roll_bar(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, _, _floor, rail = body.bed
    color = swatches.add((150, 152, 154), CHROME) if v['v'] < 0.5 else TRIM
    x, y, z = front - 0.15, body.width / 2 - 0.12, rail + 0.42
    leg = cylinder((x - 0.25, y, rail - 0.05), (x, y * 0.92, z), 0.04, color, 8)
    return [cylinder((x, -y * 0.92, z), (x, y * 0.92, z), 0.04, color, 8), leg, leg.mirrored()]


def _cargo(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    front, rear, floor, _rail = body.bed
    rng = np.random.default_rng([identity.grain, 2])
    front, rear = front - 0.1, rear + 0.1
    y = body.width / 2 - 0.2
    span = front - rear
    if v['n'] == 1:  # crates
        parts = []
        for _ in range(3 + int(4 * v['s'])):
            size = rng.uniform([0.35, 0.3, 0.25], [0.9, 0.7, 0.8]) * min(1.0, span / 2)
            x, side = rng.uniform(rear, front - size[0]), rng.uniform(-y, y - size[1])
            rgb = [(150, 118, 80), (118, 120, 122), tuple(v['rgb']), (196, 190, 176)][int(rng.integers(4))]
            parts.append(box((x, side, floor), (x + size[0], side + size[1], floor + size[2]), 0.01, swatches.add(rgb)))
        return parts
    if v['n'] == 2:  # pipes or beams
        color = swatches.add([(170, 130, 86), (128, 132, 136), (196, 120, 44)][int(3 * v['u'] * 0.999)], MATT)
        sides = np.linspace(-y * (0.3 + 0.6 * v['s']), y * (0.3 + 0.6 * v['s']), 4 + int(5 * v['s']))
        length = span * rng.uniform(0.7, 1.0, len(sides))
        return [
            cylinder((front - 0.05, s, floor + 0.12), (front - n, s, floor + 0.12), 0.1, color, 7)
            for s, n in zip(sides, length, strict=True)
        ]
    if v['n'] == 3:  # a heap
        color = swatches.add(
            [(122, 98, 70), (150, 146, 138), (92, 84, 74), (74, 88, 52)][int(4 * v['u'] * 0.999)], MATT
        )
        return [
            ellipsoid(
                (rng.uniform(rear + 0.3, front - 0.3), rng.uniform(-0.4, 0.4) * y, floor),
                (span * rng.uniform(0.15, 0.34), y * 0.6, rng.uniform(0.25, 0.7)),
                color,
                5,
                9,
            )
            for _ in range(4)
        ]
    # a tarpaulin or container over part of it
    color = swatches.add(tuple(v['rgb']), MATT)
    height = 0.5 + 1.1 * v['s'] if body.kind in ('flatbed', 'tipper') else 0.4 + 0.3 * v['s']
    start = rear + span * 0.4 * v['u']
    return [box((start, -y, floor), (start + span * (0.35 + 0.25 * v['v']), y, floor + height), 0.06, color)]


def _roof_span(body: Body) -> tuple[float, float]:
    if body.cargo:
        return body.cargo[0] - 0.3, body.cargo[1] + 0.3
    front, rear = _span(body)
    return front - 0.3, rear + 0.2


def _units(
    v: dict, body: Body, swatches: Swatches, count: int, size: tuple[float, float, float], rgb, material=MATT
) -> list[Mesh]:
    front, rear = _roof_span(body)
    color = swatches.add(rgb, material)
    places = [front + (rear - front) * ((i + v['u']) / count) for i in range(count)]
    side = (v['v'] - 0.5) * body.width * 0.4
    z = body.height if body.cargo else body.at('roof', (front + rear) / 2)
    return [
        box((x - size[0], side - size[1], z - 0.06), (x + size[0], side + size[1], z + size[2]), 0.05, color)
        for x in places
    ]


def _vents(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    return _units(
        v, body, swatches, 1 + v['n'] // 2, (0.22, 0.22, 0.12), (90, 92, 94) if v['s'] < 0.5 else (205, 205, 203)
    )


def _air_conditioner(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    if body.cargo and v['n'] <= 2:  # a cooler above the cab
        front = body.cargo[0]
        color = swatches.add((214, 214, 212), PAINT)
        return [box((front - 0.1, -0.7, body.height - 0.85), (front + 0.45, 0.7, body.height - 0.05), 0.06, color)]
    long = 0.35 + (1.1 if body.kind == 'bus' else 0.3) * v['s']
    return _units(
        v,
        body,
        swatches,
        1,
        (long, 0.55 if body.kind != 'bus' else 0.85, 0.2),
        (186, 188, 190) if v['v'] < 0.6 else (70, 72, 75),
    )


def _hatches(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    return _units(
        {**v, 'v': 0.5},
        body,
        swatches,
        v['n'],
        (0.38, 0.38, 0.07),
        (200, 202, 202) if v['s'] < 0.6 else (50, 52, 56),
        GLASS if v['s'] > 0.8 else MATT,
    )


def _skylight(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    if body.cargo:
        return []  # painted
    return _units(v, body, swatches, 1, (0.3 + 0.3 * v['s'], 0.3, 0.05), (30, 32, 36), GLASS)


def _bumpers(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    if v['s'] < 0.75:
        return []  # painted
    x, y = body.length / 2, body.width / 2 * 0.55
    color = swatches.add((160, 162, 164), CHROME)
    return [
        cylinder((x + 0.06, -y, 0.75), (x + 0.06, y, 0.75), 0.04, color, 7),
        cylinder((x + 0.06, -y, 0.5), (x + 0.06, y, 0.5), 0.04, color, 7),
    ]


def _deflector(v: dict, body: Body, swatches: Swatches, identity: Identity) -> list[Mesh]:
    """On the roof of a cab, before what it tows."""
    front, rear = _span(body)
    z = _roof(body, (front + rear) / 2)
    y = body.at('edge', (front + rear) / 2) * (0.6 + 0.3 * v['s'])
    color = BODY if v['u'] < 0.6 else swatches.add(tuple(identity.second.rgb), PAINT)
    return [box((rear - 0.1, -y, z - 0.05), (rear + 0.5 + 0.5 * v['v'], y, z + 0.18 + 0.3 * v['u']), 0.12, color)]


_PARTS = {
    'deflector': _deflector,
    'rails': _rails,
    'bars': _bars,
    'roof_box': _roof_box,
    'spoiler': _spoiler,
    'aerial': _aerial,
    'fin': _fin,
    'spare_wheel': _spare_wheel,
    'taxi_sign': _taxi_sign,
    'ladder': _ladder,
    'beacon': _beacon,
    'bonnet_scoop': _scoop,
    'cover': _cover,
    'toolbox': _toolbox,
    'roll_bar': _roll_bar,
    'cargo': _cargo,
    'vents': _vents,
    'air_conditioner': _air_conditioner,
    'hatches': _hatches,
    'skylight': _skylight,
    'bumpers': _bumpers,
}
