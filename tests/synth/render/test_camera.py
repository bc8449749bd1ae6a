"""The camera against float64 formulas."""

import numpy as np
import pytest

from timm_dpa.synth.render.camera import View, aim


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


def test_a_view_of_known_pose_keeps_its_focal_length():
    """The two ways to make a crop agree."""
    from timm_dpa.synth.render.camera import aim, crop_view

    points = np.random.default_rng(0).uniform(-2, 2, (50, 3))
    one = aim(points, 30, 1.2, 0.4, 120, roll=0.1)
    two = crop_view(points, one.eye, one.axes, focal=one.focal)
    assert isinstance(two, View)
    assert (one.width, one.height, one.center) == (two.width, two.height, two.center)
