"""Bodies: what texture and details need to know of the shape of a vehicle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..render.shapes import Mesh, box, cylinder, join
from .swatches import BODY, RIM, TIRE, TRIM

__all__ = ['ARTICULATED', 'KINDS', 'TRUCKS', 'VANS', 'Body', 'between']

#: kind -> (length, width, height) in meters, each from .. to
KINDS: dict[str, tuple[tuple[float, float], ...]] = {
    'sedan': ((4.35, 5.05), (1.76, 1.92), (1.41, 1.50)),
    'hatchback': ((3.60, 4.45), (1.64, 1.82), (1.44, 1.56)),
    'estate': ((4.45, 4.95), (1.77, 1.90), (1.44, 1.54)),
    'suv': ((4.15, 5.05), (1.80, 2.00), (1.60, 1.85)),
    'pickup': ((4.95, 5.70), (1.80, 2.00), (1.72, 1.90)),
    'van': ((4.70, 6.30), (1.86, 2.06), (1.90, 2.75)),
    'bus': ((8.50, 13.0), (2.40, 2.55), (2.85, 3.30)),
    'box_truck': ((5.60, 8.60), (2.05, 2.50), (2.90, 3.70)),
    'flatbed': ((5.40, 8.60), (2.00, 2.45), (2.10, 2.80)),
    'minibus': ((5.30, 7.40), (1.94, 2.10), (2.30, 2.80)),
    'tipper': ((6.60, 9.20), (2.35, 2.52), (2.70, 3.10)),
    'semitrailer': ((13.5, 16.5), (2.48, 2.56), (3.70, 4.05)),
    'container': ((13.5, 16.5), (2.44, 2.52), (3.80, 4.05)),
    'skeleton': ((13.5, 16.5), (2.44, 2.52), (2.90, 3.60)),
    'tanker': ((13.0, 16.0), (2.46, 2.54), (3.30, 3.65)),
}
VANS = ('van', 'minibus')
#: a tractor and its trailer
ARTICULATED = ('semitrailer', 'container', 'skeleton', 'tanker')
TRUCKS = ('box_truck', 'flatbed', 'tipper', *ARTICULATED)


@dataclass
class Body:
    """The body of a vehicle, in meters; x is measured from the middle, forward.

    Attributes:
        kind: one of `KINDS`.
        length, width, height: size of the whole vehicle, without mirrors and mounted details.
        parts: meshes of the body without wheels and mirrors.
        curves: `x`, stations from the rear to the front, and at each of them: `roof`, height of the middle line;
            `belt`, height of the shoulder; `half`, half width of the shoulder; `edge`, half width of the roof or hood.
        cowl, screen_top: x of the lower and of the upper end of the windshield.
        rear_top, rear_base: x of the upper and of the lower end of the rear window.
        clearance: height of the lower edge of the skin.
        wheels: x of the axles.
        wheel_radius: radius of the tires.
        bed: (front x, rear x, floor z, rail z) of an open bed, or None.
        cargo: (front x, rear x) of a box body or trailer, or None.
        cab_rear: x of the rear end of the painted cab.
        mesh: parts, wheels and mirrors.
    """

    kind: str
    length: float
    width: float
    height: float
    parts: list[Mesh]
    curves: dict[str, np.ndarray]
    cowl: float
    screen_top: float
    rear_top: float
    rear_base: float
    clearance: float
    wheels: tuple[float, ...]
    wheel_radius: float
    bed: tuple[float, float, float, float] | None = None
    cargo: tuple[float, float] | None = None
    cab_rear: float = 0.0

    def __post_init__(self) -> None:
        self.mesh = join([*self.parts, *_wheels(self), *_mirrors(self)])

    def at(self, name: str, x: float) -> float:
        """Return the curve of that name at `x`."""
        return float(np.interp(x, self.curves['x'], self.curves[name]))


def between(low: float, high: float, share: float) -> float:
    """Interpolate linearly: `low` at share 0, `high` at share 1."""
    return low + (high - low) * share


def _wheels(body: Body) -> list[Mesh]:
    """Build tires that end a little inside the skin; what lies outside is painted on it."""
    meshes = []
    r = body.wheel_radius
    for x in body.wheels:
        outer = body.at('half', x) - 0.015
        wheel = cylinder((x, outer - 0.22, r), (x, outer, r), r, TIRE, 14)
        rim = cylinder((x, outer - 0.02, r), (x, outer + 0.004, r), r * 0.66, RIM, 10)
        meshes += [wheel, rim, wheel.mirrored(), rim.mirrored()]
    return meshes


def _mirrors(body: Body) -> list[Mesh]:
    x = body.cowl - 0.25 * min(1.0, abs(body.cowl - body.screen_top) / 0.5)
    side = body.at('half', x)
    z = body.at('belt', x) + 0.06
    if body.kind in ('bus', *TRUCKS):
        shell = box((body.cowl + 0.05, side - 0.02, z + 0.5), (body.cowl + 0.15, side + 0.2, z + 0.95), 0.03, TRIM)
    else:
        shell = box((x - 0.05, side - 0.08, z), (x + 0.09, side + 0.16, z + 0.15), 0.06, BODY)
    return [shell, shell.mirrored()]
