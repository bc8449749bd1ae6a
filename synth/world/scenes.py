"""One image: where its vehicle stands, who stands beside it, what hides it, and where the camera is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..render.camera import View, aim
from ..render.image import Setting, Wall, past_wall, render
from ..render.tracing import Scene, Solid, build_solid, make_solid
from ..vehicles.catalog import sample_identity, sample_model
from ..vehicles.shapes import Mesh, cylinder
from ..vehicles.swatches import MATT
from .casters import sample_shadow_pattern
from .flights import Flight
from .poses import sample_pose

__all__ = ['AssetCache', 'Rendering', 'Shot', 'render_shot', 'render_still']

_NEIGHBORS = 48  # vehicles that stand beside others: enough to say nothing about whom they stand beside
_TREES = 8
_CAST = 0.33  # share of the sunny images with a pattern of shadow


@dataclass(frozen=True)
class Rendering:
    """A clean render and what is known about it.

    Attributes:
        pixels: `(H, W, 3)` uint8.
        box: the vehicle's box in pixels, left, top, right, bottom, cut to the crop.
        height: of the camera, meters.
        pitch: of the line of sight below the horizon, degrees.
        heading: of the vehicle, degrees counterclockwise from the camera's direction, -180..180.
        visible: share of the vehicle's picture that is in the crop and not hidden.
        hidden_by: names of what stands before it or shades it, or 'crop'.
        neighbors: how many vehicles stand near it.
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]
    height: float
    pitch: float
    heading: float
    visible: float
    hidden_by: tuple[str, ...]
    neighbors: int


@dataclass(frozen=True)
class Shot:
    """What a rendering is taken of and from where, in the coordinates of its vehicle.

    Attributes:
        view: camera and crop.
        setting: ground and light.
        others: what stands around.
        names: what each of `others` is called where it hides the vehicle.
        pitch: of the line of sight below the horizon, degrees.
        heading: of the vehicle, degrees counterclockwise from the camera's direction.
        hidden_by: what hides it by design.
        neighbors: vehicles among `others`.
        casts: whether shadows of `others` and of the wall are to be looked for; else `hidden_by` knows them.
    """

    view: View
    setting: Setting
    others: tuple[Solid, ...] = ()
    names: tuple[str, ...] = ()
    pitch: float = 90.0
    heading: float = 0.0
    hidden_by: tuple[str, ...] = ()
    neighbors: int = 0
    casts: bool = False


