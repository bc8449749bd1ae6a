"""What an identity looks like from outside: windows, lamps, lines and painted details, drawn into its `Atlas`."""

from __future__ import annotations

import numpy as np

from .body import ARTICULATED, TRUCKS, VANS, Body
from .catalog import Identity
from .paint import FRONT, LEFT, REAR, RIGHT, TOP, Atlas
from .swatches import CHROME, GLASS, LAMP, MATT, METALLIC, PAINT

__all__ = ['dress']

_Color = tuple[int, int, int, int]
SIDES = (LEFT, RIGHT)
ENDS = (TOP, FRONT, REAR)
_BLACK: _Color = (20, 20, 21, MATT)
_GLOSS: _Color = (14, 14, 16, PAINT)


def dress(identity: Identity, body: Body) -> Atlas:
    """Draw everything that is paint, glass or lamp on the skin."""
    paint = identity.paint
    fill = (*paint.rgb, paint.material)
    atlas = Atlas(body.length, body.width, body.height, fill)
    truck = body.kind in TRUCKS
    _under_windows(identity, body, atlas, fill)
    if truck:
        _load_area(identity, body, atlas)
    _windows(identity, body, atlas)
    _lines(identity, body, atlas, fill)
    _lamps(identity, body, atlas)
    _wheel_arches(body, atlas)
    _over_paint(identity, body, atlas)
    rng = np.random.default_rng(identity.grain)
    if 'dirt' in identity.details:
        atlas.spots(rng, 0.25 + 0.45 * identity.details['dirt']['s'], (112, 100, 84), 0.08)
    else:  # dust of the road, and paint that has seen some years
        atlas.spots(rng, rng.uniform(0.0, 0.16), (120, 112, 100), rng.uniform(0.01, 0.06))
    return atlas


def _darker(color: _Color, share: float) -> _Color:
    return (*(int(v * share) for v in color[:3]), color[3])


def _under_windows(identity: Identity, body: Body, atlas: Atlas, fill: _Color) -> None:
    """What windows and lines are drawn over: two-tone roofs, panels, stripes, bumpers."""
    d, look = identity.details, identity.model.look
    half, length = body.width / 2, body.length
    top_of = max(body.roof)
    if 'two_tone' in d:
        color = (*d['two_tone']['rgb'], PAINT)
        back = body.rear_top - 0.1
        atlas.rectangle(TOP, (back, -half, 0), (body.screen_top + 0.1, half, 9), color)
        atlas.rectangle(SIDES, (back, -half, top_of - 0.16), (body.screen_top + 0.1, half, 9), color)
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
        color = (*v['rgb'], PAINT)
        which = v['n'] if body.kind not in (*VANS, 'pickup') else 1 + v['n'] % 2
        belt = body.at('belt', body.cowl)
        if which == 1:  # hood
            atlas.rectangle(TOP, (body.cowl, -half * 0.84, 0), (length / 2 - 0.12, half * 0.84, 9), color)
        elif which == 2:  # wing
            side = LEFT if v['u'] < 0.5 else RIGHT
            sign = 1 if side == LEFT else -1
            atlas.rectangle(side, (body.cowl - 0.15, 0, 0.2), (length / 2, 0, belt), color)
            atlas.rectangle(TOP, (body.cowl - 0.15, sign * half * 0.7, 0), (length / 2, sign * half, 9), color)
        elif which == 3:  # trunk lid
            atlas.rectangle((TOP, REAR), (-length / 2, -half * 0.8, 0.5), (body.rear_base + 0.02, half * 0.8, 9), color)
        else:  # door
            side = LEFT if v['u'] < 0.5 else RIGHT
            atlas.rectangle(side, (body.cowl - 1.2, 0, 0.25), (body.cowl - 0.15, 0, belt), color)
    if 'stripes' in d:
        v = d['stripes']
        color = (*v['rgb'], PAINT)
        width = 0.07 + 0.16 * v['s']
        if v['n'] <= 2 and body.kind != 'bus':
            middles = (-width * 0.8, width * 0.8) if v['n'] == 1 else ((v['v'] - 0.5) * half,)
            for y in middles:
                atlas.rectangle(ENDS, (-length / 2, y - width / 2, 0), (length / 2, y + width / 2, 9), color)
        else:
            z = body.at('belt', 0) * (0.5 + 0.4 * v['u'])
            atlas.rectangle((*SIDES, FRONT, REAR), (-length, -half, z - width), (length, half, z + width), color)
            if body.kind == 'bus':
                x = (v['v'] - 0.5) * length * 0.6
                atlas.rectangle((TOP, *SIDES), (x, -half, 0), (x + 0.6 + 2.5 * v['s'], half, 9), color)
    black_bumper = ('bumpers' in d and d['bumpers']['s'] < 0.75) or look['bumper'] < 0.12
    if black_bumper:
        z = 0.62 if body.kind not in VANS else 0.7
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
    bulge = 0.13 if body.kind not in ('bus', *VANS, *TRUCKS) else 0.06
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


