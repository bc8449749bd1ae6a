"""Augmentation of looks: what each class changes, and what it leaves alone."""

import random

import numpy as np
import pytest
from PIL import Image

from timm_dpa.train.data.appearance import RandomBox, RandomGlare, RandomShadow, RandomTone
from timm_dpa.train.data.transforms import train_transform

CONFIG = {
    'input_size': (3, 64, 64),
    'interpolation': 'bicubic',
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
}


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)


def _numbered(width=40, height=30):
    """Each pixel tells its column and row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, columns * 0], -1).astype(np.uint8))


def _gray(level=128, size=(48, 36)):
    return Image.new('RGB', size, (level,) * 3)


def test_box_keeps_pixels_in_place_and_repeats_the_border():
    wider = narrower = 0
    for _ in range(200):
        pixels = np.asarray(RandomBox(0.2)(_numbered())).astype(int)
        columns, rows = pixels[0, :, 0], pixels[:, 0, 1]
        assert (pixels[..., 0] == columns[None]).all()
        assert (pixels[..., 1] == rows[:, None]).all()
        for line, length in ((columns, 40), (rows, 30)):
            inside = line[(line > 0) & (line < length - 1)]
            assert (np.diff(inside) == 1).all()  # neither stretched nor mirrored
            assert abs(len(line) - length) <= 2 * round(0.2 * length)
        wider += len(columns) > 40
        narrower += len(columns) < 40
    assert wider > 50
    assert narrower > 50


def test_box_of_a_tiny_crop_leaves_an_image():
    for _ in range(50):
        assert min(RandomBox(0.4)(Image.new('RGB', (2, 2))).size) >= 1


def test_shadow_only_darkens_and_leaves_bluer_light():
    darkened = []
    for _ in range(60):
        pixels = np.asarray(RandomShadow(1.0)(_gray())).astype(float)
        assert (pixels <= 128).all()
        assert (pixels[..., 2] >= pixels[..., 0]).all()
        darkened.append((pixels[..., 0] < 120).mean())
    darkened = np.array(darkened)
    assert ((darkened > 0.02) & (darkened < 0.98)).mean() > 0.6  # across the vehicle, not over all of it


def test_glare_only_brightens():
    for _ in range(30):
        pixels = np.asarray(RandomGlare(1.0)(_gray(60))).astype(float)
        assert (pixels >= 60).all()
        assert pixels.max() > 80
        assert (pixels[..., 2] >= pixels[..., 0]).all()


@pytest.mark.parametrize('kind', [RandomShadow, RandomGlare])
def test_probability(kind):
    image = _gray(100)
    changed = sum(kind(0.3)(image) is not image for _ in range(1000))
    assert 240 < changed < 360
    assert kind(0.0)(image) is image


def test_tone_changes_no_order_of_brightness():
    """Whatever the curve, a brighter gray stays brighter."""
    ramp = Image.fromarray(np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 3, axis=2))
    spreads = []
    for _ in range(100):
        pixels = np.asarray(RandomTone(1.0)(ramp)).astype(int)[0]
        assert (np.diff(pixels, axis=0) >= 0).all()
        spreads.append(pixels[-1].mean() - pixels[0].mean())
    assert min(spreads) < 170 < max(spreads)  # from veiled to clear
    assert (np.asarray(RandomTone(0.0)(ramp)).astype(int) - np.asarray(ramp)).__abs__().max() <= 1


def test_same_seed_same_image():
    transform = train_transform(CONFIG, box=0.1, shadow=0.5, glare=0.5, tone=1.0, erasing=0, pad=0, flip=0)
    images = []
    for seed in (3, 3, 4):
        random.seed(seed)
        images.append(transform(_numbered(200, 100)))
    assert (images[0] == images[1]).all()
    assert not (images[0] == images[2]).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'box': 0.5}, r'box must be in 0\.\.0\.4'),
        ({'shadow': 1.2}, 'shadow is a probability'),
        ({'glare': -0.1}, 'glare is a probability'),
        ({'tone': 5}, r'tone must be in 0\.\.4'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        train_transform(CONFIG, **options)
