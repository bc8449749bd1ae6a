"""What an identity looks like from outside: windows, lamps, lines and painted details, drawn into its `Atlas`."""

from __future__ import annotations

import numpy as np

from .bodies import Body
from .paint import FRONT, LEFT, REAR, RIGHT, TOP, Atlas
from .swatches import CHROME, GLASS, LAMP, MATT, METALLIC, PAINT
from .vehicles import Identity

__all__ = ['dress']

_Colour = tuple[int, int, int, int]
SIDES = (LEFT, RIGHT)
ENDS = (TOP, FRONT, REAR)
_BLACK: _Colour = (20, 20, 21, MATT)
_GLOSS: _Colour = (14, 14, 16, PAINT)


def dress(identity: Identity, body: Body) -> Atlas:
    """Draw everything that is paint, glass or lamp on the skin."""
    paint = identity.paint
    fill = (*paint.rgb, paint.material)
    atlas = Atlas(body.length, body.width, body.height, fill)
    lorry = body.kind in ('box_truck', 'flatbed')
    _under_windows(identity, body, atlas, fill)
    if lorry:
        _load_area(identity, body, atlas)
    _windows(identity, body, atlas)
    _lines(identity, body, atlas, fill)
    _lamps(identity, body, atlas)
    _wheel_arches(body, atlas)
    _over_paint(identity, body, atlas)
    if 'dirt' in identity.details:
        values = identity.details['dirt']
        atlas.spots(np.random.default_rng(identity.grain), 0.25 + 0.45 * values['s'], (112, 100, 84))
    return atlas


def _darker(colour: _Colour, share: float) -> _Colour:
    return (*(int(v * share) for v in colour[:3]), colour[3])


def _under_windows(identity: Identity, body: Body, atlas: Atlas, fill: _Colour) -> None:
    """What windows and lines are drawn over: two-tone roofs, panels, stripes, bumpers."""
    d, look = identity.details, identity.model.look
    half, length = body.width / 2, body.length
    top_of = max(body.roof)
    if 'two_tone' in d:
        colour = (*d['two_tone']['rgb'], PAINT)
        back = body.rear_top - 0.1
        atlas.rectangle(TOP, (back, -half, 0), (body.screen_top + 0.1, half, 9), colour)
        atlas.rectangle(SIDES, (back, -half, top_of - 0.16), (body.screen_top + 0.1, half, 9), colour)
    if 'roof_patch' in d:
        v = d['roof_patch']
        span = body.screen_top - body.rear_top
        x0 = body.rear_top + span * 0.6 * v['u']
        atlas.rectangle(
            TOP,
            (x0, -half, 0),
            (x0 + span * (0.2 + 0.3 * v['s']), half * (0.9 if v['v'] < 0.5 else 0.0), 9),
            (*v['rgb'], PAINT),
        )
    if 'panel' in d:
        v = d['panel']
        colour = (*v['rgb'], PAINT)
        which = v['n'] if body.kind not in ('van', 'pickup') else 1 + v['n'] % 2
        belt = body.at('belt', body.cowl)
        if which == 1:  # bonnet
            atlas.rectangle(TOP, (body.cowl, -half * 0.84, 0), (length / 2 - 0.12, half * 0.84, 9), colour)
        elif which == 2:  # wing
            side = LEFT if v['u'] < 0.5 else RIGHT
            sign = 1 if side == LEFT else -1
            atlas.rectangle(side, (body.cowl - 0.15, 0, 0.2), (length / 2, 0, belt), colour)
            atlas.rectangle(TOP, (body.cowl - 0.15, sign * half * 0.7, 0), (length / 2, sign * half, 9), colour)
        elif which == 3:  # boot lid
            atlas.rectangle(
                (TOP, REAR), (-length / 2, -half * 0.8, 0.5), (body.rear_base + 0.02, half * 0.8, 9), colour
            )
        else:  # door
            side = LEFT if v['u'] < 0.5 else RIGHT
            atlas.rectangle(side, (body.cowl - 1.2, 0, 0.25), (body.cowl - 0.15, 0, belt), colour)
    if 'stripes' in d:
        v = d['stripes']
        colour = (*v['rgb'], PAINT)
        width = 0.07 + 0.16 * v['s']
        if v['n'] <= 2 and body.kind != 'bus':
            middles = (-width * 0.8, width * 0.8) if v['n'] == 1 else ((v['v'] - 0.5) * half,)
            for y in middles:
                atlas.rectangle(ENDS, (-length / 2, y - width / 2, 0), (length / 2, y + width / 2, 9), colour)
        else:
            z = body.at('belt', 0) * (0.5 + 0.4 * v['u'])
            atlas.rectangle((*SIDES, FRONT, REAR), (-length, -half, z - width), (length, half, z + width), colour)
            if body.kind == 'bus':
                x = (v['v'] - 0.5) * length * 0.6
                atlas.rectangle((TOP, *SIDES), (x, -half, 0), (x + 0.6 + 2.5 * v['s'], half, 9), colour)
    black_bumper = ('bumpers' in d and d['bumpers']['s'] < 0.75) or look['bumper'] < 0.12
    if black_bumper:
        z = 0.62 if body.kind != 'van' else 0.7
        views = (FRONT, REAR, *SIDES)
        for x0, x1 in ((-length / 2, -length / 2 + 0.14), (length / 2 - 0.14, length / 2)):
            atlas.rectangle(views, (x0, -half, 0), (x1, half, z), (42, 42, 44, MATT))
            atlas.rectangle(TOP, (x0, -half, 0), (x0 + 0.09, half, z) if x0 < 0 else (x1, half, z), (42, 42, 44, MATT))
    if look['trim'] < 0.35:
        atlas.rectangle(SIDES, (-length, 0, 0), (length, 0, body.clearance + 0.14), _BLACK)


