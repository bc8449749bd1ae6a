"""Palms and lamp posts."""

import numpy as np

from timm_dpa.synth.world.occluders.plants import make_palm, make_post


def test_plants_stand_on_the_ground():
    for make, least in ((make_palm, 5), (make_post, 6)):
        for seed in range(4):
            solid = make(np.random.default_rng(seed))
            assert solid.low[2] > -0.2
            assert least - 0.1 < solid.high[2] < 12
            assert np.allclose(np.linalg.norm(solid.attributes[..., :3], axis=-1), 1, atol=0.01)