class AssetCache:
    """Builds solids once and keeps the ones that come again."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._neighbors: OrderedDict[int, Solid] = OrderedDict()
        self._kept: dict[tuple[str, int], Solid] = {}

    def neighbor(self, index: int) -> Solid:
        """A vehicle from the same population as all others, which is none of them."""
        if index not in self._neighbors:
            number = 10_000_000 + index
            identity = sample_identity(self.seed, number, sample_model(self.seed, number), 0)
            self._neighbors[index] = build_solid(identity)[0]
        return self._neighbors[index]

    def tree(self, index: int) -> Solid:
        return self.kept('tree', index, lambda: _tree(np.random.default_rng([self.seed, index, 24])))

    def kept(self, kind: str, index: int, make: Callable[[], Solid]) -> Solid:
        """What `make` builds, once."""
        key = (kind, index)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def render_still(
    assets: AssetCache, solo: Scene, flight: Flight, size: int, rng: np.random.Generator, *, clean: bool = False
) -> Rendering:
    """Place the vehicle in the flight's world and render it.

    Args:
        assets: neighbors and trees.
        solo: the vehicle alone, in its own coordinates.
        flight: place, light and camera.
        size: long side of the crop in pixels.
        rng: of everything that differs between two images.
        clean: in the middle of the crop, nothing before it and no deep shadow.
    """
    vehicle = solo.solids[0]
    spot, beside = _park(flight, vehicle, rng, assets)
    if clean:
        beside = []
    height, pitch, azimuth, aside = sample_pose(flight, vehicle, rng)
    light = flight.light.turned(-spot[2])
    hidden = (
        'none'
        if clean
        else str(rng.choice(['none', 'tree', 'leaves', 'pole', 'wall', 'crop'], p=[0.70, 0.07, 0.04, 0.04, 0.06, 0.09]))
    )
    if hidden == 'tree' and height < 16:  # the camera would be among its leaves
        hidden = 'pole'
    shift, hidden_by = rng.normal(0, 0.02, 2), []
    wall = None
    others = list(beside)
    if hidden == 'crop':
        shift = (
            rng.uniform(0.10, 0.38)
            * (np.array([1, 0]) if rng.uniform() < 0.5 else np.array([0, 1]))
            * rng.choice([-1, 1])
        )
        hidden_by.append('crop')
    elif hidden in ('tree', 'leaves'):
        tree = assets.tree(int(rng.integers(_TREES)))
        others.append(
            _before(tree, vehicle, azimuth, pitch, rng) if hidden == 'tree' else _against(tree, vehicle, light.sun, rng)
        )
        hidden_by.append('tree' if hidden == 'tree' else 'shadow')
    elif hidden == 'pole':
        others.append(_pole(vehicle, azimuth, rng))
        hidden_by.append('pole')
    elif hidden == 'wall':
        flat = light.sun[:2] / max(1e-6, float(np.linalg.norm(light.sun[:2])))
        turn = rng.normal(0, 0.5)
        c, s = np.cos(turn), np.sin(turn)
        towards = (float(c * flat[0] - s * flat[1]), float(s * flat[0] + c * flat[1]))
        distance = float(rng.uniform(4, 12))
        reach = distance * float(light.sun[2]) / max(0.05, float(np.linalg.norm(light.sun[:2]))) / np.cos(turn)
        wall = Wall(
            towards,
            distance,
            reach + float(rng.uniform(-0.6, 1.6)),
            (float(rng.uniform(-30, -2)), float(rng.uniform(2, 30))),
        )
        hidden_by.append('shadow')
    margin = tuple(rng.uniform(1.04, 1.32, 2))
    view = aim(
        vehicle.corners.reshape(-1, 3),
        height,
        pitch,
        azimuth,
        size,
        aside=aside,
        roll=rng.normal(0, 0.03),
        margin=margin,
        shift=tuple(shift),
    )
    caster = None
    if not clean and light.sunlight.max() > 0 and rng.uniform() < _CAST:
        caster = sample_shadow_pattern(assets.seed, flight.light.sun, spot, rng)
        left = caster.sun_left(vehicle.corners.reshape(-1, 3).T, light.sun, spot)
        if 'shadow' not in hidden_by and (left < 0.5).mean() > 0.02:
            hidden_by.append('shadow')
    if beside and _visible(solo, Scene([vehicle, *others]), view)[0] < 0.4:  # by those between it and the camera
        near = view.eye[:2] / np.linalg.norm(view.eye[:2])
        kept = [o for o in beside if (o.low[:2] + o.high[:2]) @ near < 0]
        others, beside = [o for o in others if not any(o is b for b in beside)] + kept, kept
    exposure = flight.exposure * float(np.exp(rng.normal(0, 0.07)))
    shot = Shot(
        view,
        Setting(flight.place, spot, light, wall, exposure, caster),
        tuple(others),
        ('neighbour',) * len(others),
        pitch=float(np.rad2deg(pitch)),
        heading=float(np.rad2deg(-azimuth)),
        hidden_by=tuple(hidden_by),
        neighbors=len(beside),
    )
    return render_shot(solo, shot, rng)


def render_shot(solo: Scene, shot: Shot, rng: np.random.Generator) -> Rendering:
    """Render a shot and say what is seen.

    Args:
        solo: the vehicle alone, in its own coordinates.
        shot: what is around it.
        rng: of soft shadows and of the grain of the ground.
    """
    vehicle, view = solo.solids[0], shot.view
    scene = Scene([vehicle, *shot.others]) if shot.others else solo
    pixels = render(scene, view, shot.setting, rng)
    visible, owners = _visible(solo, scene, view)
    flat = view.project(vehicle.corners.reshape(-1, 3))
    hidden_by = list(shot.hidden_by)
    if 'crop' in hidden_by and (flat >= 0).all() and (flat <= [view.width, view.height]).all():
        hidden_by.remove('crop')  # its margin was as wide as its shift
    if not {'tree', 'crop', 'pole'} & set(hidden_by) and visible < 0.97:
        hidden_by += sorted({shot.names[owner - 1] for owner in owners}) or ['neighbour']
    if shot.casts and _shaded(vehicle, scene, shot.setting) > 0.1:
        hidden_by.append('shadow')
    low = np.clip(flat.min(axis=0), 0, [view.width, view.height])
    high = np.clip(flat.max(axis=0), 0, [view.width, view.height])
    return Rendering(
        pixels,
        (*(float(v) for v in low), *(float(v) for v in high)),
        float(view.eye[2]),
        shot.pitch,
        float((shot.heading + 180) % 360 - 180),
        visible,
        tuple(hidden_by),
        shot.neighbors,
    )


def _shaded(vehicle: Solid, scene: Scene, setting: Setting) -> float:
    """Share of the vehicle's top that lies in the shadow of something else, from 84 rays; 0 where no sun shines."""
    if setting.light.sunlight.max() <= 0:
        return 0.0
    x, y = np.meshgrid(
        np.linspace(-0.9, 0.9, 14) * vehicle.footprint[0], np.linspace(-0.8, 0.8, 6) * vehicle.footprint[1]
    )
    top = np.stack([x.ravel(), y.ravel(), np.full(x.size, vehicle.high[2] + 0.02)], 1).astype(np.float32)
    towards = np.broadcast_to(setting.light.sun.astype(np.float32), top.shape)
    lit = scene.sunlit(top, None, np.ascontiguousarray(towards)) * past_wall(setting.wall, top.T, setting.light.sun)
    return float(1 - np.mean(lit))


