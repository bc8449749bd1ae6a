"""What the camera does to an image, against scipy, PIL and formulas in float64."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from timm_dpa.train.data.sensor import Sensor, degrade, draw_sensor, vary


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    """Smooth, with edges; no value is cut off by the effects below."""
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, (40, 56, 3)), (4, 4, 0)) * 150 + 118
    blobs[10:22, 14:40] += [30, -20, 10]
    return np.clip(blobs, 60, 190).astype(np.uint8)


def gauss(work: np.ndarray, sigma: float) -> np.ndarray:
    reach = max(1, int(np.ceil(2.5 * sigma)))
    for axis in (0, 1):
        work = ndimage.gaussian_filter1d(work, sigma, axis, mode='nearest', radius=reach)
    return work


def shifted(channel: np.ndarray, pixels: float) -> np.ndarray:
    columns = np.arange(channel.shape[1])
    return np.stack([np.interp(columns - pixels, columns, row) for row in channel])


def reduced(p: np.ndarray) -> np.ndarray:
    low = [Image.fromarray(p[..., c].astype(np.float32)).resize((28, 20), Image.Resampling.BOX) for c in range(3)]
    return np.stack([np.asarray(c.resize((56, 40), Image.Resampling.BICUBIC)) for c in low], -1)


LUMA = np.array([0.299, 0.587, 0.114])
EFFECTS = {
    'haze': ({'haze': 0.4, 'air': (200.0, 210.0, 220.0)}, lambda p: 0.6 * p + 0.4 * np.array([200, 210, 220])),
    'lens': ({'lens': 1.3}, lambda p: gauss(p, 1.3)),
    'motion along the rows': ({'motion': (4.0, 0.0)}, lambda p: ndimage.uniform_filter1d(p, 5, 1, mode='nearest')),
    'motion along the columns': ({'motion': (0.0, -6.0)}, lambda p: ndimage.uniform_filter1d(p, 7, 0, mode='nearest')),
    'resolution': ({'reduce': 2.0}, reduced),
    'fringe': (
        {'fringe': 0.4},
        lambda p: np.stack([shifted(p[..., 0], 0.4), p[..., 1], shifted(p[..., 2], -0.4)], -1),
    ),
    'sharpening': ({'sharpen': 0.8}, lambda p: p + 0.8 * (p - gauss(p, 1.1))),
    'contrast': ({'gain': 1.2}, lambda p: (p - 118) * 1.2 + 118),
    'saturation': ({'saturation': 0.5}, lambda p: 0.5 * p + 0.5 * (p @ LUMA)[..., None]),
    'white balance': ({'balance': (1.05, 1.0, 0.9)}, lambda p: p * np.array([1.05, 1.0, 0.9])),
}


class TestEffects:
    @pytest.mark.parametrize('name', EFFECTS)
    def test_formula(self, picture, name):
        options, formula = EFFECTS[name]
        result = degrade(picture, Sensor(**options), np.random.default_rng(0))
        expected = np.clip(formula(picture.astype(np.float64)), 0, 255)
        assert result.dtype == np.uint8
        assert np.abs(result - expected).max() <= 0.51
        assert np.abs(result.astype(float) - picture).max() > 5

    def test_order(self, picture):
        """Light, lens and sensor come before what the camera computes."""
        sensor = Sensor(haze=0.3, lens=0.8, sharpen=0.6, gain=0.9, saturation=0.8, balance=(1.02, 1.0, 0.97))
        work = 0.7 * picture.astype(np.float64) + 0.3 * np.array(sensor.air)
        work = gauss(work, 0.8)
        work += 0.6 * (work - gauss(work, 1.1))
        work = (work - 118) * 0.9 + 118
        gray = (work @ LUMA)[..., None]
        expected = (gray + (work - gray) * 0.8) * sensor.balance
        assert np.abs(degrade(picture, sensor, np.random.default_rng(0)) - expected).max() <= 0.52

    def test_noise(self):
        """As strong as it says in the mid-tones, weaker in the dark; a part of it is the same in all channels."""
        for level in (110, 40):
            flat = np.full((200, 300, 3), level, np.uint8)
            sensor = Sensor(noise=6.0, color_noise=0.3)
            noise = degrade(flat, sensor, np.random.default_rng(1)).astype(float) - level
            assert noise.mean() == pytest.approx(0, abs=0.1)
            assert noise.std() == pytest.approx(6 * np.sqrt(level / 110), rel=0.03)
            correlation = np.corrcoef(noise.reshape(-1, 3).T)
            assert correlation[np.triu_indices(3, 1)] == pytest.approx(0.7, abs=0.03)

    def test_perfect_camera_changes_nothing(self, picture):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            sensor = vary(draw_sensor(rng, 0.0), rng, 0.0)
            assert np.array_equal(degrade(picture, sensor, rng), picture)

    def test_too_small_to_reduce(self):
        tiny = np.random.default_rng(0).integers(0, 255, (10, 12, 3)).astype(np.uint8)
        assert np.array_equal(degrade(tiny, Sensor(reduce=3.0), np.random.default_rng(0)), tiny)


class TestDraws:
    def test_more_strength_is_worse(self, picture):
        def harm(strength: float) -> float:
            total = 0.0
            for seed in range(60):
                rng = np.random.default_rng(seed)
                result = degrade(picture, draw_sensor(rng, strength), rng)
                total += np.abs(result.astype(float) - picture).mean()
            return total / 60

        weak, usual, strong = harm(0.3), harm(1.0), harm(3.0)
        assert 0 < weak < 0.6 * usual < usual < strong

    def test_ranges(self):
        sensors = [draw_sensor(np.random.default_rng(seed)) for seed in range(1500)]
        haze = np.array([s.haze for s in sensors])
        assert 0 <= haze.min() < haze.max() <= 0.75
        assert haze.mean() == pytest.approx(0.85 * 1.1 / (1.1 + 3.6), abs=0.015)  # mean of the beta distribution
        assert {type(s.quality) for s in sensors} == {int}
        assert 35 <= min(s.quality for s in sensors) < max(s.quality for s in sensors) <= 97
        balance = np.log([s.balance for s in sensors])
        assert balance.std() == pytest.approx(0.014, rel=0.1)  # mild: white cars stay white
        motion = np.array([np.hypot(*s.motion) for s in sensors])
        assert motion.mean() == pytest.approx(1.2 * 0.7, rel=0.1)

    def test_a_camera_stays_itself(self):
        sensor = draw_sensor(np.random.default_rng(3))
        later = [vary(sensor, np.random.default_rng(seed)) for seed in range(200)]
        same = ('air', 'gain', 'saturation', 'reduce', 'fringe', 'sharpen', 'color_noise', 'quality')
        for name in same:
            values = {dataclasses.asdict(s)[name] for s in later}
            assert len(values) == 1 or name == 'gain'
        gains = np.log([s.gain / sensor.gain for s in later])
        assert abs(gains.mean()) < 0.015
        assert gains.std() == pytest.approx(0.05, rel=0.2)
