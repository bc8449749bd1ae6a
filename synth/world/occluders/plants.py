"""Trees, palms and posts, which stand beside roads and cast shadows on them."""

from __future__ import annotations

import numpy as np

from ...render.shapes import Mesh, cylinder, join
from ...render.tracing import Solid, make_solid
from ...vehicles.swatches import MATT

__all__ = ['make_palm', 'make_pole', 'make_post', 'make_tree']


def _matt_solid(mesh: Mesh, tones: np.ndarray) -> Solid:
    """Make a matt solid; `tones` `(N, 3)` sRGB are the colors whose indices the mesh has."""
    texels = np.column_stack([np.clip(tones, 4, 240), np.full(len(tones), MATT)]).astype(np.uint8)
    coordinates = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
    coordinates[..., 0] += mesh.colors[:, None]
    return make_solid(mesh, texels, coordinates, len(texels), rays=0)


def make_tree(rng: np.random.Generator) -> Solid:
    """Build a crown of leaves around the origin, some meters up, on a trunk."""
    count = 420
    radius, middle = rng.uniform(1.4, 2.6), rng.uniform(4.0, 6.0)
    out = rng.normal(0, 1, (count, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    lumps = 1 + 0.25 * np.sin(out @ rng.normal(0, 3, (3, 3))).sum(axis=1, keepdims=True) / 2
    centers = out * radius * lumps * rng.uniform(0.55, 1.0, (count, 1)) ** 0.7 * [1, 1, 0.75] + [0, 0, middle]
    leaf = rng.normal(0, 0.17, (count, 3, 3)) * rng.uniform(0.7, 1.5, (count, 1, 1))
    corners = (centers[:, None] + leaf).astype(np.float32)
    normals = out + rng.normal(0, 0.4, out.shape) + [0, 0, 0.5]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    green = np.array([58, 78, 36]) * rng.uniform(0.7, 1.2) + rng.normal(0, 6, 3)
    tones = np.clip(green * rng.uniform(0.6, 1.4, (16, 1)), 8, 200)
    colors = rng.integers(0, 16, count).astype(np.int16)
    leaves = Mesh(corners, np.repeat(normals[:, None], 3, 1).astype(np.float32), colors)
    solid = _matt_solid(join([leaves, cylinder((0, 0, 0), (0, 0, middle), 0.14, 0, 7)]), tones)
    open_sky = np.clip(0.25 + 0.75 * (centers[:, 2] - middle + radius) / (2 * radius), 0.2, 1)
    solid.attributes[:count, :, 3] = open_sky[:, None]
    return solid


def make_palm(rng: np.random.Generator) -> Solid:
    """Build a palm at the origin: a bare trunk of 5 to 9 m and 12 to 20 fronds that arch and hang."""
    height, reach = rng.uniform(5.0, 9.0), rng.uniform(1.7, 2.8)
    corners, normals = [], []
    fronds = int(rng.integers(12, 21))
    for frond in range(fronds):
        azimuth = 2 * np.pi * (frond + rng.uniform(-0.3, 0.3)) / fronds
        rise, droop = rng.uniform(0.1, 1.0), rng.uniform(1.0, 2.0)
        ahead = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        side = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        along = np.linspace(0.05, 1, 10)
        rib = along[:, None] * ahead * reach
        rib[:, 2] = height + rise * along - droop * along**2
        leaf = 0.62 * reach / 2.2 * np.sin(np.pi * np.clip(along * 0.9 + 0.08, 0, 1)) ** 0.6
        for k in range(len(along) - 1):
            for sign in (-1, 1):
                tip = rib[k] + side * sign * leaf[k] + ahead * 0.35 * leaf[k] - [0, 0, 0.35 * leaf[k]]
                width = (rib[k + 1] - rib[k]) * 0.55
                corners.append([rib[k], rib[k] + width, tip])
                normals.append(side * sign * 0.35 + ahead * 0.2 + [0, 0, 0.9])
    shape = np.array(corners, np.float32)
    shape += rng.normal(0, 0.02, shape.shape)
    normal = np.array(normals)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    colors = rng.integers(1, 12, len(shape)).astype(np.int16)
    leaves = Mesh(shape.astype(np.float32), np.repeat(normal[:, None], 3, 1).astype(np.float32), colors)
    trunk = cylinder((0, 0, 0), (0, 0, height), float(rng.uniform(0.14, 0.24)), 0, 8)
    green = np.array([70, 88, 44]) * rng.uniform(0.7, 1.2) + rng.normal(0, 6, 3)
    tones = np.concatenate([[[104, 92, 76]], green * rng.uniform(0.55, 1.35, (11, 1))])
    return _matt_solid(join([leaves, trunk]), tones)


def make_post(rng: np.random.Generator) -> Solid:
    """Build a lamp post of 6 to 9 m at the origin, with one arm or two."""
    height, radius = rng.uniform(6, 9), float(rng.uniform(0.06, 0.12))
    parts = [cylinder((0, 0, 0), (0, 0, height), radius, 0, 8)]
    for sign in (1, -1)[: int(rng.integers(1, 3))]:
        parts.append(cylinder((0, 0, height - 0.1), (sign * 1.7, 0, height + 0.15), radius * 0.7, 0, 6))
        parts.append(cylinder((sign * 1.3, 0, height + 0.1), (sign * 2.1, 0, height + 0.2), 0.14, 1, 6))
    gray = rng.uniform(60, 160)
    return _matt_solid(join(parts), np.array([[gray] * 3, [190] * 3]))


def make_pole(rng: np.random.Generator) -> Solid:
    """Build a plain lamp post of 7 m at the origin, with one arm."""
    radius = round(float(rng.uniform(0.07, 0.14)), 2)
    post = cylinder((0, 0, 0), (0, 0, 7), radius, 0, 8)
    arm = cylinder((0, 0, 6.9), (1.6, 0, 7.1), radius * 0.7, 0, 6)
    return _matt_solid(join([post, arm]), np.array([[int(rng.uniform(50, 150))] * 3]))
