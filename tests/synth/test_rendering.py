"""The renderer's geometry against float64 formulas, trimesh, and its own pictures."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from timm_dpa.synth.dataset import Plan, render_stills
from timm_dpa.synth.render.camera import View, aim
from timm_dpa.synth.render.tracing import Scene, Solid, build_solid, make_solid
from timm_dpa.synth.vehicles.body import KINDS, build_body
from timm_dpa.synth.vehicles.shapes import Mesh, box, cylinder, ellipsoid
from timm_dpa.synth.world.flights import sample_flight
from timm_dpa.synth.world.scenes import AssetCache, render_still

SHAPE = dict.fromkeys('abcdefgh', 0.5)


def solid_of(mesh: Mesh) -> Solid:
    """Of a single gray, without the sky's share."""
    places = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
    return make_solid(mesh, np.array([[128, 128, 128, 0]], np.uint8), places, 1, rays=0)


def as_trimesh(mesh: Mesh, digits: int = 5) -> trimesh.Trimesh:
    """With corners merged that lie in one place."""
    points = mesh.corners.reshape(-1, 3).astype(np.float64)
    result = trimesh.Trimesh(points, np.arange(len(points)).reshape(-1, 3), process=False)
    result.merge_vertices(merge_norm=True, merge_tex=True, digits_vertex=digits)
    return result


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


class TestCamera:
    CORNERS = np.array([[x, y, z] for x in (-2.2, 2.2) for y in (-0.9, 0.9) for z in (0.0, 1.5)])

    @pytest.mark.parametrize(
        ('height', 'pitch', 'azimuth', 'size'), [(15, 35, 0, 300), (40, 62, 110, 96), (120, 88, -75, 30)]
    )
    def test_a_box_is_where_a_pinhole_sees_it(self, height, pitch, azimuth, size):
        dip, turn = np.deg2rad(pitch), np.deg2rad(azimuth)
        view = aim(self.CORNERS, height, dip, turn, size, margin=(1.0, 1.0))
        # K [R | t] of a camera that looks at the origin, upright
        forward = np.array([np.cos(dip) * np.cos(turn), np.cos(dip) * np.sin(turn), -np.sin(dip)])
        eye = -forward * height / np.sin(dip)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        seen = (self.CORNERS - eye) @ np.stack([right, np.cross(forward, right), forward]).T
        plane = seen[:, :2] / seen[:, 2:]
        focal = size / np.ptp(plane, axis=0).max()
        expected = (plane - plane.min(axis=0)) * focal
        assert eye[2] == pytest.approx(height)
        assert (view.width, view.height) == tuple(np.round(np.ptp(expected, axis=0)))
        # the crop's sides are whole pixels
        assert np.abs(view.project(self.CORNERS) - expected).max() < 0.51
        assert np.abs(np.ptp(view.project(self.CORNERS), axis=0) - np.ptp(expected, axis=0)).max() < 1e-6

    def test_straight_down_and_near_things_are_larger(self):
        view = aim(self.CORNERS, 30, np.pi / 2, 0, 200)
        flat = view.project(self.CORNERS)
        low, high = flat[self.CORNERS[:, 2] == 0], flat[self.CORNERS[:, 2] == 1.5]
        for points, distance in ((low, 30), (high, 28.5)):
            assert sorted(np.ptp(points, axis=0)) == pytest.approx(
                [1.8 * view.focal / distance, 4.4 * view.focal / distance]
            )

    def test_margin_shift_and_rays(self):
        view = aim(self.CORNERS, 25, 0.9, 2.0, 256, aside=(0.2, -0.1), roll=0.05, margin=(1.25, 1.5), shift=(0.2, -0.1))
        flat = view.project(self.CORNERS)
        extent, sides = np.ptp(flat, axis=0), np.array([view.width, view.height])
        assert sides / extent == pytest.approx([1.25, 1.5], rel=0.01)
        middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
        assert (sides / 2 - middle) / extent == pytest.approx([0.2, -0.1], abs=1e-6)
        assert max(sides) == 256
        ways = self.CORNERS - view.eye
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        assert np.abs(view.rays(flat[:, 0], flat[:, 1]) - ways).max() < 1e-6


