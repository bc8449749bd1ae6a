"""Reflections in paint and glass against formulas."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from timm_dpa.synth.render.shading import shade
from timm_dpa.synth.vehicles.swatches import GLASS, MATT, PAINT
from timm_dpa.synth.world.sky import REACH, SIZE


def upward(count: int, seed: int = 0) -> np.ndarray:
    """Unit directions above the horizon, `(3, N)`."""
    ways = np.random.default_rng(seed).normal(size=(3, count))
    ways[2] = np.abs(ways[2])
    return (ways / np.linalg.norm(ways, axis=0)).astype(np.float32)


def map_of(radiance) -> np.ndarray:
    """A map of the surroundings by polar coordinates: the radius is tan of half the angle from the zenith."""
    middle = (np.arange(SIZE) + 0.5 - SIZE / 2) * 2 * REACH / SIZE
    radius, around = np.hypot(middle[None], middle[:, None]), np.arctan2(middle[:, None], middle[None])
    angle = 2 * np.arctan(radius)
    flat = radiance(np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle))
    return np.repeat(flat.reshape(1, -1), 3, 0).astype(np.float32)


class TestMirror:
    def test_directions(self, flights):
        light = replace(flights[0].light, surroundings=map_of(lambda x, y, z: 2 + x + 0.5 * y - 0.7 * z), angle=0.0)
        ways = upward(3000)
        ways = ways[:, ways[2] > 0.02]
        x, y, z = ways
        assert np.abs(light.mirrored(ways) - (2 + x + 0.5 * y - 0.7 * z)).max() < 0.03
        # in coordinates turned by a quarter, what lay along x lies along -y
        assert np.abs(light.rotated(np.pi / 2).mirrored(ways) - (2 - y + 0.5 * x - 0.7 * z)).max() < 0.03

    def test_a_bright_patch_moves_with_the_view(self, flights):
        """Over a sphere, it is where the normal halves the angle between the eye and the patch."""
        patch = np.array([0.6, 0.0, 0.8])
        sky = map_of(lambda x, y, z: np.exp(200 * (x * patch[0] + y * patch[1] + z * patch[2] - 1)))
        light = replace(flights[0].light, surroundings=sky, angle=0.0, sunlight=np.zeros(3, np.float32))
        normals, ones = upward(20000, 1), np.ones(20000, np.float32)
        texels = np.tile(np.array([[8, 8, 9, PAINT]], np.uint8), (20000, 1))
        found = []
        for azimuth, pitch in ((0.3, 0.6), (2.0, 1.0), (-2.4, 1.4)):
            eye = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), np.sin(pitch)])
            views = np.repeat(-eye[:, None], 20000, 1).astype(np.float32)
            facing = eye @ normals > 0.2
            color = shade(light, views, normals, ones, texels, 0 * ones)[1] * facing
            expected = (eye + patch) / np.linalg.norm(eye + patch)
            assert normals[:, color.argmax()] @ expected > np.cos(np.deg2rad(4))
            found.append(normals[:, color.argmax()])
        assert all(a @ b < 0.97 for a, b in pairwise(found))

    def test_glass_and_dark_paint_change_with_the_direction_and_matt_does_not(self, flights):
        """A level roof from 24 directions: how far its brightness varies, in stops."""
        around = np.arange(24) * 2 * np.pi / 24
        views = -np.stack([0.5 * np.cos(around), 0.5 * np.sin(around), np.full(24, 0.866)]).astype(np.float32)
        normals, ones = np.tile(np.array([[0], [0], [1]], np.float32), (1, 24)), np.ones(24, np.float32)
        spread = {}
        for name, rgb, material in (('glass', 14, GLASS), ('paint', 22, PAINT), ('matt', 22, MATT)):
            texels = np.tile(np.array([[rgb, rgb, rgb, material]], np.uint8), (24, 1))
            stops = [np.log2(shade(f.light, views, normals, ones, texels, ones)[1]) for f in flights]
            spread[name] = np.median([np.ptp(s) for s in stops])
        assert spread['glass'] > 1
        assert spread['paint'] > 0.7
        assert spread['matt'] < 0.5 * spread['paint']