def _rear_window(identity: Identity, body: Body, atlas: Atlas, glass: _Color, shrunk) -> None:
    d, look = identity.details, identity.model.look
    top, base = body.rear_top, body.rear_base
    if body.kind in TRUCKS or (body.kind == 'van' and look['windows'] < 0.4):
        return
    low, high = body.at('half', base) * 0.80, body.at('edge', top) - 0.05
    z_low, z_high = body.at('roof', base) + 0.02, body.at('roof', top) - 0.06
    if body.kind in (*VANS, 'bus'):
        z_low, z_high, low, high = body.at('belt', 0) + 0.1, body.height - 0.3, high, high
    window = [
        (base, -low, z_low),
        (base, low, z_low),
        (top - 0.03, high, z_high),
        (top - 0.09, 0, z_high),
        (top - 0.03, -high, z_high),
    ]
    views = (TOP, REAR) if body.kind not in (*VANS, 'bus') else (REAR,)
    atlas.polygon(views, window, _GLOSS)
    atlas.polygon(views, shrunk(window, 0.92), glass)
    if body.kind == 'sedan':
        gray = 40 + int(50 * look['interior'])
        shelf = [
            window[0],
            window[1],
            *(
                tuple(0.6 * np.array(a) + 0.4 * np.array(b))
                for a, b in ((window[1], window[2]), (window[0], window[4]))
            ),
        ]
        atlas.polygon(TOP, shrunk(shelf, 0.9), (gray, gray, gray - 3, GLASS))
    if 'shelf' in d:
        x = base * 0.7 + top * 0.3
        y = (d['shelf']['u'] - 0.5) * low
        atlas.rectangle(TOP, (x, y - 0.14, 0), (x + 0.2, y + 0.14, 9), (170, 160, 130, GLASS))