def _windows(identity: Identity, body: Body, atlas: Atlas) -> None:
    d, look = identity.details, identity.model.look
    tone = 10 + int(14 * look['interior'])
    glass = (tone, tone + 1, tone + 2, GLASS)
    cowl, top = body.cowl, body.screen_top
    low, high = body.at('half', cowl) * 0.86, body.at('edge', top) - 0.02
    z_low, z_high = body.at('belt', cowl) + 0.03, body.at('roof', top) - 0.04
    bulge = 0.13 if body.kind not in ('bus', 'van', 'box_truck', 'flatbed') else 0.06
    arc = np.linspace(-1, 1, 9)
    screen = [
        *((cowl - 0.02 + bulge * (1 - 0.74 * t * t) - 0.2 * bulge, low * t, z_low) for t in arc),
        *((top + 0.02 + bulge * 0.8 * (1 - t * t), -high * t, z_high) for t in arc),
    ]
    if body.kind == 'bus':
        screen = [
            (length_end(body), -low, z_low - 0.25),
            (length_end(body), low, z_low - 0.25),
            (top, low, z_high - 0.1),
            (top, -low, z_high - 0.1),
        ]
    atlas.polygon((TOP, FRONT), screen, _GLOSS if look['frame'] < 0.6 else glass)

    def shrunk(points: list, share: float) -> list:
        middle = np.mean(points, axis=0)
        return [tuple(middle + (np.array(p) - middle) * share) for p in points]

    atlas.polygon((TOP, FRONT), shrunk(screen, 0.93), glass)
    # dashboard and the seats behind it
    dash = 30 + int(34 * look['interior'])
    if 'seats' in d:
        seat = (92 + int(60 * d['seats']['s']), 80 + int(50 * d['seats']['s']), 62 + int(40 * d['seats']['s']), GLASS)
        atlas.polygon((TOP, FRONT), shrunk(screen, 0.8), seat)
    inner = shrunk(screen, 0.90)
    share = 0.35 if 'sunshade' not in d else 0.8
    if len(inner) > 6:
        depth = [
            tuple(np.array(a) * (1 - share) + np.array(b) * share) for a, b in zip(inner[8::-1], inner[9:], strict=True)
        ]
        shade = (dash, dash, dash - 4, GLASS)
        if 'sunshade' in d:
            shade = (
                (*[min(235, c + 20) for c in d['sunshade']['rgb']], GLASS)
                if d['sunshade']['v'] < 0.4
                else (186, 190, 194, GLASS)
            )
        atlas.polygon((TOP, FRONT), [*inner[:9], *depth], shade)
    _rear_window(identity, body, atlas, glass, shrunk)
    _side_windows(identity, body, atlas, glass)
    _roof_glass(identity, body, atlas)


def length_end(body: Body) -> float:
    """x of the front end."""
    return body.length / 2


