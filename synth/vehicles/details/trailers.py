"""Trailers of articulated trucks: boxes, containers, tanks and bare frames."""

from __future__ import annotations

import numpy as np

from ..body import ARTICULATED, Body
from ..identity import Identity
from ..swatches import CHROME, MATT, METALLIC, PAINT
from ..texture import FRONT, REAR, SIDES, TOP, Atlas, Color
from .base import Layer, darker, paints
from .load import floor_color

_FRAMES = ((42, 43, 45), (74, 76, 80), (96, 34, 30), (38, 58, 98), (120, 122, 124))


@paints(Layer.ON_LOAD)
def paint_trailer(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the trailer of a tractor."""
    if body.kind not in ARTICULATED:
        return
    look, half = identity.model.look, body.width / 2
    rear, front = -body.length / 2, body.cab_rear - 0.03
    deck = 2 * body.wheel_radius + 0.12
    frame = floor_color(identity, (*_FRAMES[int(len(_FRAMES) * look['trim'] * 0.999)], MATT))
    atlas.rectangle((TOP, *SIDES), (rear - 1, -half, 0), (front, half, 9), frame)
    if not body.cargo:
        atlas.rectangle((FRONT, REAR), (rear, -half, 0.4), (front, half, deck), frame)
        return
    low = {'container': body.height - 2.6, 'semitrailer': deck - 0.1}.get(body.kind, deck)
    ahead, behind = body.cargo
    rgb = identity.second.rgb
    color = (*rgb, PAINT if body.kind != 'container' else MATT)
    if body.kind == 'tanker':
        color = (*(rgb if look['frame'] < 0.5 else (176, 178, 180)), METALLIC)
    atlas.rectangle((TOP, *SIDES), (behind, -half, low), (ahead, half, 9), color)
    atlas.rectangle(REAR, (rear, -half, low), (0, half, 9), color)
    # above the cab
    atlas.rectangle(FRONT, (0, -half, body.at('roof', body.cab_rear + 0.5) - 0.05), (0, half, 9), color)
    if body.kind == 'tanker':
        _paint_tank(atlas, ahead, behind, 3 + round(3 * look['tail']), darker(color, 0.72))
    else:
        _paint_box(identity, body, atlas, (ahead, behind, low), color)


def _paint_tank(atlas: Atlas, ahead: float, behind: float, lids: int, dark: Color) -> None:
    atlas.rectangle(TOP, (behind + 0.6, -0.32, 0), (ahead - 0.6, 0.32, 9), (92, 94, 96, MATT))
    for x in np.linspace(behind + 1.2, ahead - 1.2, lids):
        atlas.disc(TOP, (x, 0, 0), 0.27, (54, 56, 58, MATT))
        atlas.disc(TOP, (x, 0, 0), 0.2, (168, 170, 170, CHROME))
        atlas.line(SIDES, [(x + 0.8, 0, 0), (x + 0.8, 0, 9)], dark, 0.04)


def _paint_box(identity: Identity, body: Body, atlas: Atlas, load: tuple[float, float, float], color: Color) -> None:
    """Paint a box or container; `load` is x of its front and of its rear, and z of its floor."""
    look, half, rear, dark = identity.model.look, body.width / 2, -body.length / 2, darker(color, 0.72)
    ahead, behind, low = load
    step = 0.28 if body.kind == 'container' else (0.62 if look['windows'] < 0.5 else 1.35)
    width = 0.05 if step < 0.3 else 0.02
    for x in np.arange(behind + step, ahead, step):
        atlas.line(SIDES, [(x, 0, low), (x, 0, 9)], darker(color, 0.86), width)
        atlas.line(TOP, [(x, -half, 0), (x, half, 0)], darker(color, 0.9), width)
    for y in (-half + 0.03, half - 0.03):
        atlas.rectangle(TOP, (behind, y - 0.04, 0), (ahead, y + 0.04, 9), dark)
    # doors and their bars
    atlas.line(REAR, [(rear, 0, low), (rear, 0, 9)], dark, 0.04)
    for y in (-0.7, -0.3, 0.3, 0.7):
        atlas.line(REAR, [(rear, y * half, low), (rear, y * half, 9)], (170, 170, 168, MATT), 0.03)
    if look['bumper'] > 0.5:  # reflective stripes
        for z in (low + 0.05, body.height - 0.1):
            atlas.rectangle(REAR, (rear, -half, z), (0, half, z + 0.06), (206, 40, 36, MATT))
    if body.kind == 'container':
        rng = np.random.default_rng(identity.grain + 3)
        pale = (222, 222, 218, MATT) if max(color[:3]) < 190 else (40, 52, 96, MATT)
        word = ''.join('ABCEGHIKLMNOSTU'[int(i)] for i in rng.integers(15, size=4))
        middle = (ahead + behind) / 2
        for view in SIDES:
            atlas.text(view, (middle + rng.normal(0, 0.8), 0, low + 1.5), word, rng.uniform(0.5, 1.3), pale)
            atlas.text(view, (behind + 1.2, 0, low + 2.2), f'{word[:3]}U {rng.integers(1_000_000):06d}', 0.16, pale)
        atlas.text(REAR, (rear, half * 0.5, low + 2.1), f'{word[:3]}U {rng.integers(10_000):04d}', 0.13, pale)
        atlas.text(TOP, (behind + 0.9, 0, 0), f'{rng.integers(1_000_000):06d}', 0.3, pale, turn=1)