def _side_windows(identity: Identity, body: Body, atlas: Atlas, glass: _Color) -> None:
    look = identity.model.look
    kind = body.kind
    pillar = 0.04 + 0.05 * look['pillar']

    def z_top(x: float) -> float:
        return body.at('roof', x) - (0.13 if kind not in ('bus', *VANS, *TRUCKS) else 0.28)

    def z_low(x: float) -> float:
        return body.at('belt', x) + 0.035

    front_low, front_high = body.cowl - 0.16, body.screen_top - 0.03
    rear_low, rear_high = body.rear_base + 0.12, body.rear_top - 0.02
    if kind == 'sedan':
        rear_low = body.rear_base + 0.28
    if kind == 'pickup':
        rear_low = rear_high = body.rear_top + 0.05
    if kind in VANS:
        rear = body.cowl - 1.35 if look['windows'] < 0.5 and kind == 'van' else -body.length / 2 + 0.35
        rear_low = rear_high = rear
    if kind == 'bus':
        front_low = front_high = body.length / 2 - 0.3
        rear_low = rear_high = -body.length / 2 + 0.3
    if kind in TRUCKS:
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
    posts = {'bus': int(span / 1.4), 'van': max(1, int(span / 1.3)), 'minibus': int(span / 1.2), 'pickup': 1}.get(
        kind, 0 if kind in TRUCKS else 2
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


def _lines(identity: Identity, body: Body, atlas: Atlas, fill: _Color) -> None:
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
    if kind not in TRUCKS:
        front = nose - 0.12 - 0.1 * look['grille']
        for sign in (-1, 1):
            atlas.line(TOP, [(body.cowl + 0.02, sign * edge, 0), (front, sign * edge * 0.86, 0)], line, 0.016)
        atlas.line(TOP, [(front, -edge * 0.86, 0), (front + 0.03, 0, 0), (front, edge * 0.86, 0)], line, 0.02)
        if look['line'] > 0.4:  # creases of the hood
            for sign in (-1, 1):
                y = sign * half * (0.3 + 0.2 * look['lamp'])
                atlas.line(TOP, [(body.cowl + 0.05, y * 1.15, 0), (front, y * 0.8, 0)], _darker(fill, 0.86), 0.03)
        # wipers' cowl
        low = body.at('half', body.cowl) * 0.84
        bulge = 0.13 if kind not in VANS else 0.06
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
    if kind in VANS:
        doors += [body.cowl - 2.4]
    for x in doors:
        if x > body.cab_rear + 0.1:
            atlas.line(SIDES, [(x, 0, body.clearance + 0.1), (x, 0, body.at('belt', x))], line, 0.014)
    for x in doors[1:]:
        atlas.rectangle(SIDES, (x + 0.06, 0, belt - 0.14), (x + 0.24, 0, belt - 0.11), _darker(fill, 0.6))
    if kind in VANS:
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
    # under what is carried
    atlas.rectangle(REAR, (rear, -half, 0), (0, half, 0.8), (34, 34, 36, MATT))
    if body.kind in ARTICULATED:
        _trailer(identity, body, atlas)
    elif body.cargo:
        color = (*second.rgb, PAINT if second.material == PAINT else MATT)
        atlas.rectangle((TOP, *SIDES), (rear - 1, -half, 0), (front, half, 9), color)
        atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 9), color)
        z = body.at('roof', body.cab_rear + 0.5)
        atlas.rectangle(FRONT, (0, -half, z - 0.05), (0, half, 9), color)
        dark = _darker(color, 0.72)
        atlas.rectangle(SIDES, (rear, 0, 0), (front, 0, 2 * body.wheel_radius + 0.08), (40, 40, 42, MATT))
        for y in (-half + 0.03, half - 0.03):
            atlas.rectangle(TOP, (rear, y - 0.04, 0), (front, y + 0.04, 9), dark)
        for x in np.arange(rear + 0.6, front, 0.62):
            atlas.line((TOP, *SIDES), [(x, -half, 0.9), (x, half, 0.9)], _darker(color, 0.9), 0.015)
            atlas.line(SIDES, [(x, 0, 1.0), (x, 0, 9)], _darker(color, 0.9), 0.015)
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
        if body.kind == 'tipper':  # boards of steel, as high as they are deep
            atlas.rectangle(REAR, (rear, -half, 2.0), (0, half, 4), (*second.rgb, PAINT))
        for x in np.linspace(rear, front, 5):
            atlas.line(SIDES, [(x, 0, 0.9), (x, 0, 4)], _darker((*second.rgb, MATT), 0.7), 0.05)
        atlas.rectangle(REAR, (rear, -half, 0.8), (0, half, 2.0), (*second.rgb, PAINT))


