"""What `images.csv` says about still images against their pixels."""

from dataclasses import replace

import numpy as np
import pytest

from timm_dpa.synth.images import render_stills
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.camera import View
from timm_dpa.synth.render.tracing import Scene
from timm_dpa.synth.vehicles.build import build_solid
from timm_dpa.synth.world.assets import AssetCache
from timm_dpa.synth.world.flights import sample_flight
from timm_dpa.synth.world.stills import render_still


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
        assert len(Scene([solid]).find_solids(away.eye, away.rays(columns.ravel(), rows.ravel()))[0]) == 0
