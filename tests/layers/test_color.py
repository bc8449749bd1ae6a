"""Color normalization: against its formula, what it takes away, and every way through a model."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tests.support.models import TINY, create, tiny
from timm_dpa import FeatureExtractor
from timm_dpa.layers.color import ColorNorm
from timm_dpa.train.data.sensor import Sensor, degrade
from timm_dpa.train.data.toy_vehicles import draw_vehicle

MEAN, STD = (np.array(v).reshape(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def prepare(pixels: np.ndarray) -> torch.Tensor:
    """From `(H, W, 3)` uint8 what a model gets."""
    return torch.from_numpy((pixels.transpose(2, 0, 1) / 255 - MEAN) / STD)[None]


def vehicle(seed: int = 0) -> np.ndarray:
    return np.asarray(draw_vehicle(seed, 0).resize((48, 40)))


class TestLayer:
    def test_formula(self):
        images = [prepare(vehicle(seed)) for seed in range(3)]
        found = ColorNorm()(torch.cat(images).float()).double().numpy()
        for image, one in zip(images, found, strict=True):
            x = image[0].numpy()
            x = x - x.mean(axis=(1, 2), keepdims=True)
            contrast = 43 / 255 / np.mean(IMAGENET_DEFAULT_STD) / np.sqrt(np.mean(x**2))
            np.testing.assert_allclose(one, x * np.sqrt(contrast) + (112 / 255 - MEAN) / STD, atol=1e-5)

    def test_the_mean_becomes_gray_and_contrasts_move_together(self):
        pixels = vehicle()
        pale = (150 + 0.3 * pixels).astype(np.uint8)
        norm = ColorNorm().double()
        deviations = []
        for each in (pixels, pale):
            x = norm(prepare(each)) * torch.from_numpy(STD) + torch.from_numpy(MEAN)
            torch.testing.assert_close(x.mean(dim=(0, 2, 3)) * 255, torch.full((3,), 112.0, dtype=torch.float64))
            deviations.append(x.std(dim=(2, 3)).mean())
        assert deviations[0] / deviations[1] == pytest.approx((1 / 0.3) ** 0.5, rel=0.02)

    def test_haze_and_color_cast_leave_less_of_a_difference(self):
        norm = ColorNorm().double()
        for seed in range(4):
            pixels = vehicle(seed)
            hazy = degrade(pixels, Sensor(haze=0.4, balance=(1.1, 1.0, 0.9)), np.random.default_rng(0))
            before = (prepare(pixels) - prepare(hazy)).norm()
            after = (norm(prepare(pixels)) - norm(prepare(hazy))).norm()
            assert after < 0.6 * before

    @pytest.mark.parametrize('value', [0, 128, 255])
    def test_an_image_of_one_color_is_gray(self, value):
        found = ColorNorm().double()(prepare(np.full((8, 8, 3), value, np.uint8)))
        torch.testing.assert_close(
            found, ((112 / 255 - torch.from_numpy(MEAN)) / torch.from_numpy(STD)).expand_as(found)
        )

    def test_other_channels_and_types(self):
        x = torch.rand(2, 5, 8, 8)
        assert ColorNorm(5)(x).mean(dim=(2, 3)).abs().max() < 1e-6
        for dtype in (torch.float16, torch.bfloat16):
            images = torch.cat([prepare(vehicle(seed)) for seed in range(2)])
            found = ColorNorm().to(dtype)(images.to(dtype))
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), ColorNorm().double()(images), rtol=0, atol=0.03)


class TestModel:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.3 + 1

    @pytest.fixture
    def models(self):
        model, plain = tiny('dpa', color_norm=True), tiny('dpa')
        assert model.state_dict().keys() - plain.state_dict().keys() == {'color_norm.mean', 'color_norm.deviation'}
        return model.eval(), plain.eval()

    def test_every_way_through_it(self, models):
        model, plain = models
        normalized = model.color_norm(self.x)
        assert not torch.allclose(normalized, self.x, atol=0.1)
        torch.testing.assert_close(model(self.x), plain(normalized), rtol=0, atol=0)
        features = plain.forward_features(normalized)
        torch.testing.assert_close(model.forward_features(self.x), features, rtol=0, atol=0)
        last, maps = model.forward_intermediates(self.x, indices=[1, 3])
        _, expected = plain.forward_intermediates(normalized, indices=[1, 3])
        torch.testing.assert_close(last, features, rtol=0, atol=0)
        for found, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(found, other, rtol=0, atol=0)

    def test_features_only(self, models):
        model, plain = models
        maps = timm.create_model('dpa_resnet18', features_only=True, color_norm=True, **TINY).eval()
        maps.load_state_dict(model.state_dict(), strict=False)
        expected = plain.forward_intermediates(model.color_norm(self.x), intermediates_only=True)
        for found, other in zip(maps(self.x), expected, strict=True):
            torch.testing.assert_close(found, other, rtol=0, atol=0)

    @pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
    @pytest.mark.parametrize('convert', [torch.jit.script, torch.fx.symbolic_trace])
    def test_converted(self, models, convert):
        torch.testing.assert_close(convert(models[0])(self.x), models[0](self.x))

    def test_a_backbone_of_timm(self):
        options = {'backbone': 'test_resnet', 'num_classes': 0}
        model, plain = (create('reid_timm', **options, **more).eval() for more in ({'color_norm': True}, {}))
        torch.testing.assert_close(model(self.x), plain(model.color_norm(self.x)), rtol=0, atol=0)
        assert model.model_args['color_norm'] is True

    def test_embeddings_of_a_hazy_image(self):
        """Also with released weights: without a step of training the embedding changes less."""
        image = vehicle()
        hazy = degrade(image, Sensor(haze=0.5, balance=(1.12, 1.0, 0.88)), np.random.default_rng(0))
        cosines = []
        for color_norm in (False, True):
            model = timm.create_model('dpa_resnet18', pretrained=True, color_norm=color_norm)
            one, two = FeatureExtractor(model, precision='fp32')([Image.fromarray(each) for each in (image, hazy)])
            cosines.append(one @ two)
        assert cosines[1] > cosines[0] + 0.05
