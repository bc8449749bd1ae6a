"""Triangle meshes: lofted bodies, boxes with rounded edges, cylinders, ellipsoids.

Vehicle coordinates are in meters: x forward, y to the left, z up, with the origin on the ground below the middle. Faces
are counterclockwise seen from outside. Each corner of a triangle has its own normal, so that edges can be sharp or
smooth.
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
        corners: `(T, 3, 3)` float32 positions, meters.
        normals: `(T, 3, 3)` float32 outward unit normals.
        colors: `(T,)` int16 indices of plain colors; -1 takes the color from the texture, see `Atlas`.
    """

    corners: np.ndarray
    normals: np.ndarray
    colors: np.ndarray

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Shift the mesh, in meters."""
        shift = np.array([x, y, z], np.float32)
        return Mesh(self.corners + shift, self.normals, self.colors)

    def mirrored(self) -> Mesh:
        """Mirror the mesh to the other side of the vehicle."""
        flip = np.array([1, -1, 1], np.float32)
        return Mesh((self.corners * flip)[:, ::-1], (self.normals * flip)[:, ::-1], self.colors)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Join meshes into one."""
    return Mesh(*(np.concatenate([getattr(m, name) for m in meshes]) for name in ('corners', 'normals', 'colors')))


def corner_normals(vertices: np.ndarray, faces: np.ndarray, crease: float = 40.0) -> np.ndarray:
    """Compute normals that are smooth across edges flatter than `crease` and sharp across the others.

    Args:
        vertices: `(V, 3)`.
        faces: `(T, 3)` indices.
        crease: angle between two faces, degrees.

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
    """Build a closed skin over symmetric rings that lie one behind the other.

    Args:
        rings: `(N, 2K, 3)` from the front to the rear; points k and 2K - 1 - k of a ring are mirror images, and the
            first is the lowest on the left.
        color: color of all triangles.
        crease: angle in degrees, see `corner_normals`.
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
    """Build a box with rounded edges between two corners: 108 triangles, or 12 with radius 0; meters."""
    start, end = np.asarray(low, np.float64), np.asarray(high, np.float64)
    radius = min(radius, *(0.49 * (end - start)))
    rounded = radius > 0
    marks = np.stack([start, start + radius, end - radius, end] if rounded else [start, end], 1)
    corners, normals = [], []
    for axis in range(3):
        for side in (0, 1):
            grid = np.empty((marks.shape[1], marks.shape[1], 3))
            u, v = (axis + 1) % 3, (axis + 2) % 3
            grid[..., u], grid[..., v], grid[..., axis] = marks[u][:, None], marks[v], (start, end)[side][axis]
            normal = np.zeros_like(grid)
            normal[..., axis] = 1 if side else -1
            if rounded:
                core = np.clip(grid, start + radius, end - radius)
                normal = grid - core
                normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
                grid = core + radius * normal
            corners.append(_triangles(grid, flipped=not side))
            normals.append(_triangles(normal, flipped=not side))
    return _plain_mesh(np.concatenate(corners), np.concatenate(normals), color)


def _triangles(grid: np.ndarray, *, flipped: bool = False) -> np.ndarray:
    """Return `(T, 3, 3)`: two triangles for each cell of an `(M, N, 3)` grid."""
    cells = [grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]]
    quads = np.stack(cells[::-1] if flipped else cells, -2).reshape(-1, 4, 3)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _plain_mesh(corners: np.ndarray, normals: np.ndarray, color: int) -> Mesh:
    return Mesh(corners.astype(np.float32), normals.astype(np.float32), np.full(len(corners), color, np.int16))


def cylinder(
    start: Sequence[float], end: Sequence[float], radius: float, color: int, sides: int = 10, cap: int | None = None
) -> Mesh:
    """Build a round bar from `start` to `end`, in meters; `cap` is the color of its ends."""
    first, last = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = (last - first) / np.linalg.norm(last - first)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
    normal = np.cos(angle) * side + np.sin(angle) * up
    low, high = first + radius * normal, last + radius * normal
    a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
    na, nb = normal[:-1], normal[1:]
    start_ring, end_ring = np.broadcast_to(first, a.shape), np.broadcast_to(last, a.shape)
    corners = [np.stack(t, 1) for t in ((a, b, c), (a, c, d), (start_ring, b, a), (end_ring, d, c))]
    flat = np.broadcast_to(axis, a.shape)
    normals = [np.stack(t, 1) for t in ((na, nb, nb), (na, nb, na), (-flat, -flat, -flat), (flat, flat, flat))]
    colors = np.full(4 * sides, color, np.int16)
    colors[2 * sides :] = color if cap is None else cap
    return Mesh(np.concatenate(corners).astype(np.float32), np.concatenate(normals).astype(np.float32), colors)


def ellipsoid(center: Sequence[float], radii: Sequence[float], color: int, rows: int = 6, sides: int = 10) -> Mesh:
    """Build an ellipsoid; center and radii in meters."""
    polar = np.linspace(0, np.pi, rows + 1)[:, None]
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None]
    ball = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar) + 0 * angle], -1)
    normal = ball / np.asarray(radii)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    place = np.asarray(center) + ball * np.asarray(radii)

    corners, normals = _triangles(place), _triangles(normal)
    keep = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 1e-9
    return _plain_mesh(corners[keep], normals[keep], color)
