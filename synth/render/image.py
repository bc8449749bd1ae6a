"""From a scene, a light and a view to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..world.ground import Place, draw_patch
from ..world.occluders.shadow_patterns import ShadowPattern
from ..world.occluders.wall import Wall, past_wall
from .camera import View
from .shading import Light, shade, to_srgb
from .tracing import Scene, Solid

__all__ = ['Setting', 'render']


@dataclass(frozen=True)
class Setting:
    """Where the origin of a scene lies, and what is around it.

    Attributes:
        place: look of the ground.
        spot: `(x, y, heading)` of the scene's origin in coordinates of the place, meters and radians.
        light: light in coordinates of the scene.
        wall: wall that shades the scene, in its coordinates, or None.
        exposure: factor on all radiance.
        pattern: pattern of shadow over the place, or None.
        steady: whether stains belong to the place; otherwise they are sampled for this image.
    """

    place: Place
    spot: tuple[float, float, float]
    light: Light
    wall: Wall | None = None
    exposure: float = 1.0
    pattern: ShadowPattern | None = None
    steady: bool = False


def render(scene: Scene, view: View, setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Render the image that a perfect camera takes.

    Args:
        scene: solids.
        view: camera and crop.
        setting: ground and light.
        rng: generator of stains, grain and soft shadows.

    Returns:
        `(view.height, view.width, 3)` uint8 sRGB.
    """
    n = 2 if max(view.width, view.height) > 90 else 3  # samples per pixel and axis
    pixels = view.width * view.height
    light = setting.light
    chosen = _samples_near_solids(scene, view, n)
    row, column = np.divmod(chosen, view.width * n)
    directions = view.rays((column + np.float32(0.5)) / np.float32(n), (row + np.float32(0.5)) / np.float32(n))
    hits = scene.trace(view.eye, directions)
    row, column, directions = row[hits.rays], column[hits.rays], directions[hits.rays]
    sunlit = np.zeros(len(directions), np.float32)
    sun = _sun_directions(light, rng)
    if light.sunlight.max() > 0:
        towards = sun[row % 32, column % 32]
        some = np.flatnonzero(light.sun @ hits.normals > 0)
        sunlit[some] = scene.sunlit(hits.points[some], hits.normals[:, some], towards[some])
        sunlit *= past_wall(setting.wall, hits.points.T, light.sun)
        if setting.pattern is not None:
            some = np.flatnonzero(sunlit)
            sunlit[some] *= setting.pattern.sun_left(hits.points[some].T, light.sun, setting.spot)
    solid = shade(light, np.ascontiguousarray(directions.T), hits.normals, hits.ambient_occlusion, hits.texels, sunlit)
    solid *= np.float32(setting.exposure)
    np.minimum(solid, 2.5, out=solid)
    # one sample per pixel is enough for the ground, but not for its shadows
    pixel = row // n * view.width + column // n
    share = np.bincount(pixel, minlength=pixels).astype(np.float32) / np.float32(n * n)
    bare = np.flatnonzero(share < 0.999)
    color = np.stack([np.bincount(pixel, weights=plane, minlength=pixels) for plane in solid]).astype(np.float32)
    color /= np.float32(n * n)
    ground = _ground(scene, view, setting, bare, sun, rng)
    ground *= np.float32(setting.exposure)
    color[:, bare] += ground * (1 - share[bare])
    return to_srgb(color.T.reshape(view.height, view.width, 3))


