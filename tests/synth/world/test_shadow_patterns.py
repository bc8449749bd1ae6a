"""Patterns of shadow: fixed in the place, cast along the sun, and as frequent as they should be."""

import numpy as np
import pytest

from timm_dpa.synth.images import render_stills
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.shapes import cylinder
from timm_dpa.synth.render.tracing import Scene, make_solid
from timm_dpa.synth.vehicles.swatches import MATT
from timm_dpa.synth.world.assets import AssetCache
from timm_dpa.synth.world.occluders.shadow_patterns import PATTERNS, ShadowPattern, sample_shadow_pattern


def pole_pattern(poles) -> ShadowPattern:
    return ShadowPattern('poles', None, (0.0, 0.0), 1.0, 0.0, np.empty((0, 5)), np.array(poles, float))


class TestShadowPatterns:
    SUN = np.array([0.48, -0.36, 0.8])

    @pytest.mark.parametrize('kind', PATTERNS)
    def test_it_is_fixed_in_the_place_and_thrown_along_the_sun(self, kind):
        rng = np.random.default_rng(4)
        spot = (212.0, 3.0, 0.7)
        caster = sample_shadow_pattern(1, self.SUN, spot, rng, kind)
        place = np.stack([rng.uniform(205, 219, 4000), rng.uniform(-4, 10, 4000), rng.uniform(0, 1, 4000)])

        def seen_from(spot, place):
            c, s = np.cos(spot[2]), np.sin(spot[2])
            into = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
            points = into @ (place - np.array([[spot[0]], [spot[1]], [0]]))
            return caster.sun_left(points.astype(np.float32), (into @ self.SUN).astype(np.float32), spot)

        here = seen_from(spot, place)
        assert here.shape == (4000,)
        assert 0 <= here.min() < 0.4
        assert here.max() == 1
        for other in ((209.0, -1.5, -2.0), (215.0, 6.0, 0.7)):
            assert (np.abs(seen_from(other, place) - here) < 0.05).mean() > 0.99
        # up along the ray to the sun, nothing changes before the pattern
        higher = place + self.SUN[:, None] * rng.uniform(0, 0.2, 4000)
        assert (np.abs(seen_from(spot, higher) - here) < 0.05).mean() > 0.99
        moved = place + np.array([[0.6], [0.3], [0]])
        assert (np.abs(seen_from(spot, moved) - here) > 0.3).mean() > 0.01

    def test_poles_shade_what_a_traced_cylinder_shades(self):
        mesh = cylinder((2.0, 1.0, 0.0), (2.0, 1.0, 4.0), 0.3, 0, 40)
        places = np.full((len(mesh.corners), 3, 2), 0.5, np.float32)
        scene = Scene([make_solid(mesh, np.array([[9, 9, 9, MATT]], np.uint8), places, 1, rays=0)])
        rng = np.random.default_rng(0)
        points = np.stack([rng.uniform(-1, 3, 6000), rng.uniform(0, 4, 6000), rng.uniform(0, 2, 6000)]).astype(
            np.float32
        )
        points = points[:, np.hypot(points[0] - 2, points[1] - 1) > 0.35]
        sun = self.SUN.astype(np.float32)
        traced = scene.sunlit(np.ascontiguousarray(points.T), None, np.tile(sun, (points.shape[1], 1)))
        ours = pole_pattern([[2.0, 1.0, 0.3, 4.0]]).sun_left(points, sun, (0.0, 0.0, 0.0))
        assert 0.03 < (traced == 0).mean() < 0.3
        assert ((ours < 0.5) == (traced == 0)).mean() > 0.985

    def test_a_third_of_the_sunny_images_has_one_and_the_table_says_so(self):
        plan = Plan(12, 12, seed=8, sizes=(24, 24), test_share=0, degradation=0)
        assets, flights, sunny, shaded = AssetCache(plan.seed), {}, 0, 0
        for number in range(plan.ids):
            for _, _, _, row in render_stills(plan, number, assets, flights):
                if flights[int(row[2])].light.sunlight.max() > 0:
                    sunny += 1
                    shaded += 'shadow' in row[11].split()
        assert sunny > 80
        assert 0.25 < shaded / sunny < 0.5
