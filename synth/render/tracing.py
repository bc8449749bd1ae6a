"""Ray tracing with Embree: what rays hit in a scene of solids, and whether the sun reaches a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError("rendering needs embreex: pip install 'timm-dpa[synth]'", name=error.name) from error

from .shapes import Mesh

__all__ = ['Hits', 'Scene', 'Solid', 'make_solid']

_NUDGE = 0.006  # meters off a surface where a second ray starts


@dataclass(frozen=True)
class Solid:
    """Something to trace and shade.

    Attributes:
        corners: `(T, 3, 3)` float32, meters.
        attributes: `(T, 3, 6)` float32 of each corner: normal, ambient occlusion factor (1 = open sky), and texture
            coordinates (column, row).
        texels: `(N, 4)` uint8: red, green, blue, material.
        columns: number of columns of the texture.
        low, high: `(3,)` corners of the bounding box.
        footprint: half length and half width on the ground, meters; 0 where it darkens no ground.
        heading: direction of the footprint, radians counterclockwise.
    """

    corners: np.ndarray
    attributes: np.ndarray
    texels: np.ndarray
    columns: int
    low: np.ndarray
    high: np.ndarray
    footprint: tuple[float, float] = (0.0, 0.0)
    heading: float = 0.0

    @property
    def points(self) -> np.ndarray:
        """`(3 T, 3)` positions of all corners, meters."""
        return self.corners.reshape(-1, 3)

    def placed(self, x: float, y: float, heading: float) -> Solid:
        """Return it rotated by `heading` (radians counterclockwise) and moved to `x`, `y` (meters)."""
        c, s = np.float32(np.cos(heading)), np.float32(np.sin(heading))
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        corners = self.corners @ turn + np.array([x, y, 0], np.float32)
        attributes = self.attributes.copy()
        attributes[..., :3] = self.attributes[..., :3] @ turn
        flat = corners.reshape(-1, 3)
        return Solid(corners, attributes, self.texels, self.columns, flat.min(0), flat.max(0), self.footprint, heading)


def make_solid(
    mesh: Mesh,
    texels: np.ndarray,
    coordinates: np.ndarray,
    columns: int,
    footprint: tuple[float, float] = (0.0, 0.0),
    rays: int = 24,
) -> Solid:
    """Make a solid of a mesh and its texture; `rays` at each corner find the ambient occlusion, 0 for none."""
    ambient_occlusion = _ambient_occlusion(mesh, rays) if rays else np.ones(mesh.corners.shape[:2], np.float32)
    attributes = np.concatenate([mesh.normals, ambient_occlusion[..., None], coordinates], axis=-1).astype(np.float32)
    flat = mesh.corners.reshape(-1, 3)
    corners = np.ascontiguousarray(mesh.corners, np.float32)
    return Solid(corners, attributes, np.ascontiguousarray(texels), columns, flat.min(0), flat.max(0), footprint)


def _ambient_occlusion(mesh: Mesh, rays: int) -> np.ndarray:
    """Return `(T, 3)`: the share of the directions above each corner, weighted by cosine, that hit no other surface."""
    index = np.arange(rays) + 0.5
    angle, radius = index * 2.399963, np.sqrt(index / rays)
    fan = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], -1).astype(np.float32)
    points = np.concatenate([mesh.corners, mesh.normals], -1).reshape(-1, 6)
    keys = np.round(points * 500).astype(np.int32)
    _, first, inverse = np.unique(
        keys @ np.array([1, 7919, 104729, 1299709, 15485863, 32452843]), return_index=True, return_inverse=True
    )
    origin, normal = points[first, :3], points[first, 3:]
    side = np.cross(normal, np.where(np.abs(normal[:, 2:]) < 0.9, [[0, 0, 1]], [[1, 0, 0]]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(normal, side)
    directions = fan[:, 0, None, None] * side + fan[:, 1, None, None] * up + fan[:, 2, None, None] * normal
    # a little inwards along the surface, or edges would see into themselves
    origins = np.broadcast_to(origin + normal * 0.02, directions.shape)
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.corners, np.float32))
    free = scene.run(
        np.ascontiguousarray(origins, np.float32).reshape(-1, 3),
        directions.reshape(-1, 3).astype(np.float32),
        query='OCCLUDED',
    )
    share = (free.reshape(rays, -1) < 0).mean(axis=0, dtype=np.float32)
    return share[inverse.reshape(-1)].reshape(mesh.corners.shape[:2])


@dataclass
class Hits:
    """What rays hit; N of them hit a solid.

    Attributes:
        rays: `(N,)` indices of the rays.
        points: `(N, 3)` float32, meters.
        normals: `(3, N)` float32 of unit length.
        ambient_occlusion: `(N,)` float32, 1 = open sky.
        texels: `(N, 4)` uint8: red, green, blue, material.
    """

    rays: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    ambient_occlusion: np.ndarray
    texels: np.ndarray


class Scene:
    """Solids in one coordinate system; the ground is the plane z = 0 and no part of it."""

    def __init__(self, solids: Sequence[Solid]) -> None:
        self.solids = list(solids)
        corners = np.concatenate([s.corners for s in solids])
        # planes of normal, ambient occlusion, column and row of each corner: numpy is fast on long rows
        self._planes = np.concatenate([s.attributes.reshape(-1, 18).T for s in solids], axis=1)
        self._texels = np.concatenate([s.texels for s in solids]).view(np.uint32).ravel()
        self._columns = np.array([s.columns for s in solids], np.int32)
        self._starts = np.cumsum([0, *[len(s.texels) for s in solids]])[:-1].astype(np.int32)
        self._owner = np.repeat(np.arange(len(solids), dtype=np.int32), [len(s.corners) for s in solids])
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(corners))

    def trace(self, origin: np.ndarray, directions: np.ndarray) -> Hits:
        """Find what rays hit first.

        Args:
            origin: `(3,)` origin of all rays.
            directions: `(R, 3)` float32, unit length.
        """
        rays, triangles, u, v, distance = self.intersect(origin, directions)
        mixed = np.take(self._planes, triangles, axis=1)
        first, second, third = mixed[:6], mixed[6:12], mixed[12:]
        first *= 1 - u - v
        second *= u
        third *= v
        first += second
        first += third
        normals = first[:3]
        normals /= np.sqrt(normals[0] * normals[0] + normals[1] * normals[1] + normals[2] * normals[2])
        points = directions[rays] * distance[:, None] + origin.astype(np.float32)
        owner = self._owner[triangles]
        index = first[5].astype(np.int32) * self._columns[owner] + first[4].astype(np.int32) + self._starts[owner]
        return Hits(rays, points, normals, first[3], self._texels[index].view(np.uint8).reshape(-1, 4))

    def find_solids(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find which of `(R, 3)` rays hit a solid, and which solid: `(N,)` indices of rays and of solids."""
        rays, triangles, *_ = self.intersect(origin, directions)
        return rays, self._owner[triangles]

    def intersect(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Find hits without shading: `(N,)` indices of rays, indices of triangles, u, v and distances in meters."""
        origins = np.empty_like(directions)
        origins[:] = origin
        found = self._scene.run(origins, directions, output=1)
        rays = np.flatnonzero(found['primID'] >= 0)
        return rays, found['primID'][rays], found['u'][rays], found['v'][rays], found['tfar'][rays]

    def sunlit(self, points: np.ndarray, normals: np.ndarray | None, towards: np.ndarray) -> np.ndarray:
        """Return 1 where nothing lies between a point and the sun, else 0: `(N,)` float32.

        Args:
            points: `(N, 3)` float32, meters.
            normals: `(3, N)` normals of the surfaces there, or None on the ground.
            towards: `(N, 3)` float32 directions to the sun.
        """
        origins = points + (_NUDGE * normals.T if normals is not None else np.array([0, 0, _NUDGE], np.float32))
        return (self._scene.run(origins, towards, query='OCCLUDED') < 0).astype(np.float32)
