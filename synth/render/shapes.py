"""Triangle meshes: lofted bodies, boxes with rounded edges, cylinders, ellipsoids.

Vehicle coordinates in meters: x forwards, y to the left, z up, the origin on the ground below the middle. Faces turn
counter-clockwise seen from outside. Every corner of a triangle has a normal of its own, so that an edge can be
sharp or smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ['Mesh', 'box', 'corner_normals', 'cylinder', 'ellipsoid', 'join', 'loft']


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Attributes:
        corners: `(T, 3, 3)` float32, positions in meters.
        normals: `(T, 3, 3)` float32, of unit length, outwards.
        colors: `(T,)` int16, index of a plain color, or -1: colored by projection, see `paint`.
    """

    corners: np.ndarray
    normals: np.ndarray
    colors: np.ndarray

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Shift the mesh, in meters."""
        shift = np.array([x, y, z], np.float32)
        return Mesh(self.corners + shift, self.normals, self.colors)

    def mirrored(self) -> Mesh:
        """The same on the other side of the vehicle."""
        flip = np.array([1, -1, 1], np.float32)
        return Mesh((self.corners * flip)[:, ::-1], (self.normals * flip)[:, ::-1], self.colors)


def join(meshes: Sequence[Mesh]) -> Mesh:
    return Mesh(*(np.concatenate([getattr(m, name) for m in meshes]) for name in ('corners', 'normals', 'colors')))


def corner_normals(vertices: np.ndarray, faces: np.ndarray, crease: float = 40.0) -> np.ndarray:
    """Normals that are smooth across edges flatter than `crease` and sharp across the others.

    Args:
        vertices: `(V, 3)`.
        faces: `(T, 3)` indices.
        crease: degrees between two faces.

    Returns:
        `(T, 3, 3)` float32 of unit length.
    """
    corners = vertices[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = area / np.maximum(np.linalg.norm(area, axis=1, keepdims=True), 1e-12)
    # every corner meets all corners at the same vertex
    vertex = faces.reshape(-1)
    order = np.argsort(vertex, kind='stable')
    counts = np.bincount(vertex, minlength=len(vertices))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    table = starts[vertex][:, None] + np.arange(counts.max())
    valid = np.arange(counts.max()) < counts[vertex][:, None]
    around = order[np.where(valid, table, 0)] // 3
    own = np.arange(len(vertex)) // 3
    smooth = valid & (np.einsum('nd,nkd->nk', unit[own], unit[around]) > np.cos(np.deg2rad(crease)))
    total = np.einsum('nk,nkd->nd', smooth.astype(area.dtype), area[around])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    normals = np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    return normals.reshape(-1, 3, 3).astype(np.float32)


def loft(rings: np.ndarray, color: int = -1, crease: float = 50.0) -> Mesh:
    """A closed skin over rings that lie one behind the other and mirror themselves left to right.

    Args:
        rings: `(N, 2K, 3)` from the front to the rear; point k and point 2K - 1 - k of a ring are mirror images, the
            first is the lowest on the left.
        color: of all triangles.
        crease: degrees, see `corner_normals`.

    Returns:
        A mesh without holes.
    """
    stations, points, _ = rings.shape
    index = np.arange(stations * points).reshape(stations, points)
    here, behind = index[:-1], index[1:]
    skin = np.stack([here, behind, np.roll(behind, -1, 1), np.roll(here, -1, 1)], -1).reshape(-1, 4)
    quads = [skin]
    for station in (0, stations - 1):  # strips from the left to the right half
        left, right = index[station, : points // 2], index[station, : points // 2 - 1 : -1]
        face = np.stack([left[:-1], right[:-1], right[1:], left[1:]], -1)
        quads.append(face if station else face[:, ::-1])
    return _quads(rings.reshape(-1, 3), np.concatenate(quads), color, crease)


def _quads(vertices: np.ndarray, quads: np.ndarray, color: int, crease: float) -> Mesh:
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = faces[area > 1e-9]
    normals = corner_normals(vertices, faces, crease)
    return Mesh(vertices[faces].astype(np.float32), normals, np.full(len(faces), color, np.int16))


def box(low: Sequence[float], high: Sequence[float], radius: float = 0.03, color: int = -1) -> Mesh:
    """A box with rounded edges: 108 triangles, or 12 where the radius is 0."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    radius = min(radius, *(0.49 * (high - low)))
    steps = np.array([0.0, 1.0]) if radius <= 0 else np.array([0.0, 1.0, 2.0, 3.0])
    n = len(steps)
    corners, normals = [], []
    for axis in range(3):
        for side in (0, 1):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            grid = np.empty((n, n, 3))
            for along, order in ((u, np.arange(n)[:, None]), (v, np.arange(n)[None, :])):
                places = [low[along], high[along]]
                if n == 4:
                    places = [low[along], low[along] + radius, high[along] - radius, high[along]]
                grid[..., along] = np.asarray(places)[order]
            grid[..., axis] = high[axis] if side else low[axis]
            if radius > 0:
                core = np.clip(grid, low + radius, high - radius)
                normal = grid - core
                normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
                grid = core + radius * normal
            else:
                normal = np.zeros_like(grid)
                normal[..., axis] = 1 if side else -1
            pick = [
                (slice(None, -1), slice(None, -1)),
                (slice(1, None), slice(None, -1)),
                (slice(1, None), slice(1, None)),
                (slice(None, -1), slice(1, None)),
            ]
            order = pick if side else pick[::-1]
            quad = np.stack([grid[p] for p in order], -2).reshape(-1, 4, 3)
            quad_normals = np.stack([normal[p] for p in order], -2).reshape(-1, 4, 3)
            for triple in ([0, 1, 2], [0, 2, 3]):
                corners.append(quad[:, triple])
                normals.append(quad_normals[:, triple])
    triangles = np.concatenate(corners).astype(np.float32)
    return Mesh(triangles, np.concatenate(normals).astype(np.float32), np.full(len(triangles), color, np.int16))


