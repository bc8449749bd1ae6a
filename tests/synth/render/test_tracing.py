"""Rays and shadows against float64 formulas."""

import numpy as np
import pytest

from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.shapes import Mesh, box, ellipsoid
from timm_dpa.synth.render.tracing import Scene, Solid, make_solid
from timm_dpa.synth.vehicles.build import build_solid


def solid_of(mesh: Mesh) -> Solid:
    """Of a single gray, without the sky's share."""
    places = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
    return make_solid(mesh, np.array([[128, 128, 128, 0]], np.uint8), places, 1, rays=0)


def nearest_hits(corners: np.ndarray, origin: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Distance to the nearest triangle along each ray, inf without one: Moeller and Trumbore, float64."""
    a, b, c = np.moveaxis(corners.astype(np.float64), 1, 0)
    found = []
    for way in ways.astype(np.float64):
        p = np.cross(way, c - a)
        det = np.einsum('td,td->t', b - a, p)
        with np.errstate(divide='ignore', invalid='ignore'):
            u = np.einsum('td,td->t', origin - a, p) / det
            q = np.cross(origin - a, b - a)
            v = q @ way / det
            distance = np.einsum('td,td->t', c - a, q) / det
        hit = (np.abs(det) > 1e-14) & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
        found.append(distance[hit].min() if hit.any() else np.inf)
    return np.array(found)


def spread(count: int, seed: int = 0) -> np.ndarray:
    ways = np.random.default_rng(seed).normal(size=(count, 3))
    return ways / np.linalg.norm(ways, axis=1, keepdims=True)


class TestRays:
    def test_sphere(self):
        scene = Scene([solid_of(ellipsoid((3, 0, 2), (1, 1, 1), 0, rows=120, sides=240))])
        ways, to_center = spread(4000).astype(np.float32), np.array([3.0, 0, 2])
        hits = scene.trace(np.zeros(3), ways)
        along = ways.astype(np.float64) @ to_center
        inside = 1 - (to_center @ to_center - along**2)
        assert set(hits.rays) >= set(np.flatnonzero((inside > 0.01) & (along > 0)))
        assert set(hits.rays) <= set(np.flatnonzero((inside > 0) & (along > 0)))
        clear = inside[hits.rays] > 0.05
        distance = (along - np.sqrt(np.maximum(inside, 0)))[hits.rays]
        points = ways[hits.rays] * distance[:, None]
        assert np.abs(hits.points - points)[clear].max() < 3e-3
        assert np.einsum('dn,nd->n', hits.normals, points - to_center)[clear].min() > 0.999

    def test_vehicle_and_tiles_before_it(self):
        solid, _ = build_solid(Plan(2, seed=5).identity(0))
        others = [solid, solid_of(box((2, -1, 2.5), (3, 1, 3), 0.0))]
        scene, origin = Scene(others), np.array([5.0, 3.0, 9.0])
        targets = np.random.default_rng(1).uniform([-3, -2, 0], [3, 2, 2], (300, 3))
        ways = ((targets - origin) / np.linalg.norm(targets - origin, axis=1, keepdims=True)).astype(np.float32)
        expected = nearest_hits(np.concatenate([s.corners for s in others]), origin, ways)
        hits = scene.trace(origin, ways)
        assert 100 < len(hits.rays) < 300
        # a ray along an edge may miss in one of the two
        assert len(set(hits.rays) ^ set(np.flatnonzero(np.isfinite(expected)))) <= 2
        distance = np.linalg.norm(hits.points - origin, axis=1)
        both = np.isfinite(expected[hits.rays])
        assert np.quantile(np.abs(distance - expected[hits.rays])[both], 0.99) < 1e-3
        rays, owners = scene.find_solids(origin, ways)
        assert (rays == hits.rays).all()
        assert {0, 1} == set(owners)
        first = nearest_hits(solid.corners, origin, ways[rays])
        assert ((np.abs(first - distance) < 1e-3) == (owners == 0))[both].mean() > 0.99

    def test_shadow_of_a_box(self):
        scene = Scene([solid_of(box((-1, -1, 1), (1, 1, 2), 0.0))])
        sun = np.array([0.6, 0, 0.8])
        x, y = np.meshgrid(np.linspace(-5, 5, 101) + 0.013, np.linspace(-3, 3, 61) + 0.013)
        points = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
        lit = scene.sunlit(points, None, np.broadcast_to(sun, points.shape).astype(np.float32))
        # a point lies in the shadow if its line to the sun is above the box's footprint between its heights
        shaded = (np.abs(points[:, 1]) < 1) & (points[:, 0] < 1 - 0.75 * 1) & (points[:, 0] > -1 - 0.75 * 2)
        assert (lit == 1 - shaded).mean() > 0.995

    def test_a_solid_that_was_placed(self):
        solid = solid_of(box((-2, -1, 0), (2, 1, 1), 0.0)).placed(10, 5, np.pi / 2)
        assert solid.low == pytest.approx([9, 3, 0], abs=1e-5)
        assert solid.high == pytest.approx([11, 7, 1], abs=1e-5)