def _rear_window(identity: Identity, body: Body, atlas: Atlas, glass: _Colour, shrunk) -> None:
    d, look = identity.details, identity.model.look
    top, base = body.rear_top, body.rear_base
    if body.kind in ('box_truck', 'flatbed') or (body.kind == 'van' and look['windows'] < 0.4):
        return
    low, high = body.at('half', base) * 0.80, body.at('edge', top) - 0.05
    z_low, z_high = body.at('roof', base) + 0.02, body.at('roof', top) - 0.06
    if body.kind in ('van', 'bus'):
        z_low, z_high, low, high = body.at('belt', 0) + 0.1, body.height - 0.3, high, high
    window = [
        (base, -low, z_low),
        (base, low, z_low),
        (top - 0.03, high, z_high),
        (top - 0.09, 0, z_high),
        (top - 0.03, -high, z_high),
    ]
    views = (TOP, REAR) if body.kind not in ('van', 'bus') else (REAR,)
    atlas.polygon(views, window, _GLOSS)
    atlas.polygon(views, shrunk(window, 0.92), glass)
    if body.kind == 'sedan':
        grey = 40 + int(50 * look['interior'])
        shelf = [
            window[0],
            window[1],
            *(
                tuple(0.6 * np.array(a) + 0.4 * np.array(b))
                for a, b in ((window[1], window[2]), (window[0], window[4]))
            ),
        ]
        atlas.polygon(TOP, shrunk(shelf, 0.9), (grey, grey, grey - 3, GLASS))
    if 'shelf' in d:
        x = base * 0.7 + top * 0.3
        y = (d['shelf']['u'] - 0.5) * low
        atlas.rectangle(TOP, (x, y - 0.14, 0), (x + 0.2, y + 0.14, 9), (170, 160, 130, GLASS))


def _side_windows(identity: Identity, body: Body, atlas: Atlas, glass: _Colour) -> None:
    look = identity.model.look
    kind = body.kind
    pillar = 0.04 + 0.05 * look['pillar']

    def z_top(x: float) -> float:
        return body.at('roof', x) - (0.13 if kind not in ('van', 'bus', 'box_truck', 'flatbed') else 0.28)

    def z_low(x: float) -> float:
        return body.at('belt', x) + 0.035

    front_low, front_high = body.cowl - 0.16, body.screen_top - 0.03
    rear_low, rear_high = body.rear_base + 0.12, body.rear_top - 0.02
    if kind == 'sedan':
        rear_low = body.rear_base + 0.28
    if kind == 'pickup':
        rear_low = rear_high = body.rear_top + 0.05
    if kind == 'van':
        rear = body.cowl - 1.35 if look['windows'] < 0.5 else -body.length / 2 + 0.35
        rear_low = rear_high = rear
    if kind == 'bus':
        front_low = front_high = body.length / 2 - 0.3
        rear_low = rear_high = -body.length / 2 + 0.3
    if kind in ('box_truck', 'flatbed'):
        rear_low = rear_high = body.cab_rear + 0.35
        front_low, front_high = body.cowl - 0.1, body.screen_top - 0.02
    count = 24
    share = np.linspace(0, 1, count)
    upper_x = front_high + (rear_high - front_high) * share
    upper = [(x, 0, max(z_top(x), z_low(x) + 0.02)) for x in upper_x]
    lower_x = front_low + (rear_low - front_low) * share[::-1]
    outline = [(front_low, 0, z_low(front_low)), *upper, *[(x, 0, z_low(x)) for x in lower_x]]
    frame = (*CHROME_RGB, CHROME) if 0.6 < look['frame'] < 0.8 and kind in ('sedan', 'estate', 'suv') else _GLOSS
    atlas.polygon(SIDES, outline, glass)
    atlas.line(SIDES, [*outline, outline[0]], frame, 0.035)
    span = front_low - rear_low
    posts = {'bus': int(span / 1.4), 'van': max(1, int(span / 1.3)), 'pickup': 1, 'box_truck': 0, 'flatbed': 0}.get(
        kind, 2
    )
    if kind in ('hatchback', 'sedan') and look['windows'] < 0.3:
        posts = 1
    for index in range(posts):
        share = (index + 1) / (posts + 1) if posts > 2 else (0.46 if index == 0 else 0.82)
        x = front_low - span * share
        atlas.line(SIDES, [(x, 0, z_low(x)), (x - 0.05, 0, z_top(x) + 0.05)], _GLOSS, pillar)