def cylinder(
    start: Sequence[float], end: Sequence[float], radius: float, color: int, sides: int = 10, cap: int | None = None
) -> Mesh:
    """A round bar from `start` to `end`; `cap` is the color of its ends."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = (end - start) / np.linalg.norm(end - start)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
    normal = np.cos(angle) * side + np.sin(angle) * up
    low, high = start + radius * normal, end + radius * normal
    a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
    na, nb = normal[:-1], normal[1:]
    start_ring, end_ring = np.broadcast_to(start, a.shape), np.broadcast_to(end, a.shape)
    corners = [np.stack(t, 1) for t in ((a, b, c), (a, c, d), (start_ring, b, a), (end_ring, d, c))]
    flat = np.broadcast_to(axis, a.shape)
    normals = [np.stack(t, 1) for t in ((na, nb, nb), (na, nb, na), (-flat, -flat, -flat), (flat, flat, flat))]
    colors = np.full(4 * sides, color, np.int16)
    colors[2 * sides :] = color if cap is None else cap
    return Mesh(np.concatenate(corners).astype(np.float32), np.concatenate(normals).astype(np.float32), colors)


def ellipsoid(center: Sequence[float], radii: Sequence[float], color: int, rows: int = 6, sides: int = 10) -> Mesh:
    """A round lump."""
    polar = np.linspace(0, np.pi, rows + 1)[:, None]
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None]
    ball = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar) + 0 * angle], -1)
    normal = ball / np.asarray(radii)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    place = np.asarray(center) + ball * np.asarray(radii)

    def quads(grid: np.ndarray) -> np.ndarray:
        a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
        flat = [x.reshape(-1, 3) for x in (a, b, c, d)]
        return np.concatenate([np.stack(flat[:3], 1), np.stack([flat[0], flat[2], flat[3]], 1)])

    corners, normals = quads(place), quads(normal)
    keep = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 1e-9
    corners, normals = corners[keep].astype(np.float32), normals[keep].astype(np.float32)
    return Mesh(corners, normals, np.full(len(corners), color, np.int16))
