"""A shot: a vehicle, what surrounds it and the camera; rendered, with what is known about the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..render.camera import View
from ..render.image import Setting, render
from ..render.tracing import Scene, Solid
from .occluders.wall import past_wall

__all__ = ['Rendering', 'Shot', 'render_shot', 'visible_share']


@dataclass(frozen=True)
class Shot:
    """What is rendered and from where, in the coordinates of the vehicle.

    Attributes:
        view: camera and crop.
        setting: ground and light.
        others: solids around the vehicle.
        names: for each of `others`, its name in `Rendering.hidden_by`.
        pitch: angle of the line of sight below the horizon, degrees.
        heading: heading of the vehicle, degrees counterclockwise from the camera's direction, of any turn.
        hidden_by: names of what hides the vehicle by design.
        neighbors: number of vehicles among `others`.
        find_shadows: whether to trace shadows of `others` and of the wall; otherwise `hidden_by` names them.
    """

    view: View
    setting: Setting
    others: tuple[Solid, ...] = ()
    names: tuple[str, ...] = ()
    pitch: float = 90.0
    heading: float = 0.0
    hidden_by: tuple[str, ...] = ()
    neighbors: int = 0
    find_shadows: bool = False


@dataclass(frozen=True)
class Rendering:
    """An image of a perfect camera and what is known about it.

    Attributes:
        shot: what was rendered.
        pixels: `(H, W, 3)` uint8 sRGB.
        box: box of the vehicle in pixels (left, top, right, bottom), clipped to the crop.
        visible: share of the vehicle's pixels that lie in the crop and are not hidden.
        hidden_by: names of what hides or shades the vehicle: tree, palm, pole, neighbour, crop, shadow.
    """

    shot: Shot
    pixels: np.ndarray
    box: tuple[float, float, float, float]
    visible: float
    hidden_by: tuple[str, ...]


def render_shot(solo: Scene, shot: Shot, rng: np.random.Generator) -> Rendering:
    """Render a shot and measure what is seen.

    Args:
        solo: the vehicle alone, in its own coordinates.
        shot: camera and surroundings.
        rng: generator of soft shadows and of the grain of the ground.
    """
    vehicle, view = solo.solids[0], shot.view
    scene = Scene([vehicle, *shot.others]) if shot.others else solo
    pixels = render(scene, view, shot.setting, rng)
    visible, owners = visible_share(solo, scene, view)
    flat = view.project(vehicle.points)
    size = [view.width, view.height]
    hidden_by = list(shot.hidden_by)
    if 'crop' in hidden_by and (flat >= 0).all() and (flat <= size).all():
        hidden_by.remove('crop')  # its margin was as wide as its shift
    if not {'tree', 'crop', 'pole'} & set(hidden_by) and visible < 0.97:
        hidden_by += sorted({shot.names[owner - 1] for owner in owners}) or ['neighbour']
    if shot.find_shadows and _shaded_share(vehicle, scene, shot.setting) > 0.1:
        hidden_by.append('shadow')
    left, top = (float(v) for v in np.clip(flat.min(axis=0), 0, size))
    right, bottom = (float(v) for v in np.clip(flat.max(axis=0), 0, size))
    return Rendering(shot, pixels, (left, top, right, bottom), visible, tuple(hidden_by))


def _shaded_share(vehicle: Solid, scene: Scene, setting: Setting) -> float:
    """Return the share of the vehicle's top in the shadow of something else, from 84 rays; 0 without sun."""
    if setting.light.sunlight.max() <= 0:
        return 0.0
    half_length, half_width = vehicle.footprint
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, 14) * half_length, np.linspace(-0.8, 0.8, 6) * half_width)
    top = np.stack([x.ravel(), y.ravel(), np.full(x.size, vehicle.high[2] + 0.02)], 1).astype(np.float32)
    towards = np.broadcast_to(setting.light.sun.astype(np.float32), top.shape)
    lit = scene.sunlit(top, None, np.ascontiguousarray(towards)) * past_wall(setting.wall, top.T, setting.light.sun)
    return float(1 - np.mean(lit))


def visible_share(solo: Scene, scene: Scene, view: View) -> tuple[float, set[int]]:
    """Measure with some 900 rays how much of the vehicle is seen.

    Args:
        solo: the vehicle alone.
        scene: the vehicle as its first solid, and others.
        view: camera and crop.

    Returns:
        The share of the vehicle's image that lies in the crop and is not hidden, and the indices of the solids of
        `scene` that hide a part of it.
    """
    flat = view.project(solo.solids[0].points)
    low, high = flat.min(axis=0), flat.max(axis=0)
    step = max(0.25, float(np.sqrt(np.prod(high - low) / 900)))
    columns, rows = (v.ravel() for v in np.meshgrid(*(np.arange(low[i], high[i], step) + step / 2 for i in (0, 1))))
    directions = view.rays(columns, rows)
    alone, _ = solo.find_solids(view.eye, directions)
    inside = (columns > 0) & (columns < view.width) & (rows > 0) & (rows < view.height)
    seen, owners = alone, set()
    if scene is not solo:
        rays, owner = scene.find_solids(view.eye, directions)
        seen = rays[owner == 0]
        in_front = np.isin(rays[owner > 0], alone)
        owners = {int(o) for o in owner[owner > 0][in_front]}
    return float(np.count_nonzero(inside[seen]) / max(1, len(alone))), owners