CHROME_RGB = (188, 190, 192)


def _roof_glass(identity: Identity, body: Body, atlas: Atlas) -> None:
    d = identity.details
    front, rear = body.screen_top - 0.18, body.rear_top + 0.15
    half = body.at('edge', (front + rear) / 2)
    if 'panorama' in d:
        v = d['panorama']
        y, back = half * 0.84, rear + (front - rear) * 0.35 * v['u']
        atlas.rectangle(TOP, (back, -y, 0), (front, y, 9), (10, 11, 13, GLASS))
        x = (back + front) / 2
        atlas.rectangle(TOP, (x - 0.04, -y, 0), (x + 0.04, y, 9), _GLOSS)
    if 'sunroof' in d:
        v = d['sunroof']
        x = front - 0.05 - 0.3 * v['u']
        size = 0.38 + 0.25 * v['s']
        atlas.rectangle(TOP, (x - size, -half * 0.62, 0), (x, half * 0.62, 9), (12, 13, 15, GLASS))
        if v['n'] == 1:
            atlas.rectangle(
                TOP, (x - size - 0.25, -half * 0.6, 0), (x - size - 0.05, half * 0.6, 9), (150, 152, 150, METALLIC)
            )


def _lines(identity: Identity, body: Body, atlas: Atlas, fill: _Colour) -> None:
    look = identity.model.look
    line = (*(max(8, int(v * 0.35)) for v in fill[:3]), MATT)
    kind, half = body.kind, body.width / 2
    nose = body.length / 2
    belt = body.at('belt', body.cowl)
    if kind in ('bus',):
        for x in np.linspace(-nose + 1.2, nose - 1.2, 7):
            atlas.line(TOP, [(x, -half * 0.95, 0), (x, half * 0.95, 0)], _darker(fill, 0.82), 0.02)
        for x in (nose - 1.3, nose - 1.3 - body.length * 0.42):
            atlas.rectangle(RIGHT, (x, 0, 0.45), (x + 1.1, 0, body.height - 0.45), (16, 17, 19, GLASS))
            atlas.line(RIGHT, [(x + 0.55, 0, 0.45), (x + 0.55, 0, body.height - 0.45)], (90, 90, 92, MATT), 0.03)
        return
    edge = half * (0.70 + 0.10 * look['line'])
    if kind not in ('box_truck', 'flatbed'):
        front = nose - 0.12 - 0.1 * look['grille']
        for sign in (-1, 1):
            atlas.line(TOP, [(body.cowl + 0.02, sign * edge, 0), (front, sign * edge * 0.86, 0)], line, 0.016)
        atlas.line(TOP, [(front, -edge * 0.86, 0), (front + 0.03, 0, 0), (front, edge * 0.86, 0)], line, 0.02)
        if look['line'] > 0.4:  # creases of the bonnet
            for sign in (-1, 1):
                y = sign * half * (0.3 + 0.2 * look['lamp'])
                atlas.line(TOP, [(body.cowl + 0.05, y * 1.15, 0), (front, y * 0.8, 0)], _darker(fill, 0.86), 0.03)
        # wipers' cowl
        low = body.at('half', body.cowl) * 0.84
        bulge = 0.13 if kind != 'van' else 0.06
        arc = np.linspace(-1, 1, 9)
        atlas.line(TOP, [(body.cowl + bulge * (0.85 - 0.74 * t * t), low * t, 0) for t in arc], _BLACK, 0.07)
    if kind == 'sedan':
        for sign in (-1, 1):
            atlas.line(
                TOP, [(body.rear_base - 0.02, sign * half * 0.74, 0), (-nose + 0.1, sign * half * 0.70, 0)], line, 0.016
            )
        atlas.line(
            (TOP, REAR),
            [(-nose + 0.05, -half * 0.7, belt - 0.12), (-nose + 0.05, half * 0.7, belt - 0.12)],
            line,
            0.016,
        )
    doors = [body.cowl - 0.12, body.cowl - 1.22]
    if kind in ('sedan', 'estate', 'suv') or (kind in ('hatchback', 'pickup') and look['windows'] >= 0.3):
        doors.append(body.cowl - 2.12)
    if kind == 'van':
        doors += [body.cowl - 2.4]
    for x in doors:
        if x > body.cab_rear + 0.1:
            atlas.line(SIDES, [(x, 0, body.clearance + 0.1), (x, 0, body.at('belt', x))], line, 0.014)
    for x in doors[1:]:
        atlas.rectangle(SIDES, (x + 0.06, 0, belt - 0.14), (x + 0.24, 0, belt - 0.11), _darker(fill, 0.6))
    if kind == 'van':
        atlas.line(REAR, [(0, 0, 0.5), (0, 0, body.height - 0.2)], line, 0.02)
    if body.bed and kind == 'pickup':
        front, rear, _floor, _ = body.bed
        atlas.rectangle(TOP, (rear - 0.005, -half * 0.87, 0), (front + 0.01, half * 0.87, 9), (44, 45, 47, MATT))
        for y in np.linspace(-0.75, 0.75, 9) * half:
            atlas.line(TOP, [(rear, y, 0), (front, y, 0)], (34, 35, 37, MATT), 0.03)
        if 'bed_floor' in identity.details:
            atlas.rectangle(
                TOP,
                (rear + 0.02, -half * 0.7, 0),
                (front - 0.02, half * 0.7, 9),
                (*identity.details['bed_floor']['rgb'], MATT),
            )


