"""From an identity to a solid: its body, everything mounted on it, and its texture."""

from __future__ import annotations

from ..render.shapes import Mesh, join
from ..render.tracing import Solid, make_solid
from .body import TRUCKS, Body
from .cars import build_car
from .details import PAINTERS
from .identity import Identity
from .swatches import BODY, LAMP, MATT, RIM, Swatches
from .texture import Atlas
from .trucks import build_truck

__all__ = ['build_body', 'build_solid', 'build_vehicle_mesh', 'paint_vehicle']


def build_solid(identity: Identity) -> tuple[Solid, Body]:
    """Build a vehicle in its own coordinates; also returns its body, which has its measures."""
    body = build_body(identity.model.kind, identity.model.shape)
    swatches = Swatches()
    mesh = build_vehicle_mesh(identity, body, swatches)
    texels, coordinates, columns = paint_vehicle(identity, body).finish(mesh, swatches.as_array())
    return make_solid(mesh, texels, coordinates, columns, (body.length / 2, body.width / 2)), body


def build_body(kind: str, shape: dict[str, float]) -> Body:
    """Build the body of a model.

    Args:
        kind: one of `KINDS`.
        shape: `length`, `width` and `height` in meters, and the shares `a` to `h` in 0..1 that vary the proportions.
    """
    return build_truck(kind, shape) if kind in TRUCKS else build_car(kind, shape)


def build_vehicle_mesh(identity: Identity, body: Body, swatches: Swatches) -> Mesh:
    """Join the body and everything that is mounted on it.

    Args:
        identity: vehicle with the details to mount.
        body: its body, which is not changed.
        swatches: gets the colors of the parts.
    """
    swatches.set(BODY, identity.paint.rgb, identity.paint.material)
    rim = 150 if identity.model.look['rim'] < 0.7 else 30
    swatches.set(RIM, (rim, rim, rim + 2), LAMP if rim > 100 else MATT)
    skin, parts = body.mesh, []
    for detail in identity.details.values():
        parts += detail.build(identity, body, swatches)
        skin = detail.change_skin(skin)
    return join([skin, *parts])


def paint_vehicle(identity: Identity, body: Body) -> Atlas:
    """Paint the texture of the body: windows, lamps, seams and details, layer by layer."""
    atlas = Atlas(body.length, body.width, body.height, (*identity.paint.rgb, identity.paint.material))
    jobs = [(layer, 0, painter) for layer, painter in PAINTERS]
    jobs += [(d.layer, d.order, d.paint) for d in identity.details.values() if d.layer is not None]
    for _, _, paint in sorted(jobs, key=lambda job: job[:2]):
        paint(identity, body, atlas)
    return atlas
