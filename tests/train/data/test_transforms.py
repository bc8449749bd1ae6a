"""Augmentation: every option alone against what it says, and all of them reproducible."""

import random

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import timm_dpa  # noqa: F401  registers the models
from timm_dpa.train.data.transforms import RandomHeading, RandomSensor, eval_transform, train_transform

CONFIG = {
    'input_size': (3, 40, 24),
    'interpolation': 'bicubic',
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
}
OFF = {'pad': 0, 'flip': 0.0, 'erasing': 0.0}
MEAN, STD = (torch.tensor(CONFIG[key]).view(3, 1, 1) for key in ('mean', 'std'))
#: each option so that it always does something
OPTIONS = {
    'pad': {'pad': 6},
    'flip': {'flip': 0.5},
    'rotation': {'rotation': 180},
    'color_jitter': {'color_jitter': 0.4},
    'autoaugment': {'autoaugment': 1},
    'augmix': {'augmix': 1.0},
    'sensor': {'sensor': 1.0},
    'erasing': {'erasing': 1.0},
}


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def image():
    """Smooth, so that resampling changes little."""
    y, x = np.mgrid[0:30, 0:50]
    pixels = np.stack([40 + 4 * x, 60 + 5 * y, 200 - 2 * x - y], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def results(image, count: int = 30, config=CONFIG, **options) -> list[torch.Tensor]:
    """The 8-bit values of many results."""
    transform = train_transform(config, **{**OFF, **options})
    seed_all(0)
    return [((transform(image) * STD + MEAN) * 255).round() for _ in range(count)]


@pytest.fixture
def plain(image):
    return results(image, 1)[0]


class TestEvaluation:
    def test_is_timms_own_for_our_models(self, image):
        with torch.device('meta'):
            config = resolve_data_config(model=timm.create_model('dpa_resnet18', num_classes=0))
        assert torch.equal(eval_transform(config)(image), create_transform(**config)(image))

    def test_squashes_whatever_the_config_crops(self):
        """The ends of a vehicle must stay: a frame around the image is still there."""
        pixels = np.full((100, 200, 3), 50, np.uint8)
        pixels[:12] = pixels[-12:] = pixels[:, :24] = pixels[:, -24:] = 250
        config = {**CONFIG, 'input_size': (3, 64, 64), 'crop_pct': 0.875, 'crop_mode': 'center'}
        result = eval_transform(config)(Image.fromarray(pixels)) * STD + MEAN
        assert result.shape == (3, 64, 64)
        for side in (result[:, 2], result[:, -3], result[:, :, 2], result[:, :, -3]):
            assert (side > 0.9).all()

    def test_training_without_augmentation_is_the_same(self, image):
        without = train_transform(CONFIG, **OFF)(image)
        assert without.dtype == torch.float32
        assert without.is_contiguous()
        assert (without - eval_transform(CONFIG)(image)).abs().max() < 1e-5


class TestOptions:
    @pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
    def test_does_something_and_keeps_the_shape(self, image, plain, options):
        found = results(image, **options)
        assert all(result.shape == (3, 40, 24) and result.isfinite().all() for result in found)
        assert len({tuple(result.flatten().tolist()) for result in found}) > 1

    @pytest.mark.parametrize(
        'options', [*OPTIONS.values(), dict(OPTIONS['pad'], augmix=0.5, rotation=90, flip=0.5, erasing=0.5)]
    )
    def test_reproducible(self, image, options):
        transform = train_transform(CONFIG, **{**OFF, **options})
        for seed in range(5):
            seed_all(seed)
            first = transform(image)
            seed_all(seed)
            assert torch.equal(transform(image), first)

    def test_flip(self, image, plain):
        flipped = results(image, 1, flip=1.0)[0]
        assert (flipped - plain.flip(2)).abs().max() <= 2
        mirrored = [(result - plain.flip(2)).abs().max() <= 2 for result in results(image, 200, flip=0.25)]
        assert 25 < sum(mirrored) < 75

    def test_pad_moves_the_image_over_black(self, image, plain):
        framed = torch.nn.functional.pad(plain, (6, 6, 6, 6))
        windows = [framed[:, y : y + 40, x : x + 24] for y in range(13) for x in range(13)]
        places = [next(k for k, w in enumerate(windows) if torch.equal(w, r)) for r in results(image, 60, pad=6)]
        assert len(set(places)) > 30

    def test_erasing(self, image, plain):
        areas = []
        for result in results(image, 200, erasing=1.0):
            erased = (result != plain).any(dim=0)
            if not erased.any():
                continue
            rows, columns = erased.any(dim=1).nonzero(), erased.any(dim=0).nonzero()
            box = result[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == (MEAN * 255).round()).all()
            areas.append(box[0].numel() / plain[0].numel())
        assert len(areas) > 180
        assert 0.01 < min(areas) < 0.1
        assert 0.3 < max(areas) < 0.42

    @pytest.mark.parametrize(('option', 'value'), [('erasing', 0.3), ('augmix', 0.3), ('autoaugment', 0.3)])
    def test_probability(self, image, plain, option, value):
        changed = sum(bool((result != plain).any()) for result in results(image, 200, **{option: value}))
        assert 25 < changed < 85

    def test_color_jitter_keeps_the_place_and_the_hue(self, image, plain):
        for result in results(image, color_jitter=0.2):
            assert (result - plain).abs().max() < 120
            center = result[:, 20, 12]
            assert center.argsort().tolist() == plain[:, 20, 12].argsort().tolist()

    def test_augmix_stays_near_the_image(self, image, plain):
        """A mix of the image with its chains, in the range of the colors."""
        found = results(image, 100, augmix=1.0)
        assert all(result.min() >= 0 and result.max() <= 255 for result in found)
        assert (torch.stack(found).mean(dim=0) - plain).abs().mean() < 30

    @pytest.mark.parametrize('size', [(3, 1, 1), (3, 17, 64), (3, 256, 256)])
    def test_sizes(self, image, size):
        transform = train_transform(
            {**CONFIG, 'input_size': size}, rotation=30, color_jitter=0.1, augmix=1, autoaugment=1
        )
        for source in (image, image.resize((1, 1)), image.resize((300, 7))):
            assert transform(source).shape == size


class TestRotation:
    def test_quarter_turns_are_exact(self, image, monkeypatch):
        for degrees, turns in ((90, 1), (-90, -1), (180, 2)):
            monkeypatch.setattr(random, 'uniform', lambda low, high, degrees=degrees: degrees)
            turned = np.asarray(RandomHeading(180)(image))
            assert (turned == np.rot90(np.asarray(image), turns)).all()

    def test_nothing_is_cut_off_and_corners_are_the_ground(self):
        pixels = np.full((40, 80, 3), (90, 100, 110), np.uint8)
        pixels[3:37, 3:77] = (200, 30, 30)
        area = 34 * 74
        random.seed(0)
        angles = set()
        for _ in range(20):
            turned = np.asarray(RandomHeading(180)(Image.fromarray(pixels))).astype(int)
            assert np.abs(turned[[0, 0, -1, -1], [0, -1, 0, -1]] - (90, 100, 110)).max() <= 1
            assert abs((turned[..., 0] > 145).sum() - area) < 0.03 * area
            angles.add(turned.shape)
        assert len(angles) > 10

    def test_range(self, image):
        random.seed(0)
        heights = [RandomHeading(10)(image).height for _ in range(200)]
        # 50 x 30, turned by 10 degrees
        assert max(heights) <= np.ceil(30 * np.cos(np.pi / 18) + 50 * np.sin(np.pi / 18)) + 1
        assert min(heights) >= 30

    def test_is_before_the_squash(self):
        """A square on a wide image is as often wide as high after a quarter turn, not bent."""
        pixels = np.full((40, 80, 3), 100, np.uint8)
        pixels[10:30, 30:50] = 250
        bright = results(Image.fromarray(pixels), 40, config={**CONFIG, 'input_size': (3, 64, 64)}, rotation=180)
        # the share of the canvas is that of the square on the turned canvas, at most that of the upright one
        shares = [(result[0] > 175).float().mean().item() for result in bright]
        assert max(shares) <= 400 / 3200 * 1.1
        assert min(shares) >= 400 / (120 / 2**0.5) ** 2 * 0.9


class TestSensor:
    def test_long_sides_are_log_uniform_between_28_pixels_and_the_largest(self):
        image = Image.new('RGB', (200, 100), (90, 90, 90))
        seed_all(3)
        transform = RandomSensor(0.5, largest=112)
        sides = np.log([max(transform(image).size) for _ in range(400)])
        low, high = np.log(28), np.log(112)
        assert low - 0.02 <= sides.min() < low + 0.1
        assert high - 0.1 < sides.max() <= high + 0.02
        assert sides.mean() == pytest.approx((low + high) / 2, abs=0.06)
        assert sides.std() == pytest.approx((high - low) / 12**0.5, abs=0.04)

    def test_small_images_keep_their_size_and_shape(self):
        image = Image.new('RGB', (24, 11), (90, 90, 90))
        seed_all(0)
        assert {RandomSensor(1.0)(image).size for _ in range(20)} == {(24, 11)}

    def test_haze_takes_contrast(self):
        pixels = np.full((40, 80, 3), 60, np.uint8)
        pixels[:, 40:] = 180
        seed_all(0)
        transform = RandomSensor(1.0)
        spans = [np.ptp(np.asarray(transform(Image.fromarray(pixels)).convert('L').resize((2, 1)))) for _ in range(200)]
        assert np.mean(spans) < 110
        assert min(spans) < 70


class TestErrors:
    @pytest.mark.parametrize(
        ('option', 'value'),
        [
            *[(name, value) for name in ('flip', 'autoaugment', 'augmix', 'erasing') for value in (-0.1, 1.1)],
            ('erasing', float('nan')),
            ('color_jitter', 2.0),
            ('rotation', 181),
            ('sensor', 4.5),
            ('sensor', -1),
            ('rotation', -5),
            ('pad', -1),
            ('pad', 1.5),
        ],
    )
    def test_options(self, option, value):
        with pytest.raises(ValueError, match=f'{option} .*{value}'):
            train_transform(CONFIG, **{option: value})

    @pytest.mark.parametrize(
        ('change', 'part'),
        [
            ({'input_size': (1, 32, 32)}, 'input_size'),
            ({'input_size': (3, 0, 32)}, 'input_size'),
            ({'interpolation': 'cubist'}, 'cubist'),
            ({'mean': (0.5,)}, 'mean'),
        ],
    )
    @pytest.mark.parametrize('make', [train_transform, eval_transform])
    def test_config(self, make, change, part):
        with pytest.raises(ValueError, match=part):
            make({**CONFIG, **change})
        with pytest.raises(ValueError, match='lacks interpolation, std'):
            make({'input_size': (3, 8, 8), 'mean': (0, 0, 0)})
