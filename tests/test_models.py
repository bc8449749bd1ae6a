"""The models as timm models, against timm's own ResNet, plain formulas, and eager PyTorch."""

import copy
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.data import resolve_data_config
from torch import nn

import timm_dpa
from tests.support.hub_server import LoopbackHub
from tests.support.models import (
    ATTENTIONS,
    ENTRY_POINTS,
    TINY,
    assert_same,
    assert_same_gradients,
    attentions,
    create,
    every_model,
    gradients,
    images,
    lively,
    tiny,
)


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """In eval mode; tests that change it take a copy."""
    return create('dpa_resnet18', num_classes=5)


class TestRegistration:
    def test_sixteen_entry_points_are_registered(self):
        assert sorted(timm.list_models(module='dpa_resnet')) == sorted(ENTRY_POINTS)
        assert timm.list_models('dpa_*') == ['dpa_resnet18', 'dpa_resnet50']
        assert timm.is_model('dpa_resnet50')

    @pytest.mark.parametrize('name', ENTRY_POINTS)
    def test_entry_point_gives_embeddings_of_its_width_and_has_its_attention(self, name):
        attn, depth = name.split('_resnet')
        width = {'18': 512, '50': 2048}[depth]
        model = timm.create_model(name, device='meta').eval()
        assert model(torch.empty(2, 3, 64, 64, device='meta')).shape == (2, width)
        assert (model.num_features, model.head_hidden_size, model.num_classes) == (width, width, 0)
        assert model.feat_dim == width  # for open-metric-learning
        found = attentions(model)
        assert list(found) == ([] if attn == 'reid' else [3])
        assert all(type(module) is ATTENTIONS[attn] for module in found.values())

    def test_data_config_squashes_to_256_with_imagenet_statistics(self):
        config = resolve_data_config(model=timm.create_model('cpa_resnet18', device='meta'))
        assert config['input_size'] == (3, 256, 256)
        assert (config['crop_mode'], config['crop_pct'], config['interpolation']) == ('squash', 1.0, 'bicubic')
        assert config['mean'] == (0.485, 0.456, 0.406)
        assert config['std'] == (0.229, 0.224, 0.225)

    def test_unknown_argument_is_a_type_error(self):
        with pytest.raises(TypeError, match='atn_layer'):
            timm.create_model('dpa_resnet18', device='meta', atn_layer='se')

    def test_released_weights_of_the_manifest_download_from_their_repository(self, tmp_path):
        """A copy of the package with a filled manifest, and a real client."""
        published = tiny('cpa')
        weights = tmp_path / 'model.safetensors'
        save_file(published.state_dict(), weights)
        package = tmp_path / 'site' / 'timm_dpa'
        shutil.copytree(Path(timm_dpa.__file__).parent, package, ignore=shutil.ignore_patterns('__pycache__'))
        entry = {
            'architecture': 'cpa_resnet18',
            'tag': 'small_unit',
            'repo': 'somebody/small',
            'revision': None,
            'sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
            'size': weights.stat().st_size,
            'cfg': {'input_size': (3, 128, 128)},
        }
        (package / 'weights' / 'manifest.json').write_text(json.dumps({'weights': [entry]}), encoding='utf-8')
        script = f"""
import timm, timm_dpa, torch
from timm.models import get_pretrained_cfg
from safetensors.torch import save_file
assert timm_dpa.__file__.startswith({str(package)!r}), timm_dpa.__file__
ours = timm.list_models(module='dpa_resnet')
assert [n for n in timm.list_pretrained() if n.partition('.')[0] in ours] == ['cpa_resnet18.small_unit']
cfg = get_pretrained_cfg('cpa_resnet18')
assert (cfg.hf_hub_id, cfg.tag, cfg.input_size) == ('somebody/small', 'small_unit', (3, 128, 128)), cfg
assert not get_pretrained_cfg('dpa_resnet18').has_weights
model = timm.create_model('cpa_resnet18', pretrained=True, **{TINY!r})
save_file(model.state_dict(), {str(tmp_path / 'loaded.safetensors')!r})
"""
        repo = {'main': {'model.safetensors': weights.read_bytes()}}
        with LoopbackHub({'somebody/small': repo}) as hub:
            environment = {
                **os.environ,
                **hub.environment,
                'HF_HOME': str(tmp_path / 'home'),
                'PYTHONPATH': str(package.parent),
            }
            done = subprocess.run(
                [sys.executable, '-c', script], env=environment, cwd=tmp_path, capture_output=True, text=True
            )
        assert done.returncode == 0, done.stderr
        assert 'GET somebody/small main model.safetensors' in hub.requests
        assert (tmp_path / 'loaded.safetensors').read_bytes() == weights.read_bytes()


