"""Every door for weights reads the same files: as frameworks, methods and older versions of torch write them."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from tests.support.models import TINY, create, images, tiny
from timm_dpa import FeatureExtractor, init_backbone, load_weights
from timm_dpa.hub.convert import convert_checkpoint
from timm_dpa.weights.checkpoint import read_checkpoint

State = dict[str, torch.Tensor]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def other(state: State) -> State:
    """A second network of the same names, which is not the one that is meant."""
    return {name: torch.zeros_like(value) for name, value in state.items()}


def by_init(model: nn.Module, path: Path) -> nn.Module:
    init_backbone(model, path)
    return model


def by_load_weights(model: nn.Module, path: Path) -> nn.Module:
    load_weights(model, path)
    return model


def by_overlay(model: nn.Module, path: Path) -> nn.Module:
    return timm.create_model('dpa_resnet18', pretrained=True, pretrained_cfg_overlay={'file': str(path)}, **TINY).eval()


DOORS = {'--init': by_init, '--checkpoint': by_load_weights, 'overlay': by_overlay}
every_door = pytest.mark.parametrize('door', DOORS.values(), ids=DOORS)

FORMS: dict[str, Callable[[State], object]] = {
    'state_dict': lambda s: s,
    'without counters': lambda s: {k: v for k, v in s.items() if 'num_batches_tracked' not in k},
    'net': lambda s: {'net': s, 'acc': 93.1, 'epoch': 3},
    'model_state_dict': lambda s: {
        'model_state_dict': s,
        'optimizer_state_dict': {'state': {0: {'exp_avg': torch.zeros(2)}}, 'param_groups': [{'lr': 0.1}]},
    },
    'unheard-of container': lambda s: {'weights of mine': s, 'epoch': 3},
    'nested': lambda s: {'model': {'state_dict': s}, 'epoch': 3},
    'ema first': lambda s: {'state_dict': other(s), 'state_dict_ema': s},
    'ema switched off': lambda s: {'model': s, 'model_ema': None},
    'numpy scalars': lambda s: {
        'state_dict': s,
        'rank1': np.float64(0.5),
        'epoch': np.int64(3),
        'best': np.bool_(True),
    },
    'numpy arrays and options': lambda s: {
        'state_dict': s,
        'curve': np.arange(3.0),
        'args': argparse.Namespace(lr=0.1),
    },
    'numbers among the tensors': lambda s: {**s, 'epoch': 3, 'scale': 0.5},
    'DataParallel': lambda s: prefixed('module.', s),
    'compiled': lambda s: prefixed('_orig_mod.', s),
    'compiled and parallel': lambda s: {'model': prefixed('module._orig_mod.', s)},
    'parallel and compiled': lambda s: {'model': prefixed('_orig_mod.module.', s)},
    'Lightning': lambda s: {
        'state_dict': {**prefixed('model.', s), 'criterion.centers': torch.zeros(3, 8)},
        'hyper_parameters': {'lr': 0.1},
        'pytorch-lightning_version': '2.4.0',
        'callbacks': {},
    },
    'MoCo': lambda s: {
        'arch': 'resnet18',
        'state_dict': {
            **prefixed('module.encoder_k.', other(s)),
            **prefixed('module.encoder_q.', s),
            'module.queue': torch.zeros(8, 4),
        },
    },
    'MoCo v3': lambda s: {
        'state_dict': {
            **prefixed('module.momentum_encoder.', other(s)),
            **prefixed('module.base_encoder.', s),
            'module.predictor.0.weight': torch.zeros(4, 4),
        },
    },
    'DINO': lambda s: {
        'student': {**prefixed('module.backbone.', other(s)), 'module.head.mlp.0.weight': torch.zeros(4, 4)},
        'teacher': {**prefixed('backbone.', s), 'head.mlp.0.weight': torch.zeros(4, 4)},
        'optimizer': {'state': {}, 'param_groups': []},
    },
}


@pytest.fixture(scope='module')
def trained() -> nn.Module:
    return tiny('dpa')


@every_door
@pytest.mark.parametrize('form', FORMS)
def test_forms_of_checkpoints(trained, tmp_path, form, door):
    path = tmp_path / 'weights.pth'
    torch.save(FORMS[form](trained.state_dict()), path)
    model = door(tiny('dpa', seed=1), path)
    x = images(2, 3, 64, 64)
    torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)


@every_door
def test_safetensors_without_counters_and_with_a_prefix(trained, tmp_path, door):
    state = {k: v for k, v in prefixed('module.', trained.state_dict()).items() if 'num_batches_tracked' not in k}
    save_file(state, tmp_path / 'weights.safetensors')
    x = images(2, 3, 64, 64)
    got = door(tiny('dpa', seed=1), tmp_path / 'weights.safetensors')(x)
    torch.testing.assert_close(got, trained(x), rtol=0, atol=0)


def test_a_folder_without_counters(trained, tmp_path):
    """As on the Hub, which local-dir: stands for."""
    save_for_hf(trained, tmp_path, model_args=dict(TINY), safe_serialization=True)
    path = tmp_path / 'model.safetensors'
    save_file({k: v for k, v in trained.state_dict().items() if 'num_batches_tracked' not in k}, path)
    model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = images(2, 3, 64, 64)
    torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)


def test_the_extractor_reads_them_too(tmp_path):
    model = create('resnet18', num_classes=0)
    state = {k: v for k, v in model.state_dict().items() if 'num_batches_tracked' not in k}
    torch.save({'net': prefixed('module.', state)}, tmp_path / 'r.pth')
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    got, expected = (
        FeatureExtractor(*args, device='cpu', precision='fp32').embed_pixels(pixels)
        for args in (('resnet18', str(tmp_path / 'r.pth')), (model,))
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_imagenet_backbones_of_methods_without_labels(tmp_path):
    """Their trunk is one network among others; the report names what else there is in a few words."""
    source = create('resnet18', num_classes=10)
    torch.save(FORMS['MoCo'](source.state_dict()), tmp_path / 'moco.pth')
    model = timm.create_model('reid_resnet18')
    report = init_backbone(model, tmp_path / 'moco.pth')
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert 'encoder_k.conv1.weight' in report.ignored
    assert 'encoder_q.conv1.weight' not in report.ignored
    assert str(report).endswith('not used: encoder_k.*, encoder_q.*, queue')


def test_classifier_of_an_overlay_is_said(tmp_path):
    trained = tiny('dpa', num_classes=5)
    torch.save(trained.state_dict(), tmp_path / 'five.pth')
    overlay = {'file': str(tmp_path / 'five.pth')}
    for classes in (0, 5):
        with pytest.raises(ValueError, match=r'five\.pth: .*5 classes.*; give num_classes=5 in pretrained_cfg_overlay'):
            timm.create_model(
                'dpa_resnet18', pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **TINY
            )
    overlay['num_classes'] = 5
    model = timm.create_model('dpa_resnet18', pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, **TINY)
    x = images(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x), trained(x), rtol=0, atol=0)
    assert 'state_dict' not in model.pretrained_cfg


def test_whitening_of_an_overlay_comes_along(tmp_path):
    trained = tiny('dpa', whiten=True)
    trained.whiten.matrix.mul_(2)
    torch.save({'net': trained.state_dict()}, tmp_path / 'white.pth')
    x = images(2, 3, 64, 64)
    torch.testing.assert_close(by_overlay(trained, tmp_path / 'white.pth')(x), trained(x), rtol=0, atol=0)


def circle(state: State) -> dict:
    content = {'epoch': 3}
    content['model'] = content
    return content


@every_door
@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda s: {'generator': s, 'critic': other(s)}, r'several state dicts \(generator, critic\)'),
        (
            lambda s: {**prefixed('left.', s), **prefixed('right.', other(s))},
            r'several networks \(left\.\*, right\.\*\)',
        ),
        (lambda s: {'model': nn.Linear(2, 2)}, r'holds more than tensors and numbers \(torch\.nn\.modules\.linear'),
        (lambda s: {'epoch': 3}, 'holds no state dict'),
        (circle, 'holds no state dict'),
        (lambda s: {'optimizer': {'state': {0: {'exp_avg': torch.zeros(2)}}}}, 'holds no state dict'),
        (lambda s: {k: v for k, v in s.items() if k != 'bn1.running_var'}, r'bn1\.running_var is missing'),
    ],
    ids=[
        'two networks',
        'two prefixes',
        'whole module',
        'no tensors',
        'itself',
        'only an optimizer',
        'a statistic is missing',
    ],
)
def test_what_cannot_be_told_is_named_and_nothing_changes(trained, tmp_path, door, make, words):
    path = tmp_path / 'weights.pth'
    torch.save(make(trained.state_dict()), path)
    model = tiny('dpa', seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf'weights\.pth: .*{words}'):
        door(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_with_a_whitening_that_do_not_fit_add_none(tmp_path):
    state = tiny('dpa', whiten=True).state_dict()
    torch.save({k: v for k, v in state.items() if k != 'bn1.weight'}, tmp_path / 'w.pth')
    model = tiny('dpa', seed=1)
    with pytest.raises(ValueError, match=r'bn1\.weight is missing'):
        load_weights(model, tmp_path / 'w.pth')
    assert isinstance(model.whiten, nn.Identity)


@pytest.mark.parametrize(
    ('extra', 'package'),
    [('heads.bottleneck.0.bias', 'FastReID'), ('classifier.weight', 'torchreid')],
)
def test_checkpoints_that_convert_reads_are_named(trained, tmp_path, extra, package):
    trunk = {k: v for k, v in trained.state_dict().items() if not k.startswith(('neck.', 'global_pool.'))}
    state = {**prefixed('backbone.' if package == 'FastReID' else '', trunk), extra: torch.zeros(4)}
    torch.save({'model': state}, tmp_path / 'theirs.pth')
    with pytest.raises(ValueError, match=rf'is missing.*a checkpoint of {package}.*timm-dpa convert'):
        load_weights(tiny('dpa'), tmp_path / 'theirs.pth')


def test_convert_reads_the_same_containers(tmp_path):
    torch.save({'net': {'module.cls_token': torch.zeros(2)}}, tmp_path / 'theirs.pth')
    with pytest.raises(ValueError, match='cls_token is no key of fastreid'):
        convert_checkpoint(tmp_path / 'theirs.pth', 'fastreid', tmp_path / 'out')


def test_what_a_file_holds_beside_the_weights(tmp_path):
    content = {'epoch': 3, 'net': OrderedDict({'module.a.weight': torch.ones(2), 'module.steps': 7})}
    torch.save(content, tmp_path / 'c.pth')
    read = read_checkpoint(tmp_path / 'c.pth')
    assert (list(read.weights), read.prefix, read.beside) == (['a.weight'], 'module.', ('epoch', 'module.steps'))