def _load_area(identity: Identity, body: Body, atlas: Atlas) -> None:
    d, half = identity.details, body.width / 2
    rear, second = -body.length / 2, identity.second
    front = body.cab_rear - 0.03
    if body.cargo:
        colour = (*second.rgb, PAINT if second.material == PAINT else MATT)
        atlas.rectangle((TOP, *SIDES), (rear - 1, -half, 0), (front, half, 9), colour)
        atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 9), colour)
        z = body.at('roof', body.cab_rear + 0.5)
        atlas.rectangle(FRONT, (0, -half, z - 0.05), (0, half, 9), colour)
        dark = _darker(colour, 0.72)
        atlas.rectangle(SIDES, (rear, 0, 0), (front, 0, 2 * body.wheel_radius + 0.08), (40, 40, 42, MATT))
        for y in (-half + 0.03, half - 0.03):
            atlas.rectangle(TOP, (rear, y - 0.04, 0), (front, y + 0.04, 9), dark)
        for x in np.arange(rear + 0.6, front, 0.62):
            atlas.line((TOP, *SIDES), [(x, -half, 0.9), (x, half, 0.9)], _darker(colour, 0.9), 0.015)
            atlas.line(SIDES, [(x, 0, 1.0), (x, 0, 9)], _darker(colour, 0.9), 0.015)
        atlas.line(REAR, [(rear, 0, 0.8), (rear, 0, 9)], dark, 0.03)
        if 'skylight' in d:
            v = d['skylight']
            x0 = rear + (front - rear) * 0.3 * v['u'] + 0.2
            atlas.rectangle(
                TOP,
                (x0, -half * (0.3 + 0.5 * v['s']), 0),
                (x0 + (front - rear) * 0.55, half * (0.3 + 0.5 * v['s']), 9),
                (150, 158, 150, MATT),
            )
    else:
        v = identity.model.look
        wood = (118 + int(40 * v['interior']), 98 + int(34 * v['interior']), 76 + int(26 * v['interior']), MATT)
        steel = (74, 76, 80, MATT)
        floor = wood if v['windows'] < 0.6 else steel
        if 'bed_floor' in d:
            floor = (*d['bed_floor']['rgb'], MATT)
        atlas.rectangle(TOP, (rear, -half, 0), (front, half, 9), floor)
        for y in np.linspace(-half, half, 10):
            atlas.line(TOP, [(rear, y, 0), (front, y, 0)], _darker(floor, 0.8), 0.02)
        atlas.rectangle(SIDES, (rear, 0, 2 * body.wheel_radius), (front, 0, 9), (*second.rgb, PAINT))
        atlas.rectangle(SIDES, (rear, 0, 0), (front, 0, 2 * body.wheel_radius + 0.05), (36, 36, 38, MATT))
        for x in np.linspace(rear, front, 5):
            atlas.line(SIDES, [(x, 0, 0.9), (x, 0, 4)], _darker((*second.rgb, MATT), 0.7), 0.05)
        atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 2.0), (*second.rgb, PAINT))


