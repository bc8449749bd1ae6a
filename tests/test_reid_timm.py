"""Any timm backbone with the head of re-identification."""

import pytest
import timm
import torch
from timm.models import group_parameters, save_for_hf

from timm_dpa import FeatureExtractor, ReIDBackbone, init_backbone

BACKBONES = {
    'resnet18': {'layers': (1, 1, 1, 1), 'channels': (8, 16, 32, 64)},
    'convnext_atto': {'depths': (1, 1, 1, 1), 'dims': (8, 16, 24, 32)},
    # maps with channels last, and tokens
    'swin_tiny_patch4_window7_224': {'depths': (1, 1), 'embed_dim': 16, 'num_heads': (1, 1), 'img_size': 56},
    'vit_tiny_patch16_224': {'depth': 1, 'embed_dim': 24, 'num_heads': 2, 'img_size': 64},
}


def create(name: str, **kwargs) -> ReIDBackbone:
    torch.manual_seed(0)
    return timm.create_model('reid_timm', backbone=name, backbone_args=BACKBONES[name], **kwargs)


@pytest.mark.parametrize('name', BACKBONES)
def test_embedding_is_pooling_and_neck_of_the_backbones_features(name):
    model = create(name, num_classes=7).eval()
    x = torch.randn(2, *model.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.backbone.forward_features(x).double()
        if features.ndim == 3:
            pooled = model.backbone.forward_head(features.float(), pre_logits=True).double()
        else:
            positions = features.flatten(2) if features.shape[1] == model.num_features else features.flatten(1, 2).mT
            pooled = positions.clamp(min=1e-6).pow(3).mean(-1).pow(1 / 3)
        expected = (pooled - model.neck.running_mean) / (model.neck.running_var + model.neck.eps).sqrt()
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
        assert embedding.shape == (2, model.head_hidden_size)
        torch.testing.assert_close(embedding.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(x), embedding @ model.fc.weight.T)


@pytest.mark.parametrize('name', BACKBONES)
def test_saved_as_on_the_hub_it_comes_back(name, tmp_path):
    model = create(name).eval()
    args = {'backbone': name, 'backbone_args': BACKBONES[name]}
    save_for_hf(model, tmp_path, model_args=args, safe_serialization=True)
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    for (key, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    assert tuple(again.pretrained_cfg['input_size']) == model.pretrained_cfg['input_size']
    size = model.pretrained_cfg['input_size'][1:]
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    extractors = [FeatureExtractor(module, precision='fp32') for module in (model, again)]
    assert torch.equal(*[extractor.embed_pixels(pixels) for extractor in extractors])


@pytest.mark.parametrize('name', BACKBONES)
def test_layers_are_the_backbones_with_the_head_last(name):
    model = create(name, num_classes=3)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    theirs = group_parameters(model.backbone, model.backbone.group_matcher(), reverse=True)
    for parameter, layer in theirs.items():
        assert groups[f'backbone.{parameter}'] == layer
    assert groups['fc.weight'] >= max(theirs.values())


@pytest.mark.parametrize('name', BACKBONES)
def test_another_classifier_leaves_the_neck_and_its_mode_as_they_are(name):
    model = create(name, num_classes=7, whiten=True).half().eval()
    assert model.get_classifier(name_only=True) == 'fc'
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith('fc.')}
    model.neck.requires_grad_(False)
    model.reset_classifier(4)
    assert (model.get_classifier().weight.shape, model.num_classes) == ((4, model.head_hidden_size), 4)
    assert model.fc.weight.dtype is torch.float16
    assert not any(module.training for module in model.modules())
    for key, value in kept.items():
        assert model.state_dict()[key] is value or torch.equal(model.state_dict()[key], value), key
    model.reset_classifier(0)
    assert model.state_dict().keys() == kept.keys()


def test_another_pooling_is_for_maps_only():
    model = create('resnet18', num_classes=2, whiten=True).eval()
    model.neck.requires_grad_(False)
    model.reset_classifier(3, 'catavgmax')
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert (model.head_hidden_size, model.whiten.matrix.shape) == (128, (128, 128))
    assert [p.requires_grad for p in model.neck.parameters()] == [False]
    with pytest.raises(ValueError, match='needs a global_pool'):
        model.reset_classifier(3, '')
    with pytest.raises(ValueError, match="global_pool='avg': this backbone makes tokens"):
        create('vit_tiny_patch16_224').reset_classifier(3, 'avg')


def test_weights_for_the_backbone(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model('resnet18', num_classes=10, **BACKBONES['resnet18'])
    torch.save(source.state_dict(), tmp_path / 'resnet.pth')
    model = create('resnet18', num_classes=4)
    report = init_backbone(model, tmp_path / 'resnet.pth')
    assert torch.equal(model.backbone.layer4[0].conv2.weight, source.layer4[0].conv2.weight)
    assert report.ignored == ('fc.weight', 'fc.bias')
    assert 'keep their initial values: fc, global_pool, neck' in str(report)
    with pytest.raises(ValueError, match='another architecture'):
        init_backbone(create('convnext_atto'), tmp_path / 'resnet.pth')


def test_a_backbone_whose_features_are_a_list():
    torch.manual_seed(0)
    model = ReIDBackbone('crossvit_tiny_240').eval()
    x = torch.randn(2, 3, 240, 240, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.neck(model.backbone.forward_head(model.backbone.forward_features(x), pre_logits=True))
        assert torch.equal(model(x), expected)
    assert expected.shape == (2, model.head_hidden_size)


def test_a_backbone_without_a_head():
    with pytest.raises(ValueError, match='features_only'):
        ReIDBackbone('test_resnet', backbone_args={'features_only': True})


def test_an_unknown_backbone():
    with pytest.raises(ValueError, match='resnet17'):
        timm.create_model('reid_timm', backbone='resnet17')