def _trailer(identity: Identity, body: Body, atlas: Atlas) -> None:
    """The trailer of a tractor: a box, a container, a tank or a bare frame."""
    look, second, half = identity.model.look, identity.second, body.width / 2
    rear, front = -body.length / 2, body.cab_rear - 0.03
    deck = 2 * body.wheel_radius + 0.12
    frame = (*_FRAMES[int(len(_FRAMES) * look['trim'] * 0.999)], MATT)
    if 'bed_floor' in identity.details:
        frame = (*identity.details['bed_floor']['rgb'], MATT)
    atlas.rectangle((TOP, *SIDES), (rear - 1, -half, 0), (front, half, 9), frame)
    if not body.cargo:
        atlas.rectangle((FRONT, REAR), (rear, -half, 0.4), (front, half, deck), frame)
        return
    low = {'container': body.height - 2.6, 'semitrailer': deck - 0.1}.get(body.kind, deck)
    ahead, behind = body.cargo
    color = (*second.rgb, PAINT if body.kind != 'container' else MATT)
    if body.kind == 'tanker':
        color = (*(second.rgb if look['frame'] < 0.5 else (176, 178, 180)), METALLIC)
    atlas.rectangle((TOP, *SIDES), (behind, -half, low), (ahead, half, 9), color)
    atlas.rectangle(REAR, (rear, -half, low), (0, half, 9), color)
    # above the cab
    atlas.rectangle(FRONT, (0, -half, body.at('roof', body.cab_rear + 0.5) - 0.05), (0, half, 9), color)
    dark = _darker(color, 0.72)
    if body.kind == 'tanker':
        atlas.rectangle(TOP, (behind + 0.6, -0.32, 0), (ahead - 0.6, 0.32, 9), (92, 94, 96, MATT))
        for x in np.linspace(behind + 1.2, ahead - 1.2, 3 + round(3 * look['tail'])):
            atlas.disc(TOP, (x, 0, 0), 0.27, (54, 56, 58, MATT))
            atlas.disc(TOP, (x, 0, 0), 0.2, (168, 170, 170, CHROME))
            atlas.line(SIDES, [(x + 0.8, 0, 0), (x + 0.8, 0, 9)], dark, 0.04)
        return
    step = 0.28 if body.kind == 'container' else (0.62 if look['windows'] < 0.5 else 1.35)
    for x in np.arange(behind + step, ahead, step):
        atlas.line(SIDES, [(x, 0, low), (x, 0, 9)], _darker(color, 0.86), 0.05 if step < 0.3 else 0.02)
        atlas.line(TOP, [(x, -half, 0), (x, half, 0)], _darker(color, 0.9), 0.05 if step < 0.3 else 0.02)
    for y in (-half + 0.03, half - 0.03):
        atlas.rectangle(TOP, (behind, y - 0.04, 0), (ahead, y + 0.04, 9), dark)
    # doors and their bars
    atlas.line(REAR, [(rear, 0, low), (rear, 0, 9)], dark, 0.04)
    for y in (-0.7, -0.3, 0.3, 0.7):
        atlas.line(REAR, [(rear, y * half, low), (rear, y * half, 9)], (170, 170, 168, MATT), 0.03)
    if look['bumper'] > 0.5:  # stripes that shine
        for z in (low + 0.05, body.height - 0.1):
            atlas.rectangle(REAR, (rear, -half, z), (0, half, z + 0.06), (206, 40, 36, MATT))
    if body.kind == 'container':
        rng = np.random.default_rng(identity.grain + 3)
        pale = (222, 222, 218, MATT) if max(second.rgb) < 190 else (40, 52, 96, MATT)
        word = ''.join('ABCEGHIKLMNOSTU'[int(i)] for i in rng.integers(15, size=4))
        middle = (ahead + behind) / 2
        for view in SIDES:
            atlas.text(view, (middle + rng.normal(0, 0.8), 0, low + 1.5), word, rng.uniform(0.5, 1.3), pale)
            atlas.text(view, (behind + 1.2, 0, low + 2.2), f'{word[:3]}U {rng.integers(1e6):06d}', 0.16, pale)
        atlas.text(REAR, (rear, half * 0.5, low + 2.1), f'{word[:3]}U {rng.integers(1e4):04d}', 0.13, pale)
        atlas.text(TOP, (behind + 0.9, 0, 0), f'{rng.integers(1e6):06d}', 0.3, pale, turn=1)


_FRAMES = ((42, 43, 45), (74, 76, 80), (96, 34, 30), (38, 58, 98), (120, 122, 124))


def _lamps(identity: Identity, body: Body, atlas: Atlas) -> None:
    look = identity.model.look
    half, nose = body.width / 2, body.length / 2
    front = body.at('belt', nose - 0.12) if body.kind != 'bus' else 0.9
    if body.kind in TRUCKS:
        front = 0.95
    z1 = front * (0.97 - 0.08 * look['lamp_height'])
    z0 = z1 - 0.09 - 0.1 * look['lamp']
    inner = 0.50 + 0.2 * look['lamp']
    clear: _Color = (176, 182, 188, LAMP)
    for sign in (-1, 1):
        low, high = sorted((sign * half * inner, sign * half))
        reach = 0.10 + 0.26 * look['lamp_height']
        atlas.rectangle(FRONT, (nose - 0.3, low, z0), (nose, high, z1), clear)
        if body.kind not in ('bus', *TRUCKS):
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
    _rear_lamps(identity, body, atlas)
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
        if body.kind not in TRUCKS:
            atlas.rectangle(TOP, (nose - 0.035, -half * 0.42, 0), (nose, half * 0.42, 9), (26, 26, 28, PAINT))
    _plates(identity, body, atlas)


