"""The ground: tones of places, and what stays between two images."""

import numpy as np

from timm_dpa.synth.world.ground import Place, draw_patch


class TestGround:
    def test_places_keep_their_tone_and_no_two_visits_look_alike(self, flights):
        for flight in flights[:24]:
            place, low = flight.place, np.array([100.0, -2.0])
            visits = [draw_patch(place, low, low + np.array([6, 4]), 0.03, np.random.default_rng(n)) for n in range(6)]
            base = ((np.array(place.base) / 255 + 0.055) / 1.055) ** 2.4
            # markings and what is beside the road are the place's own
            medians = np.array([np.median(visit, axis=(0, 1)) for visit in visits])
            assert (np.ptp(np.log(medians), axis=0) < 0.45).all()
            if place.kind in ('yard', 'gravel'):
                assert np.abs(np.log(medians / base)).max() < 0.4
            fine = [np.log(visit[..., 1] / np.roll(visit[..., 1], 1, 0)).std() for visit in visits]
            assert max(fine) > 1.1 * min(fine)
            assert np.isfinite(visits).all()
            assert np.min(visits) > 0

    def test_the_ground_is_the_same_from_two_frames(self):
        place = Place('roundabout', (100, 100, 100), (60, 90, 50), 3.5, 2, 0.8, 0.9, 3, 14.0)
        low = np.array([10.0, -4.0])
        one, two = (
            draw_patch(place, low + shift, low + shift + 6, 0.05, np.random.default_rng(seed), steady=True)
            for seed, shift in ((1, 0.0), (2, 1.0))
        )
        here, there = one[20:120, 20:120].mean(2), two[:100, :100].mean(2)

        def coarse(v):
            return v.reshape(20, 5, 20, 5).mean((1, 3)).ravel()

        assert np.corrcoef(coarse(here), coarse(there))[0, 1] > 0.95