def _visible(solo: Scene, scene: Scene, view: View) -> tuple[float, set[int]]:
    """Share of the vehicle's picture that can be seen, from some 900 rays, and which solids hide the rest."""
    flat = view.project(solo.solids[0].corners.reshape(-1, 3))
    low, high = flat.min(axis=0), flat.max(axis=0)
    step = max(0.25, float(np.sqrt(np.prod(high - low) / 900)))
    columns, rows = np.meshgrid(
        np.arange(low[0], high[0], step) + step / 2, np.arange(low[1], high[1], step) + step / 2
    )
    ways = view.rays(columns.ravel(), rows.ravel())
    alone, _ = solo.count(view.eye, ways)
    inside = (columns.ravel() > 0) & (columns.ravel() < view.width) & (rows.ravel() > 0) & (rows.ravel() < view.height)
    seen, owners = alone, set()
    if scene is not solo:
        met, owner = scene.count(view.eye, ways)
        seen = met[owner == 0]
        before = met[owner > 0]
        owners = {int(o) for o in owner[owner > 0][np.isin(before, alone)]}
    return float(np.count_nonzero(inside[seen]) / max(1, len(alone))), owners


# --- where vehicles stand ---------------------------------------------------------------------------------------------


def _park(
    flight: Flight, vehicle: Solid, rng: np.random.Generator, assets: AssetCache
) -> tuple[tuple[float, float, float], list[Solid]]:
    """Where the vehicle stands in the place, and the vehicles around it in its own coordinates."""
    place = flight.place
    half_length, half_width = vehicle.footprint
    x = float(rng.uniform(0, 600))
    # offsets (ahead, to the left) at which another may stand, with a probability; None: as far as sizes ask
    slots: list[tuple[str, float, float]] = []
    if place.kind in ('road', 'crossing', 'street'):
        lane = int(rng.integers(-place.lanes, place.lanes))
        y = (lane + 0.5) * place.lane + rng.normal(0, 0.2)
        heading = 0.0 if lane < 0 else np.pi
        if place.kind == 'street' and rng.uniform() < 0.6:  # at the curb
            y = np.sign(y) * (place.lane - half_width - 0.25)
            slots = [('ahead', 1, 0.55), ('ahead', -1, 0.55)]
        else:
            heading += rng.normal(0, 0.05)
            slots = [('ahead', 1, 0.22), ('ahead', -1, 0.22)]
        for other in (-1, 1):
            if -place.lanes <= lane + other < place.lanes:
                slots.append(('beside', other * (1 if heading < 1 else -1) * place.lane, 0.3))
        if rng.uniform() < 0.12:  # turning
            heading, slots = heading + rng.normal(0, 0.6), []
    elif place.kind == 'parking':
        if rng.uniform() < 0.75 and half_length < 4.5:
            bay = int(rng.integers(0, 200))
            x = (bay + 0.5) * place.lane
            y = float(rng.choice([5.5, 10.5])) + rng.normal(0, 0.15)
            heading = float(rng.choice([-1, 1])) * np.pi / 2 + rng.normal(0, 0.03)
            slots = [
                ('beside', place.lane, 0.55),
                ('beside', -place.lane, 0.55),
                ('ahead', 1, 0.3),
                ('ahead', -1, 0.15),
            ]
        else:
            y, heading = rng.normal(0, 0.8), float(rng.choice([0, np.pi])) + rng.normal(0, 0.15)
            slots = [('ahead', 1, 0.15)]
    else:
        y, heading = float(rng.uniform(-4, 4)), float(rng.uniform(-np.pi, np.pi))
        slots = [('beside', s * rng.uniform(2.4, 4.0), 0.25) for s in (-1, 1)]
    beside = []
    for kind, value, chance in slots:
        if rng.uniform() < chance:
            other = assets.neighbor(int(rng.integers(_NEIGHBORS)))
            turn = float(rng.choice([0, np.pi]) if place.kind in ('parking', 'yard', 'gravel') else 0) + rng.normal(
                0, 0.03
            )
            if kind == 'ahead':
                away = half_length + other.footprint[0] + rng.uniform(0.5, 2.5)
                beside.append(other.placed(float(value * away), float(rng.normal(0, 0.15)), turn))
            else:
                away = max(abs(value), half_width + other.footprint[1] + 0.45)
                along = rng.normal(0, 0.25) if place.kind != 'road' else rng.uniform(-4, 4)
                beside.append(other.placed(float(along), float(np.sign(value) * away), turn))
    return (x, float(y), float(heading)), _apart(beside)