def _rear_lamps(identity: Identity, body: Body, atlas: Atlas) -> None:
    look, half, rear = identity.model.look, body.width / 2, -body.length / 2
    truck, big = body.kind in TRUCKS, body.kind in ('bus', *TRUCKS)
    red: _Color = (128 + int(60 * look['rim']), 12, 16, LAMP)
    amber, white = (206, 112, 24, LAMP), (206, 208, 206, LAMP)
    top = body.at('belt', rear + 0.1) - 0.02 if not big else 1.15 if truck else 1.35
    tall = body.kind in ('estate', *VANS, 'suv', 'hatchback', 'bus')
    low = top - (0.13 + 0.35 * look['tail'] * tall)
    inner = (0.62 + 0.2 * look['tail']) if not tall or look['line'] < 0.5 else 0.78
    for sign in (-1, 1):
        side = LEFT if sign > 0 else RIGHT
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
    if look['frame'] > 0.82:  # a bar of light from lamp to lamp
        atlas.rectangle(REAR, (rear, -half * inner, top - 0.07), (0, half * inner, top - 0.01), red)
    elif look['trim'] > 0.55:
        chrome = (*CHROME_RGB, CHROME)
        atlas.rectangle(REAR, (rear, -half * 0.45, top - 0.06), (0, half * 0.45, top - 0.02), chrome)
    atlas.rectangle(REAR, (rear, -0.07, top - 0.12), (0, 0.07, top - 0.01), (*CHROME_RGB, CHROME))  # badge
    line = (*(max(8, int(v * 0.35)) for v in identity.paint.rgb), MATT)
    z = 0.62 if look['tail'] < 0.5 else 0.52
    atlas.line(REAR, [(rear, -half * 0.78, z), (rear, half * 0.78, z)], line, 0.016)  # below the lid
    if look['bumper'] > 0.3:
        atlas.rectangle(REAR, (rear, -half * 0.7, 0), (0, half * 0.7, 0.30), (34, 34, 36, MATT))
    if look['pillar'] > 0.6:  # exhausts
        for y in (-0.6, 0.6) if look['pillar'] > 0.8 else (-0.6,):
            atlas.disc(REAR, (rear, y * half, 0.27), 0.05, (*CHROME_RGB, CHROME))
    if body.kind != 'sedan' and body.kind != 'pickup':  # the third brake lamp, and a wiper
        z = body.at('roof', body.rear_top) - 0.05
        atlas.rectangle(REAR, (rear, -0.16, z - 0.02), (9, 0.16, z + 0.01), red)
        z = body.at('roof', body.rear_base) + 0.05
        atlas.line(REAR, [(rear, 0, z), (rear, half * 0.3, z + 0.05)], _BLACK, 0.02)


_PLATES = ((224, 224, 220), (224, 224, 220), (224, 224, 220), (226, 184, 40), (206, 214, 206), (60, 110, 70))