def _lamps(identity: Identity, body: Body, atlas: Atlas) -> None:
    look = identity.model.look
    half, nose = body.width / 2, body.length / 2
    front = body.at('belt', nose - 0.12) if body.kind != 'bus' else 0.9
    if body.kind in ('box_truck', 'flatbed'):
        front = 0.95
    z1 = front * (0.97 - 0.08 * look['lamp_height'])
    z0 = z1 - 0.09 - 0.1 * look['lamp']
    inner = 0.50 + 0.2 * look['lamp']
    clear: _Colour = (176, 182, 188, LAMP)
    for sign in (-1, 1):
        low, high = sorted((sign * half * inner, sign * half))
        reach = 0.10 + 0.26 * look['lamp_height']
        atlas.rectangle(FRONT, (nose - 0.3, low, z0), (nose, high, z1), clear)
        if body.kind not in ('bus', 'box_truck', 'flatbed'):
            atlas.polygon(
                TOP,
                [
                    (nose - 0.05, sign * half * inner, 0),
                    (nose - 0.05 - reach * 0.6, sign * half * (inner + 0.05), 0),
                    (nose - 0.1 - reach, sign * half * 0.97, 0),
                    (nose - 0.1, sign * half, 0),
                    (nose, sign * half * 0.7, 0),
                ],
                clear,
            )
        atlas.rectangle(LEFT if sign > 0 else RIGHT, (nose - 0.12 - reach * 0.7, 0, z0), (nose, 0, z1), clear)
    red: _Colour = (126, 14, 16, LAMP)
    tail_top = body.at('belt', -nose + 0.1) - 0.02 if body.kind not in ('bus', 'box_truck', 'flatbed') else 1.15
    tail_low = tail_top - (0.13 + 0.35 * look['tail'] * (body.kind in ('estate', 'van', 'suv', 'hatchback', 'bus')))
    for sign in (-1, 1):
        low, high = sorted((sign * half * (0.62 + 0.2 * look['tail']), sign * half))
        atlas.rectangle(REAR, (-nose, low, tail_low), (0, high, tail_top), red)
        atlas.rectangle(
            LEFT if sign > 0 else RIGHT, (-nose, 0, tail_low), (-nose + 0.12 + 0.16 * look['lamp'], 0, tail_top), red
        )
        if body.kind == 'sedan':
            atlas.rectangle(TOP, (-nose, low, 0), (-nose + 0.07, high, 9), red)
    grille_top = z1 - 0.02
    grille = 0.10 + 0.22 * look['grille']
    if body.kind != 'bus':
        atlas.rectangle(
            FRONT, (0, -half * 0.42, grille_top - grille), (nose, half * 0.42, grille_top), (22, 22, 24, PAINT)
        )
        atlas.rectangle(FRONT, (0, -half * 0.6, 0.24), (nose, half * 0.6, 0.36), _BLACK)
        if look['trim'] > 0.6:
            atlas.rectangle(
                FRONT,
                (0, -half * 0.4, grille_top - grille / 2 - 0.02),
                (nose, half * 0.4, grille_top - grille / 2),
                (*CHROME_RGB, CHROME),
            )
        if body.kind not in ('box_truck', 'flatbed'):
            atlas.rectangle(TOP, (nose - 0.035, -half * 0.42, 0), (nose, half * 0.42, 9), (26, 26, 28, PAINT))
    plate: _Colour = (214, 214, 208, MATT)
    for view, z in ((FRONT, 0.42), (REAR, 0.50 if look['tail'] < 0.5 else 0.72)):
        atlas.rectangle(view, (-nose, -0.26, z), (nose, 0.26, z + 0.11), plate)
        atlas.rectangle(view, (-nose, -0.20, z + 0.035), (nose, 0.20, z + 0.075), (70, 70, 72, MATT))


def _wheel_arches(body: Body, atlas: Atlas) -> None:
    for x in body.wheels:
        r = body.wheel_radius
        centre = (x, 0, r)
        atlas.disc(SIDES, centre, r + 0.06, (10, 10, 11, MATT))
        atlas.disc(SIDES, centre, r, (24, 24, 25, MATT))
        atlas.disc(SIDES, centre, r * 0.66, (150, 152, 154, CHROME))
        for angle in np.arange(5) * 1.2566:
            tip = (x + r * 0.5 * np.cos(angle), 0, r + r * 0.5 * np.sin(angle))
            atlas.disc(SIDES, tip, r * 0.15, (40, 40, 42, MATT))


