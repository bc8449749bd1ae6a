"""Paths that vehicles drive."""

import numpy as np
import pytest

from timm_dpa.synth.world.ground import TRACK_PLACES, Place
from timm_dpa.synth.world.tracks.paths import sample_path


@pytest.mark.parametrize('kind', TRACK_PLACES)
def test_paths_keep_to_the_road(kind):
    radius = {'roundabout': 14.0, 'bend': 40.0, 'junction': 0.0}[kind]
    place = Place(kind, (100, 100, 100), (60, 90, 50), 3.5, 2, 0.8, 0.5, 3, radius)
    for seed in range(20):
        path = sample_path(place, np.random.default_rng(seed))
        points = path.at(np.linspace(0, path.length, 50))
        assert np.allclose(np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1), path.length / 49, rtol=0.03)
        course = np.rad2deg(np.ptp(points[:, 2]))
        if radius:
            assert (np.abs(np.hypot(points[:, 0], points[:, 1]) - radius) < 3.5).all()
            assert course < 305
        else:
            assert 65 < course < 190