def _plates(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Front and rear; the rear one is yellow in some countries."""
    look, rear = identity.model.look, -body.length / 2
    rng = np.random.default_rng([identity.grain, 5])
    front_tone = _PLATES[int(rng.integers(len(_PLATES)))]
    rear_tone = (226, 184, 40) if rng.uniform() < 0.15 else front_tone
    marks = rng.uniform(size=int(rng.integers(5, 8)))
    ink = (34, 34, 40, MATT) if max(front_tone) > 120 else (226, 226, 222, MATT)
    long = 0.26 if rng.uniform() < 0.75 else 0.17
    for view, z, tone in ((FRONT, 0.42, front_tone), (REAR, 0.50 if look['tail'] < 0.5 else 0.72, rear_tone)):
        high = 0.12 if long > 0.2 else 0.17
        atlas.rectangle(view, (rear, -long - 0.01, z - 0.01), (-rear, long + 0.01, z + high + 0.01), _BLACK)
        atlas.rectangle(view, (rear, -long, z), (-rear, long, z + high), (*tone, MATT))
        if long > 0.2 and front_tone[2] > 215:
            atlas.rectangle(view, (rear, long - 0.04, z), (-rear, long, z + high), (30, 56, 140, MATT))
        step = (2 * long - 0.1) / len(marks)
        for n, mark in enumerate(marks):
            if mark > 0.12:
                y = -long + 0.03 + n * step
                atlas.rectangle(
                    view, (rear, y, z + 0.025), (-rear, y + step * (0.4 + 0.3 * mark), z + high - 0.025), ink
                )


def _wheel_arches(body: Body, atlas: Atlas) -> None:
    for x in body.wheels:
        r = body.wheel_radius
        center = (x, 0, r)
        atlas.disc(SIDES, center, r + 0.06, (10, 10, 11, MATT))
        atlas.disc(SIDES, center, r, (24, 24, 25, MATT))
        atlas.disc(SIDES, center, r * 0.66, (150, 152, 154, CHROME))
        for angle in np.arange(5) * 1.2566:
            tip = (x + r * 0.5 * np.cos(angle), 0, r + r * 0.5 * np.sin(angle))
            atlas.disc(SIDES, tip, r * 0.15, (40, 40, 42, MATT))


def _over_paint(identity: Identity, body: Body, atlas: Atlas) -> None:
    d, half = identity.details, body.width / 2
    big = body.kind == 'bus' or body.cargo is not None
    load = body.cargo or (
        (body.screen_top - 0.2, body.rear_top + 0.2) if body.kind != 'pickup' else (body.screen_top, body.rear_top)
    )
    if body.kind in TRUCKS and not body.cargo:
        load = (body.screen_top, body.cab_rear)
    front, rear = load
    if 'decal' in d:
        v = d['decal']
        color = (*v['rgb'], PAINT)
        size = (0.1 + 0.14 * v['s']) * (2.2 if big else 1.0)
        x, y = rear + (front - rear) * v['u'], (v['v'] - 0.5) * half
        if v['n'] <= 2:
            if v['n'] == 1 and body.cowl < body.length / 2 - 0.6:
                x = body.cowl + 0.2 + (body.length / 2 - 0.4 - body.cowl) * v['u'] * 0.7
            if v['s'] < 0.5:
                atlas.disc(TOP, (x, y, 0), size, color)
            else:
                atlas.rectangle(TOP, (x - size, y - size * 0.6, 0), (x + size, y + size * 0.6, 9), color)
        z = body.at('belt', 0) * 0.68 if not big else body.height * 0.6
        atlas.rectangle(SIDES, (x - size * 1.5, 0, z - size * 0.6), (x + size * 1.5, 0, z + size * 0.6), color)
    if 'lettering' in d:
        v = d['lettering']
        color = (*v['rgb'], PAINT)
        tall = body.cargo is not None or body.kind == 'bus'
        height = {'bus': 0.45, 'van': 0.35, 'minibus': 0.3}.get(body.kind, 0.7 if body.cargo else 0.18) * (
            0.7 + 0.6 * v['s']
        )
        span = (front - rear) if tall else body.length * 0.6
        height = min(height, 1.3 * span / max(3, len(v['text'])))
        z = body.height * 0.62 if body.cargo else body.at('belt', 0) * 0.72
        for view in SIDES:
            atlas.text(view, ((front + rear) / 2, 0, z), v['text'], height, color)
        if v['n'] <= 2 and body.kind != 'pickup':
            atlas.text(
                TOP,
                ((front + rear) / 2, 0, 0),
                v['text'],
                min(height, half * 0.8),
                color,
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
            color = (*(int(t) for t in tone), MATT)
            r = rng.uniform(0.03, 0.12) * (1.8 if big else 1)
            atlas.polygon(
                TOP,
                [
                    (x + r * rng.uniform(0.4, 1.4) * np.cos(t), y + r * rng.uniform(0.4, 1.2) * np.sin(t), 0)
                    for t in np.arange(7) * 0.9
                ],
                color,
            )
            z = rng.uniform(0.35, 0.95)
            atlas.polygon(
                LEFT if rng.uniform() < 0.5 else RIGHT,
                [(x + r * np.cos(t), 0, z + 0.5 * r * np.sin(t)) for t in np.arange(7) * 0.9],
                color,
            )
    if 'missing' in d and d['missing']['n'] > 1:  # an unpainted corner
        v = d['missing']
        sign = 1 if v['u'] < 0.5 else -1
        x = body.length / 2 * (1 if v['v'] < 0.5 else -1)
        low, high = sorted((sign * half * 0.45, sign * half))
        views = (TOP, FRONT if x > 0 else REAR)
        atlas.rectangle(views, (min(x, x * 0.88), low, 0), (max(x, x * 0.88), high, 0.7), (30, 30, 31, MATT))