def _over_paint(identity: Identity, body: Body, atlas: Atlas) -> None:
    d, half = identity.details, body.width / 2
    big = body.kind in ('bus', 'box_truck')
    load = body.cargo or (
        (body.screen_top - 0.2, body.rear_top + 0.2) if body.kind != 'pickup' else (body.screen_top, body.rear_top)
    )
    if body.kind == 'flatbed':
        load = (body.screen_top, body.cab_rear)
    front, rear = load
    if 'decal' in d:
        v = d['decal']
        colour = (*v['rgb'], PAINT)
        size = (0.1 + 0.14 * v['s']) * (2.2 if big else 1.0)
        x, y = rear + (front - rear) * v['u'], (v['v'] - 0.5) * half
        if v['n'] <= 2:
            if v['n'] == 1 and body.cowl < body.length / 2 - 0.6:
                x = body.cowl + 0.2 + (body.length / 2 - 0.4 - body.cowl) * v['u'] * 0.7
            if v['s'] < 0.5:
                atlas.disc(TOP, (x, y, 0), size, colour)
            else:
                atlas.rectangle(TOP, (x - size, y - size * 0.6, 0), (x + size, y + size * 0.6, 9), colour)
        z = body.at('belt', 0) * 0.68 if not big else body.height * 0.6
        atlas.rectangle(SIDES, (x - size * 1.5, 0, z - size * 0.6), (x + size * 1.5, 0, z + size * 0.6), colour)
    if 'lettering' in d:
        v = d['lettering']
        colour = (*v['rgb'], PAINT)
        tall = body.cargo is not None or body.kind == 'bus'
        height = {'bus': 0.45, 'box_truck': 0.7, 'van': 0.35}.get(body.kind, 0.18) * (0.7 + 0.6 * v['s'])
        span = (front - rear) if tall else body.length * 0.6
        height = min(height, 1.3 * span / max(3, len(v['text'])))
        z = body.height * 0.62 if body.cargo else body.at('belt', 0) * 0.72
        for view in SIDES:
            atlas.text(view, ((front + rear) / 2, 0, z), v['text'], height, colour)
        if v['n'] <= 2 and body.kind != 'pickup':
            atlas.text(
                TOP,
                ((front + rear) / 2, 0, 0),
                v['text'],
                min(height, half * 0.8),
                colour,
                turn=v['n'] % 2 * 3 if tall else 3,
            )
    if 'roof_number' in d:
        v = d['roof_number']
        x = (front + rear) / 2 + (v['u'] - 0.5) * (front - rear) * 0.3
        atlas.text(
            TOP,
            (x, 0, 0),
            v['text'],
            min(1.1 if big else 0.55, half * 0.9),
            (*v['rgb'], PAINT),
            turn=3 if v['n'] % 2 else 1,
        )
    if 'dents' in d:
        rng = np.random.default_rng(identity.grain + 1)
        base = np.array(identity.paint.rgb)
        for _ in range(2 + 2 * d['dents']['n']):
            x, y = rng.uniform(-0.48, 0.48) * body.length, rng.uniform(-0.8, 0.8) * half
            tone = base * rng.uniform(0.55, 0.85) if rng.uniform() < 0.5 else base * 0.6 + np.array([118, 92, 70]) * 0.4
            colour = (*(int(t) for t in tone), MATT)
            r = rng.uniform(0.03, 0.12) * (1.8 if big else 1)
            atlas.polygon(
                TOP,
                [
                    (x + r * rng.uniform(0.4, 1.4) * np.cos(t), y + r * rng.uniform(0.4, 1.2) * np.sin(t), 0)
                    for t in np.arange(7) * 0.9
                ],
                colour,
            )
            z = rng.uniform(0.35, 0.95)
            atlas.polygon(
                LEFT if rng.uniform() < 0.5 else RIGHT,
                [(x + r * np.cos(t), 0, z + 0.5 * r * np.sin(t)) for t in np.arange(7) * 0.9],
                colour,
            )
    if 'missing' in d and d['missing']['n'] > 1:  # an unpainted corner
        v = d['missing']
        sign = 1 if v['u'] < 0.5 else -1
        x = body.length / 2 * (1 if v['v'] < 0.5 else -1)
        low, high = sorted((sign * half * 0.45, sign * half))
        views = (TOP, FRONT if x > 0 else REAR)
        atlas.rectangle(views, (min(x, x * 0.88), low, 0), (max(x, x * 0.88), high, 0.7), (30, 30, 31, MATT))