def _sun_directions(light: Light, rng: np.random.Generator) -> np.ndarray:
    """Sample directions to points on the disk of the sun: a small tile that repeats, `(32, 32, 3)` float32."""
    side = np.cross(light.sun, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    up = np.cross(light.sun, side)
    angle, radius = rng.uniform(0, 2 * np.pi, (32, 32)), np.sqrt(rng.uniform(0, 1, (32, 32))) * light.angular_radius
    tile = light.sun + (radius * np.cos(angle))[..., None] * side + (radius * np.sin(angle))[..., None] * up
    return tile.astype(np.float32)


_SIGHT = 45.0  # meters behind the origin to which the ground is drawn
_FAN = np.arange(24) * (2 * np.pi / 24)


def _samples_near_solids(scene: Scene, view: View, n: int) -> np.ndarray:
    """Return indices of the samples inside a polygon of 24 sides around the outline of any solid."""
    directions = np.stack([np.cos(_FAN), np.sin(_FAN)], 1)
    mask = Image.new('1', (view.width * n, view.height * n))
    pen = ImageDraw.Draw(mask)
    for solid in scene.solids:
        flat = view.project(solid.points) * n
        reach = (flat @ directions.T).max(axis=0) + 1.5
        # where neighboring sides of the polygon meet
        after = np.roll(reach, -1)
        step = _FAN[1]
        along = (after - reach * np.cos(step)) / np.sin(step)
        polygon = reach[:, None] * directions + along[:, None] * np.stack([-directions[:, 1], directions[:, 0]], 1)
        pen.polygon([tuple(p) for p in polygon], fill=1)
    return np.flatnonzero(np.asarray(mask))


def _ground(
    scene: Scene, view: View, setting: Setting, pixels: np.ndarray, sun: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the radiance of the ground in the centers of some pixels, `(3, N)`."""
    light = setting.light
    if not len(pixels):
        return np.empty((3, 0), np.float32)
    row, column = np.divmod(pixels, view.width)
    points = _on_ground(view, column + np.float32(0.5), row + np.float32(0.5))
    # trees and houses, not ground, lie further away than the image needs
    across = np.hypot(points[0] - view.eye[0], points[1] - view.eye[1])
    far = np.float32(np.hypot(*view.eye[:2]) + _SIGHT)
    beyond = np.flatnonzero(across > far)
    if len(beyond):
        share = far / across[beyond]
        for axis in (0, 1):
            points[axis, beyond] += (view.eye[axis] - points[axis, beyond]) * (1 - share)
    # the pattern of the ground
    x, y, heading = setting.spot
    c, s = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    place = np.stack([c * points[0] - s * points[1], s * points[0] + c * points[1]])
    low = np.array([place[0].min(), place[1].min()])
    size = np.array([place[0].max(), place[1].max()]) - low
    texel = max(
        float(np.linalg.norm(view.eye)) / view.focal,
        0.01,
        float(np.sqrt(size[0] * size[1])) / 480,
        float(size.max()) / 4000,
    )
    low = low.astype(np.float32)
    start = low.astype(np.float64) + np.array([x, y])
    end = start + size.astype(np.float64) + 2 * texel
    patch = draw_patch(setting.place, start, end, texel, rng, steady=setting.steady)
    index = ((place - low[:, None]) * np.float32(1 / texel)).astype(np.int32)
    albedo = patch[index[1], index[0]].T
    # ambient occlusion by vehicles
    sky = np.ones(len(pixels), np.float32)
    for solid in scene.solids:
        if solid.footprint[0]:
            sky *= _ambient_occlusion(solid, points)
    direct = np.zeros(len(pixels), np.float32)
    if light.sunlight.max() > 0:
        direct[:] = light.sun[2]
        reached = np.zeros(len(pixels), bool)
        for solid in scene.solids:
            corners = np.stack(np.meshgrid(*zip(solid.low, solid.high, strict=True)), -1).reshape(-1, 3)
            shadow = corners[:, :2] - light.sun[:2] * (corners[:, 2:] / light.sun[2])
            x0, y0 = np.minimum(shadow.min(0), solid.low[:2]) - 0.2
            x1, y1 = np.maximum(shadow.max(0), solid.high[:2]) + 0.2
            reached |= (points[0] > x0) & (points[0] < x1) & (points[1] > y0) & (points[1] < y1)
        some = np.flatnonzero(reached)
        lit = np.zeros(len(some), np.float32)
        for a, b in ((0.25, 0.375), (0.75, 0.125), (0.375, 0.875), (0.875, 0.625)):
            near = _on_ground(view, column[some] + np.float32(a), row[some] + np.float32(b))
            towards = sun[(row[some] * 2 + int(b * 2)) % 32, (column[some] * 2 + int(a * 2)) % 32]
            lit += scene.sunlit(np.ascontiguousarray(near.T), None, towards)
        direct[some] *= lit / 4
        direct *= past_wall(setting.wall, points, light.sun)
        if setting.pattern is not None:
            direct *= setting.pattern.sun_left(points, light.sun, setting.spot)
    level = light.sky_on_ground()
    radiance = albedo * np.stack([sky * level[i] + direct * light.sunlight[i] for i in range(3)])
    if len(beyond):
        directions = view.rays(column[beyond] + np.float32(0.5), row[beyond] + np.float32(0.5)).T.copy()
        directions[2] = np.abs(directions[2] + np.float32(view.eye[2] / np.hypot(view.eye[2], far))) * np.float32(0.5)
        radiance[:, beyond] = light.mirrored(directions)
    return radiance


def _on_ground(view: View, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return where rays through points of the image, in pixels, meet the ground: `(3, N)` float32."""
    a = (columns - view.center[0]).astype(np.float32) / np.float32(view.focal)
    b = (rows - view.center[1]).astype(np.float32) / np.float32(view.focal)
    right, down, forward = view.axes.astype(np.float32)
    directions = [a * right[i] + b * down[i] + forward[i] for i in range(3)]
    reach = np.float32(-view.eye[2]) / np.minimum(directions[2], -1e-3)
    x, y = (directions[i] * reach + np.float32(view.eye[i]) for i in (0, 1))
    return np.stack([x, y, np.zeros_like(reach)])


def _ambient_occlusion(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Return the share of the sky that is left on the ground around the footprint of a solid, `(N,)`."""
    c, s = np.float32(np.cos(solid.heading)), np.float32(np.sin(solid.heading))
    middle = ((solid.low + solid.high) / 2)[:2].astype(np.float32)
    x, y = points[0] - middle[0], points[1] - middle[1]
    ahead = np.maximum(np.abs(c * x + s * y) - np.float32(solid.footprint[0]), 0)
    beside = np.maximum(np.abs(c * y - s * x) - np.float32(solid.footprint[1]), 0)
    distance = ahead * ahead + beside * beside
    near = 1 / (1 + distance * np.float32(1 / (0.22 * float(solid.high[2]) + 0.05) ** 2))
    return 1 - np.float32(0.58) * near - np.float32(0.32) * (distance <= 0)
