"""Vehicles of all kinds: closed bodies, sizes, lamps and plates."""

from collections import Counter

import numpy as np
import pytest

from tests.support.meshes import as_trimesh
from timm_dpa.synth.render.camera import aim
from timm_dpa.synth.render.image import Setting, render
from timm_dpa.synth.render.tracing import Scene
from timm_dpa.synth.vehicles.body import KINDS
from timm_dpa.synth.vehicles.build import build_body, build_solid
from timm_dpa.synth.vehicles.catalog import sample_identity, sample_model
from timm_dpa.synth.world.flights import sample_flight

SHAPE = dict.fromkeys('abcdefgh', 0.5)
NEW_KINDS = ('minibus', 'tipper', 'semitrailer', 'container', 'skeleton', 'tanker')


class TestKinds:
    @pytest.mark.parametrize('kind', NEW_KINDS)
    def test_every_new_kind_is_seen_from_above_behind_and_beside(self, kind):
        """Its picture has the size that its meters ask for, and colors of more than one part."""
        number = next(n for n in range(1000) if sample_model(3, n).kind == kind)
        solid, body = build_solid(sample_identity(3, number, sample_model(3, number), 1))
        scene, flight = Scene([solid]), sample_flight(3, 4, 0)
        for pitch, azimuth in ((88, 0.0), (20, 0.0), (40, np.pi / 2)):
            view = aim(solid.corners.reshape(-1, 3), 60, np.deg2rad(pitch), azimuth, 160)
            pixels = render(
                scene, view, Setting(flight.place, (50.0, 1.0, 0.0), flight.light), np.random.default_rng(0)
            )
            columns, rows = np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5)
            seen = scene.find_solids(view.eye, view.rays(columns.ravel(), rows.ravel()))[0]
            assert pixels.reshape(-1, 3)[seen].std(axis=0).max() > 12
            # meters a pixel, in the middle
            pixel = np.linalg.norm(view.eye) / view.focal
            wide, tall = (np.ptp(v.ravel()[seen]) * pixel for v in (columns, rows))
            across = body.width if azimuth == 0 else body.length
            assert 0.93 * across < wide < 1.12 * across + 0.8
            if pitch == 88:
                assert 0.95 * body.length < tall < 1.1 * body.length

    def test_rear_lamps_and_plates_are_seen_from_behind(self):
        """Red to both sides and a pale or yellow plate between them, of most cars."""
        lamps = plates = 0
        for number in range(12):
            model = next(m for m in (sample_model(4, n) for n in range(20 * number, 999)) if m.kind in ('suv', 'sedan'))
            solid, body = build_solid(sample_identity(4, number, model, 0))
            y, z = np.meshgrid(np.linspace(-0.5, 0.5, 120) * body.width, np.linspace(0.3, 1.2, 80))
            origin = np.array([-40.0, 0, 0.8])
            ways = np.stack([np.full(y.size, 40 - body.length / 2), y.ravel(), z.ravel() - 0.8], 1)
            hits = Scene([solid]).trace(origin, (ways / np.linalg.norm(ways, axis=1, keepdims=True)).astype(np.float32))
            red, green, blue, _ = hits.texels.astype(int).T
            side = hits.points[:, 1] / body.width
            lamp = (red > 110) & (green < 40) & (blue < 40)
            lamps += (side[lamp] > 0.25).sum() > 20 and (side[lamp] < -0.25).sum() > 20
            plate = (red > 195) & (green > 150) & (np.abs(side) < 0.17) & (hits.points[:, 2] < 0.95)
            plates += plate.sum() > 30 and body.length > 3
        assert lamps >= 10
        assert plates >= 8


class TestBodies:
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