class TestBackbone:
    @pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
    @pytest.mark.parametrize('options', [{}, {'avg_down': True, 'stem_type': 'deep', 'stem_width': 32}], ids=['b', 'd'])
    @pytest.mark.parametrize('last_stride', [1, 2])
    def test_baseline_equals_the_resnet_of_timm(self, name, options, last_stride):
        theirs = create(name, **TINY, **options)
        ours = create(f'reid_{name}', seed=1, **TINY, **options, last_stride=last_stride, global_pool='avg')
        result = ours.load_state_dict(theirs.state_dict(), strict=False)
        assert {key.split('.')[0] for key in result.missing_keys} == {'neck'}
        assert result.unexpected_keys == ['fc.weight', 'fc.bias']
        if last_stride == 1:
            first = theirs.layer4[0]
            (first.conv2 if name == 'resnet50' else first.conv1).stride = (1, 1)
            if options:
                first.downsample[0] = nn.Identity()
            else:
                first.downsample[0].stride = (1, 1)
        x = images(2, 3, 96, 64)
        with torch.no_grad():
            expected = theirs.forward_features(x)
            assert expected.shape[2:] == ((6, 4) if last_stride == 1 else (3, 2))
            torch.testing.assert_close(ours.forward_features(x), expected, rtol=0, atol=0)
            pooled = theirs.forward_head(expected, pre_logits=True)
            torch.testing.assert_close(ours.global_pool(expected), pooled, rtol=0, atol=0)

    def test_full_resnet18_equals_timm(self):
        theirs = create('resnet18')
        ours = timm.create_model('reid_resnet18', last_stride=2, global_pool='avg').eval()
        ours.load_state_dict(theirs.state_dict(), strict=False)
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x), rtol=0, atol=0)

    @pytest.mark.parametrize('output_stride', [8, 16])
    def test_output_stride_still_dilates_as_in_timm(self, output_stride):
        options = {**TINY, 'output_stride': output_stride, 'avg_down': True}
        theirs = create('resnet50', **options)
        ours = timm.create_model('reid_resnet50', **options).eval()
        ours.load_state_dict(theirs.state_dict(), strict=False)
        x = images(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x), rtol=0, atol=0)
        assert [i['reduction'] for i in ours.feature_info] == [i['reduction'] for i in theirs.feature_info]

    @pytest.mark.parametrize('last_stride', [1, 2])
    @pytest.mark.parametrize('stem_pool_ceil', [False, True])
    def test_feature_info_tells_channels_and_size_of_the_maps(self, last_stride, stem_pool_ceil):
        model = timm.create_model(
            'dpa_resnet50', last_stride=last_stride, stem_pool_ceil=stem_pool_ceil, device='meta'
        ).eval()
        _, maps = model.forward_intermediates(torch.empty(1, 3, 256, 192, device='meta'))
        told = [(i['num_chs'], 256 // i['reduction'], 192 // i['reduction']) for i in model.feature_info]
        assert [tuple(m.shape[1:]) for m in maps] == told
        if last_stride == 1:
            assert told[-1][1:] == (16, 12)
            assert model.default_cfg['pool_size'] == (16, 16)

    @pytest.mark.parametrize('size', [(64, 64), (70, 65)])
    def test_stem_pool_ceil_pools_whole_and_cut_windows_without_padding(self, size):
        model = tiny(None, stem_pool_ceil=True)
        with torch.no_grad():
            stem = model.forward_intermediates(images(1, 3, *size), intermediates_only=True)[0]
            pooled = model.maxpool(stem)
        height, width = stem.shape[2:]
        rows, columns = -(-(height - 3) // 2) + 1, -(-(width - 3) // 2) + 1
        expected = torch.empty(1, stem.shape[1], rows, columns)
        for i in range(rows):
            for j in range(columns):
                expected[:, :, i, j] = stem[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((2, 3))
        torch.testing.assert_close(pooled, expected, rtol=0, atol=0)
        assert (rows, columns) == tuple(model.layer1(pooled).shape[2:])
        padded = F.max_pool2d(stem, 3, 2, 1)
        assert padded.shape != pooled.shape or not torch.equal(padded, pooled)

    def test_one_input_channel(self):
        model = tiny('dpa', in_chans=1)
        assert model.in_chans == 1
        assert model(images(2, 1, 64, 64)).shape == (2, 128)

    def test_constructor_takes_device_and_dtype_for_every_tensor(self):
        kwargs = {'attn_stages': (1, 2, 3, 4), 'num_classes': 3, 'attn_args': {'kernel_num': 2, 'gem_learnable': True}}
        model = timm.create_model('dpa_resnet18', **TINY, **kwargs, device='meta', dtype=torch.bfloat16)
        tensors = [*model.parameters(), *model.buffers()]
        assert {t.device.type for t in tensors} == {'meta'}
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}

    def test_model_in_bfloat16_gives_about_the_same_embeddings(self):
        model = tiny('dpa')
        half = tiny('dpa', dtype=torch.bfloat16)
        half.load_state_dict(model.state_dict())
        x = images(3, 3, 64, 64)
        with torch.no_grad():
            y = half(x.bfloat16())
            assert y.dtype == torch.bfloat16
            assert F.cosine_similarity(y.float(), model(x)).min() > 0.99


class TestSizes:
    @every_model
    @pytest.mark.parametrize('size', [(64, 64), (65, 130)])
    def test_any_size_from_64_pixels_and_one_image_as_in_a_batch(self, attn, size):
        model = tiny(attn, attn_stages=(3, 4), last_stride=2)
        x = images(3, 3, *size)
        with torch.no_grad():
            batch = model(x)
            assert batch.shape == (3, 128)
            assert batch.isfinite().all()
            assert_same(model(x[1:2]), batch[1:2], attn)

    @every_model
    def test_a_training_batch_of_one_uses_and_keeps_the_running_statistics_of_vectors(self, attn):
        model = tiny(attn, num_classes=3).train()
        frozen = copy.deepcopy(model)
        vectors = [name for name, m in frozen.named_modules() if isinstance(m, nn.BatchNorm1d)]
        assert 'neck' in vectors
        before = {name: frozen.get_submodule(name).running_mean.clone() for name in vectors}
        for name in vectors:
            frozen.get_submodule(name).eval()
        x, labels = images(1, 3, 64, 64), torch.tensor([2])
        assert_same_gradients(gradients(model, x, labels), gradients(frozen, x, labels))
        for name, mean in before.items():
            assert torch.equal(model.get_submodule(name).running_mean, mean), name
        gradients(model, images(2, 3, 64, 64), torch.tensor([0, 2]))
        for name, mean in before.items():
            assert not torch.equal(model.get_submodule(name).running_mean, mean), name

    @pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
    @pytest.mark.parametrize('convert', [torch.jit.script, torch.fx.symbolic_trace])
    def test_converted_models_train_on_one_image_too(self, convert):
        model = tiny('dpa', num_classes=3).train()
        converted = convert(copy.deepcopy(model))
        x, labels = images(1, 3, 64, 64), torch.tensor([2])
        assert_same_gradients(gradients(converted, x, labels), gradients(model, x, labels), 1e-3)


class TestIntermediates:
    def test_features_only_gives_the_maps_of_the_whole_model(self):
        model = tiny('dpa', attn_stages=(2, 3))
        features = tiny('dpa', attn_stages=(2, 3), features_only=True, out_indices=(0, 2, 3, 4))
        loaded = features.load_state_dict(model.state_dict(), strict=False)
        assert not loaded.missing_keys
        x = images(2, 3, 64, 96)
        with torch.no_grad():
            expected = model.forward_intermediates(x, intermediates_only=True)
            got = features(x)
        assert len(got) == 4
        for a, b in zip(got, [expected[i] for i in (0, 2, 3, 4)], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert features.feature_info.channels() == [64, 32, 64, 128]
        assert features.feature_info.reduction() == [2, 8, 16, 16]

    def test_forward_intermediates_ends_with_the_features(self, dpa):
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            last, maps = dpa.forward_intermediates(x, indices=[3, 4])
            torch.testing.assert_close(last, dpa.forward_features(x), rtol=0, atol=0)
            torch.testing.assert_close(maps[1], last, rtol=0, atol=0)
            (early,) = dpa.forward_intermediates(x, indices=[3], stop_early=True, intermediates_only=True)
        torch.testing.assert_close(early, maps[0], rtol=0, atol=0)

    @pytest.mark.parametrize(('index', 'width'), [(0, 64), (3, 64), (4, 128)])
    def test_pruning_keeps_the_maps_and_drops_what_follows(self, index, width):
        model = tiny('dpa', num_classes=5)
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            expected = model.forward_intermediates(x, intermediates_only=True)[index]
            assert model.prune_intermediate_layers([index]) == [index]
            torch.testing.assert_close(
                model.forward_intermediates(x, indices=[index], intermediates_only=True)[0], expected, rtol=0, atol=0
            )
            torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        assert expected.shape[1] == width == model.num_features
        parts = {name.split('.')[0] for name, _ in model.named_parameters()}
        assert parts == {'conv1', 'bn1', *(f'layer{i}' for i in range(1, index + 1))}


class TestCopies:
    def test_deepcopy_and_pickle_give_independent_equal_models(self, dpa):
        x = images(1, 3, 64, 64)
        expected = dpa(x)
        for other in (copy.deepcopy(dpa), pickle.loads(pickle.dumps(dpa))):
            torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
            with torch.no_grad():
                other.conv1.weight.zero_()
            torch.testing.assert_close(dpa(x), expected, rtol=0, atol=0)

    @pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
    def test_checkpoint_path_of_timm_restores_the_model(self, dpa, tmp_path, suffix):
        path = tmp_path / f'model.{suffix}'
        (save_file if suffix == 'safetensors' else torch.save)(dpa.state_dict(), path)
        other = timm.create_model('dpa_resnet18', num_classes=5, checkpoint_path=path).eval()
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(other(x), dpa(x), rtol=0, atol=0)

    def test_a_moved_model_keeps_its_numbers_in_float64(self):
        model = tiny('dpa')
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(copy.deepcopy(model).double()(x.double()).float(), model(x), rtol=1e-3, atol=1e-3)

    def test_lively_leaves_no_residual_branch_at_zero(self):
        """Guards this file: with timm's initialization every residual branch is 0 and little would be tested."""
        fresh = timm.create_model('reid_resnet18', **TINY)
        assert fresh.layer1[0].bn2.weight.abs().max() == 0
        assert lively(fresh).layer1[0].bn2.weight.abs().min() > 0.4