def _apart(solids: list[Solid]) -> list[Solid]:
    """Without those that would stand in one already chosen."""
    kept: list[Solid] = []
    for solid in solids:
        if all((solid.low[:2] > o.high[:2]).any() or (o.low[:2] > solid.high[:2]).any() for o in kept):
            kept.append(solid)
    return kept


# --- what hides vehicles ----------------------------------------------------------------------------------------------


def _tree(rng: np.random.Generator) -> Solid:
    """A crown of leaves around the origin, some meters up."""
    count = 420
    radius, middle = rng.uniform(1.4, 2.6), rng.uniform(4.0, 6.0)
    way = rng.normal(0, 1, (count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    lumps = 1 + 0.25 * np.sin(way @ rng.normal(0, 3, (3, 3))).sum(axis=1, keepdims=True) / 2
    place = way * radius * lumps * rng.uniform(0.55, 1.0, (count, 1)) ** 0.7 * [1, 1, 0.75] + [0, 0, middle]
    leaf = rng.normal(0, 0.17, (count, 3, 3)) * rng.uniform(0.7, 1.5, (count, 1, 1))
    corners = (place[:, None] + leaf).astype(np.float32)
    normals = way + rng.normal(0, 0.4, way.shape) + [0, 0, 0.5]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    green = np.array([58, 78, 36]) * rng.uniform(0.7, 1.2) + rng.normal(0, 6, 3)
    tones = np.clip(green * rng.uniform(0.6, 1.4, (16, 1)), 8, 200)
    texels = np.column_stack([tones, np.full(16, MATT)]).astype(np.uint8)
    mesh = Mesh(
        corners, np.repeat(normals[:, None], 3, 1).astype(np.float32), rng.integers(0, 16, count).astype(np.int16)
    )
    trunk = cylinder((0, 0, 0), (0, 0, middle), 0.14, 0, 7)
    mesh = Mesh(*(np.concatenate([getattr(mesh, n), getattr(trunk, n)]) for n in ('corners', 'normals', 'colors')))
    places = (mesh.colors[:, None, None] * np.array([1, 0]) + 0.5).astype(np.float32) + np.zeros((1, 3, 1), np.float32)
    solid = make_solid(mesh, texels, places, 16, rays=0)
    solid.attributes[:count, :, 3] = np.clip(0.25 + 0.75 * (place[:, 2] - middle + radius) / (2 * radius), 0.2, 1)[
        :, None
    ]
    return solid


def _before(tree: Solid, vehicle: Solid, azimuth: float, pitch: float, rng: np.random.Generator) -> Solid:
    """The tree between the camera and a part of the vehicle."""
    middle = (tree.low[2] + tree.high[2]) * 0.6
    radius = (tree.high[0] - tree.low[0]) / 2
    angle = rng.uniform(-np.pi, np.pi)
    reach = np.array(vehicle.footprint) * rng.uniform(0.8, 1.0) + radius * rng.uniform(0.3, 0.75)
    x, y = reach[0] * np.cos(angle), reach[1] * np.sin(angle)
    back = middle / np.tan(pitch)
    return tree.placed(float(x - back * np.cos(azimuth)), float(y - back * np.sin(azimuth)), float(rng.uniform(0, 6)))


def _against(tree: Solid, vehicle: Solid, sun: np.ndarray, rng: np.random.Generator) -> Solid:
    """The tree between the sun and the vehicle."""
    middle = (tree.low[2] + tree.high[2]) * 0.6
    reach = rng.normal(0, 0.7, 2) * vehicle.footprint
    shift = sun[:2] / max(0.2, float(sun[2])) * middle
    return tree.placed(float(reach[0] + shift[0]), float(reach[1] + shift[1]), float(rng.uniform(0, 6)))


def _pole(vehicle: Solid, azimuth: float, rng: np.random.Generator) -> Solid:
    """A lamp post on the camera's side of the vehicle."""
    mesh = _pole_mesh(round(float(rng.uniform(0.07, 0.14)), 2))
    texels = np.array([[*([int(rng.uniform(50, 150))] * 3), MATT]], np.uint8)
    places = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
    solid = make_solid(mesh, texels, places, 1, rays=0)
    away = np.hypot(*vehicle.footprint) * 0.2 + vehicle.footprint[1] + rng.uniform(0.3, 1.2)
    side = rng.uniform(-0.6, 0.6) * vehicle.footprint[0]
    x, y = -away * np.cos(azimuth) - side * np.sin(azimuth), -away * np.sin(azimuth) + side * np.cos(azimuth)
    # not inside of the vehicle
    if abs(x) < vehicle.footprint[0] + 0.2 and abs(y) < vehicle.footprint[1] + 0.2:
        y = np.sign(y + 1e-9) * (vehicle.footprint[1] + 0.4)
    return solid.placed(float(x), float(y), float(rng.uniform(0, 6)))


@lru_cache(maxsize=16)
def _pole_mesh(radius: float) -> Mesh:
    post = cylinder((0, 0, 0), (0, 0, 7), radius, 0, 8)
    arm = cylinder((0, 0, 6.9), (1.6, 0, 7.1), radius * 0.7, 0, 6)
    return Mesh(*(np.concatenate([getattr(post, n), getattr(arm, n)]) for n in ('corners', 'normals', 'colors')))
