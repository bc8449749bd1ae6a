"""Heat maps against the formulas of the paper in float64."""

import os

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from tests.support.models import tiny
from timm_dpa.train.figures.heat_maps import heat_map, heat_map_figure


def textured(left: int, top: int, size: tuple[int, int] = (96, 96), side: int = 32) -> Image.Image:
    """A colored pattern on gray."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    pixels[top : top + side, left : left + side] = np.random.default_rng(3).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels)


def plain_grad_cam_plus_plus(model, x: torch.Tensor, split) -> np.ndarray:
    """Chattopadhay et al. 2018, eq. 10, 12 and 19, in float64; `split` makes the map and the rest of the model.

    As in the package, 1e-6 is added to the denominator.
    """
    maps, rest = split(model)
    activation = maps(x).detach().requires_grad_()
    embedding = rest(activation)[0]
    fixed = embedding.detach() / embedding.detach().norm()
    (gradient,) = torch.autograd.grad((embedding * fixed).sum(), activation)
    a, g = activation.detach()[0].numpy(), gradient[0].numpy()
    heat = np.zeros(a.shape[1:])
    for channel, slope in zip(a, g, strict=True):
        weight = 0.0
        for i, j in np.ndindex(slope.shape):
            if slope[i, j] > 0:
                alpha = slope[i, j] ** 2 / (2 * slope[i, j] ** 2 + channel.sum() * slope[i, j] ** 3 + 1e-6)
                weight += alpha * slope[i, j]
        heat += weight * channel
    heat = F.interpolate(torch.from_numpy(np.maximum(heat, 0))[None, None], x.shape[2:], mode='bilinear')[0, 0].numpy()
    return (heat - heat.min()) / (heat.max() - heat.min())


def after_stage_3(model):
    def maps(x):
        x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        return model.layer3(model.layer2(model.layer1(x)))

    return maps, lambda a: model.forward_head(model.layer4(a), pre_logits=True)


def after_features(model):
    return model.forward_features, lambda a: model.forward_head(a, pre_logits=True)


def channels_last_features(model):
    return (
        lambda x: model.forward_features(x).permute(0, 3, 1, 2),
        lambda a: model.forward_head(a.permute(0, 2, 3, 1), pre_logits=True),
    )


def other_models(name: str):
    torch.manual_seed(0)
    if name == 'backbone':
        return timm.create_model('reid_timm', backbone='resnet10t', num_classes=0).eval()
    return timm.create_model(
        'swin_tiny_patch4_window7_224', img_size=64, embed_dim=24, depths=(1, 1), num_heads=(2, 2), window_size=4,
        num_classes=0,
    ).eval()  # fmt: skip


class TestHeatMap:
    @pytest.mark.parametrize('name', ['dpa', 'nl', None, 'backbone', 'swin'])
    def test_formula(self, name):
        small = name not in ('backbone', 'swin')
        model = tiny(name) if small else other_models(name)
        split = after_stage_3 if small else channels_last_features if name == 'swin' else after_features
        image = textured(10, 20, (64, 64))
        heat = heat_map(model, image, image_size=64)
        config = timm.data.resolve_data_config(model=model)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255.0
        mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
        expected = plain_grad_cam_plus_plus(model.double(), (x.double() - mean) / std, split)
        assert heat.shape == (64, 64)
        assert heat.dtype == np.float32
        assert (heat.min(), heat.max()) == (0, pytest.approx(1, abs=1e-4))
        np.testing.assert_allclose(heat, expected, atol=1e-3)
        assert heat.std() > 0.1

    def test_follows_the_object(self):
        model = tiny('dpa')
        centers = {}
        for place in ((0, 0), (64, 0), (0, 64), (64, 64)):
            heat = heat_map(model, textured(*place), image_size=96)
            centers[place] = np.array(ndimage.center_of_mass(heat))[::-1]
        for (x, y), center in centers.items():
            assert (center[0] > 48) == (x > 0)
            assert (center[1] > 48) == (y > 0)

    def test_the_model_stays_as_it_was(self):
        model = tiny('dpa', num_classes=5).train()
        model.layer1.eval()
        model.conv1.weight.requires_grad_(False)
        model.fc.weight.grad = gradient = torch.ones_like(model.fc.weight)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        with torch.no_grad():
            first = heat_map(model, textured(10, 20), image_size=64)
        assert [module.training for module in model.modules()] == modes
        assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['conv1.weight']
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ['fc.weight']
        assert model.fc.weight.grad is gradient
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        for key, value in model.state_dict().items():
            assert torch.equal(value, weights[key]), key
        with torch.autocast('cpu', torch.bfloat16):
            assert np.array_equal(heat_map(model, textured(10, 20), image_size=64), first)

    def test_other_layers(self):
        model = tiny('dpa', num_classes=3)
        image = textured(10, 20)
        assert heat_map(model, image, image_size=(64, 96)).shape == (64, 96)
        maps = [heat_map(model, image, layer=layer, image_size=64) for layer in ('layer3', None, 'layer3.0', 'layer4')]
        assert np.array_equal(maps[0], maps[1])
        assert not np.allclose(maps[0], maps[2], atol=0.01)  # without the attention
        assert not np.allclose(maps[0], maps[3], atol=0.01)
        # an activation that works in place afterwards does not reach into the map
        before = heat_map(model, image, layer='layer3.0.bn1', image_size=64)
        assert model.layer3[0].act1.inplace
        model.layer3[0].act1.inplace = False
        assert np.array_equal(heat_map(model, image, layer='layer3.0.bn1', image_size=64), before)
        for layer, message in (
            ('layer9', 'layer=layer9: the model has no such module; it has color_norm, conv1,'),
            ('neck', r'layer=neck gives an output of shape \(1, 128\), no map'),
            ('fc', 'layer=fc plays no part'),
        ):
            with pytest.raises(ValueError, match=message):
                heat_map(model, image, layer=layer, image_size=64)

    def test_tokens(self):
        model = timm.create_model('vit_tiny_patch16_224', depth=1, img_size=32, num_classes=0)
        with pytest.raises(ValueError, match=r'VisionTransformer without layer= .*\(1, 5, 192\).* name a layer'):
            heat_map(model, textured(10, 20), image_size=32)

    def test_damaged_weights(self):
        model = tiny(None)
        with torch.no_grad():
            model.layer4[0].conv1.weight.fill_(float('nan'))
        with pytest.raises(RuntimeError, match='not finite'):
            heat_map(model, textured(10, 20), image_size=64)

    def test_picture(self, tmp_path):
        """Image and overlay side by side, in the proportions of the image, colored as the map says."""
        color = (20, 160, 60)
        image = Image.new('RGB', (96, 48), color)
        image.paste(textured(0, 0, (20, 20), 20), (60, 10))
        image.save(tmp_path / 'wide.png')
        model = tiny('dpa')
        out = heat_map_figure([('DpA', model)], [tmp_path / 'wide.png'], tmp_path / 'cam.png', image_size=64)
        assert sorted(os.listdir(tmp_path)) == ['cam.png', 'wide.png']
        pixels = np.asarray(Image.open(out).convert('RGB')).astype(int)
        rows, columns = np.nonzero((np.abs(pixels - color) < 3).all(axis=-1))
        top, left = rows.min(), columns.min()
        height, width = rows.max() + 1 - top, columns.max() + 1 - left
        assert width == pytest.approx(240, abs=2)
        assert height == pytest.approx(120, abs=2)
        heat = heat_map(model, image, image_size=64)
        step = width + 15
        for y, x in ((8, 8), (8, 40), (56, 8), (56, 56), (32, 20)):
            place = (top + round((y + 0.5) * height / 64), left + step + round((x + 0.5) * width / 64))
            expected = 0.5 * np.array(color) + 127.5 * np.array(colormaps['RdYlBu_r'](float(heat[y, x]))[:3])
            assert np.abs(pixels[place] - expected).max() < 12, (y, x)

    def test_wrong_use(self, tmp_path):
        textured(0, 0).save(tmp_path / 'a.png')
        (tmp_path / 'b.png').write_bytes(b'text')
        model = tiny(None)
        for models, images, name, message in (
            ([], ['a.png'], 'cam.png', 'models is empty'),
            ([('m', model)], [], 'cam.png', 'images is empty'),
            ([('m', model)], ['a.png'] * 51, 'cam.png', 'at most 50'),
            ([('m', model)], ['a.png'], 'cam.bmp', r'cam\.bmp: a figure'),
            ([('m', model)], ['b.png'], 'cam.png', r'b\.png: not an image'),
        ):
            with pytest.raises(ValueError, match=message):
                heat_map_figure(models, [tmp_path / image for image in images], tmp_path / name, image_size=64)
        assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.png']
