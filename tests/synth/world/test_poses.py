"""Poses of cameras: heights, pitches and directions."""

import numpy as np
import pytest

from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.camera import aim
from timm_dpa.synth.render.tracing import Solid
from timm_dpa.synth.vehicles.build import build_solid
from timm_dpa.synth.world.poses import sample_pose


@pytest.fixture(scope='module')
def car() -> Solid:
    return build_solid(Plan(2, seed=5).identity(0))[0]


class TestPoses:
    def test_flights_reach_low_pitch_and_height(self, flights):
        pitch, height = (np.array([getattr(f, name) for f in flights]) for name in ('pitch', 'height'))
        assert 0.15 < (pitch < 40).mean() < 0.38
        assert pitch.min() < 19
        assert pitch.max() > 85
        assert height.min() < 10
        assert height.max() > 90
        low = [f.place.kind for f in flights if f.pitch < 40]
        assert np.mean([kind in ('road', 'crossing', 'street') for kind in low]) > 0.6

    def test_low_views_are_of_ends_mostly_rears(self, flights, car):
        rng = np.random.default_rng(0)
        low = next(f for f in flights if f.pitch < 25)
        azimuths = np.array([sample_pose(low, car, rng).azimuth for _ in range(800)])
        # the camera looks along x at the rear
        rear, front = np.cos(azimuths) > np.cos(np.pi / 4), np.cos(azimuths) < -np.cos(np.pi / 4)
        assert 0.5 < rear.mean() < 0.8
        assert 0.15 < front.mean() < 0.4
        high = next(f for f in flights if 50 < f.pitch < 70)
        azimuths = np.array([sample_pose(high, car, rng).azimuth for _ in range(800)])
        assert (np.cos(azimuths) > np.cos(np.pi / 4)).mean() < 0.35

    def test_the_camera_points_past_the_vehicle_in_all_directions(self, flights, car):
        rng, off = np.random.default_rng(1), []
        for _ in range(15):
            for flight in flights:
                pose = sample_pose(flight, car, rng)
                assert 8 <= pose.height <= 120
                assert 14.99 < np.rad2deg(pose.pitch) < 89.91
                view = aim(car.corners.reshape(-1, 3), pose.height, pose.pitch, pose.azimuth, 128, aside=pose.aside)
                seen = (car.corners.reshape(-1, 3) - view.eye) @ view.axes.T
                assert np.rad2deg(np.arctan2(np.hypot(*seen[:, :2].T), seen[:, 2])).max() < 75
                assert view.axes[2, 2] < 0.01  # not into the sky
                origin = view.axes @ -view.eye
                off.append(np.rad2deg(np.arctan2(origin[:2], origin[2])))
        off = np.array(off)
        angle = np.hypot(*off.T)
        assert 30 < np.quantile(angle, 0.995) < 38
        assert np.median(angle) > 10
        for x in (-1, 1):
            for y in (-1, 1):
                assert ((off * [x, y]).min(axis=1) > 8).mean() > 0.02