class TestMeshes:
    def test_volumes(self):
        block = as_trimesh(box((0, -1, 0.5), (4, 1, 2), 0.0))
        assert block.is_watertight
        assert block.volume == pytest.approx(12)
        rounded = as_trimesh(box((0, -1, 0.5), (4, 1, 2), 0.1))
        assert rounded.is_watertight
        assert 11.6 < rounded.volume < 12
        bar = as_trimesh(cylinder((0, 0, 0), (1, 2, 2), 0.3, 0, 12))
        assert bar.is_watertight
        assert bar.volume == pytest.approx(12 / 2 * np.sin(2 * np.pi / 12) * 0.3**2 * 3, rel=1e-4)
        lump = as_trimesh(ellipsoid((1, 1, 1), (0.5, 0.4, 0.3), 0, rows=40, sides=60))
        assert lump.is_watertight
        assert lump.volume == pytest.approx(4 / 3 * np.pi * 0.5 * 0.4 * 0.3, rel=0.01)

    @pytest.mark.parametrize('kind', KINDS)
    def test_bodies_are_closed_and_have_their_size(self, kind):
        length, width, height = (sum(span) / 2 for span in KINDS[kind])
        body = build_body(kind, {**SHAPE, 'length': length, 'width': width, 'height': height})
        mesh = as_trimesh(body.mesh)
        # closed, and faces turn alike: each edge is passed as often one way as the other
        edges = Counter(map(tuple, mesh.edges.tolist()))
        assert all(edges[b, a] == count for (a, b), count in edges.items())
        # a skeleton trailer has a cab and beams
        least = 0.08 if kind == 'skeleton' else 0.25
        assert least * length * width * height < mesh.volume < length * width * height
        flat = body.mesh.corners.reshape(-1, 3)
        assert np.ptp(flat[:, 0]) == pytest.approx(length, rel=0.02)
        assert flat[:, 2].min() == pytest.approx(0, abs=0.02)  # tires are polygons
        assert flat[:, 2].max() == pytest.approx(height, rel=0.03)
        assert width <= np.ptp(flat[:, 1]) <= width + 0.6  # mirrors

    def test_normals_are_of_unit_length_and_of_their_faces(self):
        for kind in KINDS:
            size = dict(zip(('length', 'width', 'height'), (span[0] for span in KINDS[kind]), strict=True))
            mesh = build_body(kind, {**SHAPE, **size}).mesh
            assert np.linalg.norm(mesh.normals, axis=2) == pytest.approx(1, abs=1e-4)
            a, b, c = np.moveaxis(mesh.corners.astype(np.float64), 1, 0)
            face = np.cross(b - a, c - a)
            face /= np.linalg.norm(face, axis=1, keepdims=True)
            cosines = np.einsum('td,tkd->tk', face, mesh.normals)
            assert np.quantile(cosines, 0.02) > 0.6


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
        assert {0, 1} == set(hits.solids)
        rays, owners = scene.count(origin, ways)
        assert (rays == hits.rays).all()
        assert (owners == hits.solids).all()

    def test_shadow_of_a_box(self):
        scene = Scene([solid_of(box((-1, -1, 1), (1, 1, 2), 0.0))])
        sun = np.array([0.6, 0, 0.8])
        x, y = np.meshgrid(np.linspace(-5, 5, 101) + 0.013, np.linspace(-3, 3, 61) + 0.013)
        points = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
        lit = scene.sunlit(points, None, np.broadcast_to(sun, points.shape).astype(np.float32))
        # a point lies in the shadow if its line to the sun is above the box's foot print between its heights
        shaded = (np.abs(points[:, 1]) < 1) & (points[:, 0] < 1 - 0.75 * 1) & (points[:, 0] > -1 - 0.75 * 2)
        assert (lit == 1 - shaded).mean() > 0.995

    def test_a_solid_that_was_placed(self):
        solid = solid_of(box((-2, -1, 0), (2, 1, 1), 0.0)).placed(10, 5, np.pi / 2)
        assert solid.low == pytest.approx([9, 3, 0], abs=1e-5)
        assert solid.high == pytest.approx([11, 7, 1], abs=1e-5)


@pytest.fixture(scope='module')
def photos() -> list[tuple]:
    """(what changed, box, share that is visible, what hides it) of 20 images."""
    plan = Plan(4, 10, seed=11, sizes=(110, 110), degradation=0, test_share=0)
    assets, found = AssetCache(plan.seed), []
    for number in range(2):
        solid, _ = build_solid(plan.identity(number))
        texels = solid.texels.copy()
        texels[:, :3] = np.where(texels[:, :3] < 128, 235, 20)
        scene = Scene([replace(solid, texels=texels)])
        rows = render_stills(plan, number, assets, {})
        for (n, flight, _), (_, _, pixels, row) in zip(plan.shots(number), rows, strict=True):
            rng = np.random.default_rng([plan.seed, number, n, 21])
            other = render_still(assets, scene, sample_flight(plan.seed, flight, 0), 110, rng)
            changed = np.abs(pixels.astype(int) - other.pixels).max(axis=2) > 6
            found.append((changed, [float(v) for v in row[6:10]], float(row[10]), row[11].split()))
    return found


class TestPictures:
    """The vehicle's pixels are those that change with its colors: what `images.csv` says is true of the picture."""

    def test_boxes(self, photos):
        free = [(changed, sides) for changed, sides, visible, hidden in photos if visible > 0.99 and not hidden]
        assert len(free) >= 6
        for changed, sides in free:
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == pytest.approx(sides, abs=2.5)

    def test_what_is_hidden(self, photos):
        for changed, (left, top, right, bottom), visible, hidden in photos:
            rows, columns = np.nonzero(changed)
            assert columns.min() >= left - 1.5
            assert columns.max() <= right + 1.5
            assert rows.min() >= top - 1.5
            assert rows.max() <= bottom + 1.5
            if 'crop' in hidden:
                height, width = changed.shape
                assert left == 0 or top == 0 or right == width or bottom == height
            if not set(hidden) - {'shadow'}:
                assert visible >= 0.97
        assert sum(bool(hidden) for *_, hidden in photos) >= 3
        assert all(0 < visible <= 1 for _, _, visible, _ in photos)

    def test_a_view_that_sees_nothing_of_it(self):
        solid, _ = build_solid(Plan(2, seed=5).identity(0))
        away = View(np.array([0, 0, 30.0]), np.diag([1.0, -1, -1]), 50.0, (-500.0, 500.0), 40, 40)
        columns, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5)
        assert len(Scene([solid]).count(away.eye, away.rays(columns.ravel(), rows.ravel()))[0]) == 0
