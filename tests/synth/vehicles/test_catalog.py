"""Sampled vehicles: shares of kinds and colors, look-alikes, and what tells siblings apart."""

import colorsys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.camera import aim
from timm_dpa.synth.render.image import Setting, render
from timm_dpa.synth.render.tracing import Scene
from timm_dpa.synth.vehicles.build import build_solid
from timm_dpa.synth.vehicles.catalog import sample_identity, sample_model
from timm_dpa.synth.vehicles.identity import Identity
from timm_dpa.synth.world.flights import sample_flight

#: in per cent
KINDS = {
    'sedan': 20, 'suv': 20, 'hatchback': 16.5, 'estate': 8.5, 'van': 8, 'pickup': 6, 'box_truck': 4.5, 'flatbed': 4,
    'bus': 3, 'minibus': 2.5, 'semitrailer': 2.5, 'container': 1.5, 'tipper': 1, 'skeleton': 1, 'tanker': 1,
}  # fmt: skip


#: of cars
COLORS = {'white': 25, 'grey': 20, 'black': 19, 'silver': 13, 'blue': 9, 'red': 6.5, 'brown': 2.5, 'green': 2}


@pytest.fixture(scope='module')
def population() -> list[Identity]:
    """Every one of a model of its own."""
    return [sample_identity(7, n, sample_model(7, n), 0) for n in range(3000)]


def is_near(count: int, total: int, percent: float) -> bool:
    """Within four standard deviations of a binomial share."""
    p = percent / 100
    return abs(count - total * p) < 4 * np.sqrt(total * p * (1 - p))


class TestShares:
    def test_kinds(self, population):
        counts = Counter(identity.model.kind for identity in population)
        assert counts.keys() == KINDS.keys()
        for kind, percent in KINDS.items():
            assert is_near(counts[kind], len(population), percent), kind

    def test_colors(self, population):
        cars = [i for i in population if i.model.kind in ('sedan', 'hatchback', 'estate', 'suv', 'pickup')]
        counts = Counter(identity.paint.name for identity in cars)
        for name, percent in COLORS.items():
            assert is_near(counts[name], len(cars), percent), name
        assert 0.7 < sum(counts[n] for n in ('white', 'grey', 'black', 'silver')) / len(cars) < 0.84
        trucks = Counter(i.paint.name for i in population if i.model.kind in ('van', 'box_truck', 'flatbed'))
        assert is_near(trucks['white'], trucks.total(), 62)

    def test_names_are_what_the_colors_look_like(self, population):
        hues = {'red': (330, 20), 'blue': (200, 240), 'green': (80, 170), 'yellow': (35, 60), 'orange': (10, 35)}
        brightness = {name: [] for name in ('black', 'grey', 'silver', 'white')}
        for identity in population:
            name = identity.paint.name
            hue, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in identity.paint.rgb))
            if name in hues:
                low, high = hues[name]
                assert (hue * 360 - low) % 360 <= (high - low) % 360, identity.paint
            elif name in brightness:
                brightness[name].append(value)
                assert name == 'black' or saturation < 0.25
        means = [np.mean(brightness[name]) for name in ('black', 'grey', 'silver', 'white')]
        assert np.diff(means).min() > 0.1

    @pytest.mark.parametrize('share', [0.0, 0.3, 0.8, 1.0])
    def test_look_alikes_follow_their_option(self, share):
        plan = Plan(1500, seed=2, alike=share, siblings=5)
        groups = np.array_split([plan.identity(n) for n in range(plan.ids)], plan.models)
        assert all(len({i.model.number for i in group}) == 1 for group in groups)
        alike = sum(len({(i.paint.rgb, i.second.rgb) for i in group}) == 1 for group in groups)
        assert is_near(alike, plan.models, 100 * share) if 0 < share < 1 else alike == share * plan.models


SIBLINGS = Plan(15, seed=6, alike=1, siblings=5)


def look_at(number: int) -> np.ndarray:
    """`(H, W, 3)` of a vehicle alone, always in the same place, light and view."""
    flight = sample_flight(1, 3, 0)
    corners = np.array([[x, y, z] for x in (-3, 3) for y in (-1.2, 1.2) for z in (0, 2)])
    view = aim(corners, 30, np.deg2rad(62), 0.6, 128)
    solid, _ = build_solid(SIBLINGS.identity(number))
    setting = Setting(flight.place, (20.0, 0.0, 0.0), flight.light)
    return render(Scene([solid]), view, setting, np.random.default_rng(0)).astype(float)


@pytest.fixture(scope='module')
def looks() -> np.ndarray:
    """`(15, H, W, 3)`: three models of five."""
    return np.stack([look_at(number) for number in range(15)])


class TestSiblings:
    """Vehicles of one model and color."""

    def test_their_rows_differ_in_details_only(self):
        for first in range(0, 15, 5):
            rows = [SIBLINGS.identity(first + n).row() for n in range(5)]
            for name in rows[0].keys() - {'vehicle', 'details', 'detail_values'}:
                assert len({row[name] for row in rows}) == 1, name
            assert len({row['detail_values'] for row in rows}) == 5

    def test_every_two_can_be_told_apart(self, looks):
        for first in range(0, 15, 5):
            for a, b in combinations(range(first, first + 5), 2):
                assert (np.abs(looks[a] - looks[b]).max(axis=2) > 25).mean() > 0.002, (a, b)

    def test_they_are_more_alike_than_others(self, looks):
        distances = np.abs(looks[:, None] - looks[None]).mean(axis=(2, 3, 4))
        model = np.arange(15) // 5
        same = model[:, None] == model
        assert distances[same & ~np.eye(15, dtype=bool)].mean() < 0.5 * distances[~same].mean()

    def test_the_same_vehicle_looks_the_same(self, looks):
        assert np.array_equal(look_at(4), looks[4])
