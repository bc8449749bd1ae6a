"""Palms and posts, which stand beside roads and throw shadows on them."""

from __future__ import annotations

import numpy as np

from ..render.tracing import Solid, make_solid
from ..vehicles.shapes import Mesh, cylinder
from ..vehicles.swatches import MATT

__all__ = ['make_palm', 'make_post']


def _joined(*meshes: Mesh) -> Mesh:
    return Mesh(*(np.concatenate([getattr(mesh, n) for mesh in meshes]) for n in ('corners', 'normals', 'colors')))


def _plain(mesh: Mesh, colors: np.ndarray) -> Solid:
    """A matt solid; `colors` `(N, 3)` sRGB are what the mesh's numbers stand for."""
    texels = np.column_stack([np.clip(colors, 4, 240), np.full(len(colors), MATT)]).astype(np.uint8)
    places = (mesh.colors[:, None, None] * np.array([1, 0]) + 0.5).astype(np.float32) + np.zeros((1, 3, 1), np.float32)
    return make_solid(mesh, texels, places, len(texels), rays=0)


def make_palm(rng: np.random.Generator) -> Solid:
    """A palm around the origin: a bare trunk of 5 to 9 m and 12 to 20 fronds that arch and hang."""
    height, reach = rng.uniform(5.0, 9.0), rng.uniform(1.7, 2.8)
    corners, normals = [], []
    fronds = int(rng.integers(12, 21))
    for frond in range(fronds):
        azimuth = 2 * np.pi * (frond + rng.uniform(-0.3, 0.3)) / fronds
        rise, droop = rng.uniform(0.1, 1.0), rng.uniform(1.0, 2.0)
        ahead, side = (
            np.array([np.cos(azimuth), np.sin(azimuth), 0.0]),
            np.array([-np.sin(azimuth), np.cos(azimuth), 0.0]),
        )
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
    leaves = Mesh(
        shape.astype(np.float32),
        np.repeat(normal[:, None], 3, 1).astype(np.float32),
        rng.integers(1, 12, len(shape)).astype(np.int16),
    )
    trunk = cylinder((0, 0, 0), (0, 0, height), float(rng.uniform(0.14, 0.24)), 0, 8)
    green = np.array([70, 88, 44]) * rng.uniform(0.7, 1.2) + rng.normal(0, 6, 3)
    tones = np.concatenate([[[104, 92, 76]], green * rng.uniform(0.55, 1.35, (11, 1))])
    return _plain(_joined(leaves, trunk), tones)


def make_post(rng: np.random.Generator) -> Solid:
    """A lamp post of 6 to 9 m around the origin with one arm or two, or a sign on a post."""
    height, radius = rng.uniform(6, 9), float(rng.uniform(0.06, 0.12))
    parts = [cylinder((0, 0, 0), (0, 0, height), radius, 0, 8)]
    for sign in (1, -1)[: int(rng.integers(1, 3))]:
        parts.append(cylinder((0, 0, height - 0.1), (sign * 1.7, 0, height + 0.15), radius * 0.7, 0, 6))
        parts.append(cylinder((sign * 1.3, 0, height + 0.1), (sign * 2.1, 0, height + 0.2), 0.14, 1, 6))
    gray = rng.uniform(60, 160)
    return _plain(_joined(*parts), np.array([[gray] * 3, [190] * 3]))
