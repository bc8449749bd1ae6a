"""What the years leave on vehicles: dirt, dents, rust and parts that are missing."""

from __future__ import annotations

import numpy as np

from ...render.shapes import Mesh
from ..body import VANS, Body
from ..identity import Identity
from ..swatches import BODY, MATT
from ..texture import FRONT, LEFT, REAR, RIGHT, TOP, Atlas
from .base import ANY, CARS, Detail, Layer, paints


class Dirt(Detail):
    """More dirt than others have; see `paint_dirt`."""

    name, order, weight, kinds = 'dirt', 23, 0.7, ANY


@paints(Layer.DIRT)
def paint_dirt(identity: Identity, body: Body, atlas: Atlas) -> None:
    """Paint the dirt of `Dirt`, or else the dust and the fading of an ordinary vehicle."""
    rng = np.random.default_rng(identity.grain)
    if 'dirt' in identity.details:
        atlas.spots(rng, 0.25 + 0.45 * identity.details['dirt'].s, (112, 100, 84), 0.08)
    else:
        atlas.spots(rng, rng.uniform(0.0, 0.16), (120, 112, 100), rng.uniform(0.01, 0.06))


class Dents(Detail):
    """Dents and rust, on the roof and on the sides."""

    name, order, weight, kinds = 'dents', 22, 0.7, ANY
    layer = Layer.DENTS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        rng = np.random.default_rng(identity.grain + 1)
        base = np.array(identity.paint.rgb)
        big = body.kind == 'bus' or body.cargo is not None
        for _ in range(2 + 2 * self.n):
            x, y = rng.uniform(-0.48, 0.48) * body.length, rng.uniform(-0.8, 0.8) * body.width / 2
            tone = base * rng.uniform(0.55, 0.85) if rng.uniform() < 0.5 else base * 0.6 + np.array([118, 92, 70]) * 0.4
            color = (int(tone[0]), int(tone[1]), int(tone[2]), MATT)
            r = rng.uniform(0.03, 0.12) * (1.8 if big else 1)
            outline = [
                (x + r * rng.uniform(0.4, 1.4) * np.cos(t), y + r * rng.uniform(0.4, 1.2) * np.sin(t), 0)
                for t in np.arange(7) * 0.9
            ]
            atlas.polygon(TOP, outline, color)
            z = rng.uniform(0.35, 0.95)
            outline = [(x + r * np.cos(t), 0, z + 0.5 * r * np.sin(t)) for t in np.arange(7) * 0.9]
            atlas.polygon(LEFT if rng.uniform() < 0.5 else RIGHT, outline, color)


class Missing(Detail):
    """A mirror that is missing, or a corner that is not painted."""

    name, order, weight, kinds = 'missing', 21, 0.4, (*CARS, 'pickup', *VANS)
    layer = Layer.MISSING_PARTS

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        if self.n == 1:
            return
        half, sign = body.width / 2, 1 if self.u < 0.5 else -1
        x = body.length / 2 * (1 if self.v < 0.5 else -1)
        low, high = sorted((sign * half * 0.45, sign * half))
        views = (TOP, FRONT if x > 0 else REAR)
        atlas.rectangle(views, (min(x, x * 0.88), low, 0), (max(x, x * 0.88), high, 0.7), (30, 30, 31, MATT))

    def change_skin(self, skin: Mesh) -> Mesh:
        if self.n > 1:
            return skin
        # mirrors are the only parts of the skin in the plain color of the body
        y = skin.corners[..., 1].max(axis=1) if self.u < 0.5 else -skin.corners[..., 1].min(axis=1)
        keep = ~((skin.colors == BODY) & (y > 0))
        return Mesh(skin.corners[keep], skin.normals[keep], skin.colors[keep])
