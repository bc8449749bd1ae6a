"""The models as timm models, against timm's own ResNet, plain formulas, and eager PyTorch."""

import copy
import hashlib
import itertools
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
from timm.models import group_parameters
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
    every_attention,
    every_model,
    freeze_batch_norm,
    gradients,
    images,
    lively,
    stages,
    tiny,
)
from timm_dpa.dpa_resnet import dpa_resnet18


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """In eval mode; tests that change it take a copy."""
    return create('dpa_resnet18', num_classes=5)


@pytest.fixture(scope='module')
def everywhere() -> nn.Module:
    """Attention after all stages."""
    return tiny('dpa', attn_stages=(1, 2, 3, 4), num_classes=5)


def make_several(**kwargs) -> nn.Module:
    """A small one with attention after several blocks of a stage, and instance norm."""
    options = {'attn_stages': (3, 2), 'attn_blocks': (2, 1), 'ibn': True, 'num_classes': 3, 'layers': (1, 2, 3, 1)}
    return tiny('dpa', **{**options, **kwargs})


@pytest.fixture(scope='module')
def several() -> nn.Module:
    return make_several()


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
        found = attentions(model)
        assert list(found) == ([] if attn == 'reid' else [3])
        assert all(type(module) is ATTENTIONS[attn] for module in found.values())

    def test_data_config_squashes_to_256_with_imagenet_statistics(self):
        config = resolve_data_config(model=timm.create_model('dpa_resnet18', device='meta'))
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


class TestAttention:
    @pytest.mark.parametrize(
        'where', [c for n in range(5) for c in itertools.combinations((1, 2, 3, 4), n)], ids=lambda c: str(c) or 'none'
    )
    def test_any_combination_of_stages_has_attention_exactly_there(self, where):
        model = timm.create_model('se_resnet18', **TINY, attn_stages=where, device='meta')
        assert tuple(attentions(model)) == where

    def test_one_stage_may_be_an_int_and_the_order_does_not_matter(self):
        assert list(attentions(timm.create_model('se_resnet18', attn_stages=2, device='meta'))) == [2]
        one, other = (
            timm.create_model('se_resnet18', attn_stages=s, device='meta').state_dict() for s in ((4, 1), [1, 4])
        )
        assert list(one) == list(other)

    @pytest.mark.parametrize('stage', [1, 2, 3, 4])
    def test_every_stage_ends_with_its_attention(self, everywhere, stage):
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            _, maps = everywhere.forward_intermediates(x)
            before, after = maps[stage - 1], maps[stage]
            if stage == 1:
                before = everywhere.maxpool(before)
            *blocks, attn = stages(everywhere)[stage]
            for block in blocks:
                before = block(before)
            torch.testing.assert_close(after, attn(before))
            assert (after - before).abs().max() > 1e-3
            without = copy.deepcopy(everywhere)
            stages(without)[stage].attn = nn.Identity()
            assert (without(x) - everywhere(x)).abs().max() > 1e-4

    def test_without_its_attentions_the_model_is_the_baseline(self, everywhere):
        without = copy.deepcopy(everywhere)
        for stage in stages(without).values():
            stage.attn = nn.Identity()
        baseline = tiny(None, num_classes=5)
        baseline.load_state_dict(without.state_dict())
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(without(x), baseline(x), rtol=0, atol=0)

    @every_attention
    def test_attn_layer_works_on_any_entry_point(self, attn):
        named = timm.create_model(f'{attn}_resnet18', device='meta').state_dict()
        for name in ('reid_resnet18', 'nl_resnet18'):
            model = timm.create_model(name, attn_layer=attn, device='meta')
            assert type(model.layer3.attn) is ATTENTIONS[attn]
            assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in named.items()}

    def test_without_stages_or_attn_layer_the_entry_point_is_the_baseline(self):
        baseline = list(timm.create_model('reid_resnet18', device='meta').state_dict())
        assert list(timm.create_model('dpa_resnet18', attn_stages=(), device='meta').state_dict()) == baseline
        # timm.create_model drops arguments that are None
        assert list(dpa_resnet18(attn_layer=None, device='meta').state_dict()) == baseline

    def test_attn_args_reach_the_attention_of_every_stage(self):
        options = {'kernel_num': 4, 'reduction': 8, 'gem_learnable': True, 'grid_size': (6, 7)}
        model = timm.create_model('spa_resnet18', attn_stages=(2, 4), attn_args=options, device='meta')
        for stage, channels in ((2, 128), (4, 512)):
            attn = stages(model)[stage].attn
            assert attn.fc1.weight.shape == (4 * channels // 8, channels, 3, 3)
            assert attn.conv1.weight.shape == (channels, 2 * 6 * 7, 1, 1)
            assert [name for name, _ in attn.named_parameters() if 'gem' in name]

    @pytest.mark.parametrize('last_stride', [1, 2])
    def test_default_grid_is_the_map_of_the_stage_at_256_pixels(self, last_stride):
        model = timm.create_model('spa_resnet18', attn_stages=(1, 2, 3, 4), last_stride=last_stride, device='meta')
        _, maps = model.eval().forward_intermediates(torch.empty(1, 3, 256, 256, device='meta'))
        for stage, attn in attentions(model).items():
            height, width = maps[stage].shape[2:]
            assert height == 256 // model.feature_info[stage]['reduction']
            assert attn.conv1.weight.shape[1] == 2 * height * width
        assert [m.shape[2] for m in maps[1:]] == [64, 32, 16, 16 // last_stride]

    @pytest.mark.parametrize(
        ('options', 'error', 'message'),
        [
            ({'attn_layer': 'eca'}, ValueError, "unknown attn_layer 'eca'; choose one of dpa, cpa, spa"),
            ({'attn_stages': (3, 5)}, ValueError, r'attn_stages must be different stages of 1, 2, 3, 4, not \(3, 5\)'),
            ({'attn_stages': 0}, ValueError, 'attn_stages .* not 0'),
            ({'attn_stages': (3, 3)}, ValueError, r'attn_stages must be different .* \(3, 3\)'),
            ({'attn_blocks': 0}, ValueError, r'attn_blocks must be 1 or more .* attn_stages=\(3,\), not 0'),
            ({'attn_stages': (2, 3), 'attn_blocks': (2, 3)}, ValueError, r'attn_blocks .* not \(2, 3\)'),
            ({'attn_stages': (2, 3), 'attn_blocks': [1]}, ValueError, r'attn_blocks .* not \[1\]'),
            ({'last_stride': 3}, ValueError, 'last_stride must be 1 or 2, not 3'),
            ({'attn_args': {'grid_size': 0}}, ValueError, 'grid_size'),
            ({'global_pool': 'median'}, AssertionError, 'median'),
            ({'global_pool': '', 'num_classes': 5}, ValueError, 'num_classes=5 needs a global_pool'),
        ],
    )
    def test_wrong_option_is_an_error_that_says_which(self, options, error, message):
        with pytest.raises(error, match=message):
            timm.create_model('dpa_resnet18', device='meta', **options)

    @every_attention
    def test_unknown_attention_option_is_a_type_error(self, attn):
        with pytest.raises(TypeError, match='kernal_num'):
            timm.create_model(f'{attn}_resnet18', attn_args={'kernal_num': 4}, device='meta')


class TestSeveralBlocks:
    @pytest.mark.parametrize('depth', [18, 50])
    def test_names_of_the_default_models_are_those_of_timm_and_one_attention(self, depth):
        theirs = [name for name in timm.create_model(f'resnet{depth}', device='meta').state_dict() if name[:2] != 'fc']
        ours = list(timm.create_model(f'nl_resnet{depth}', device='meta').state_dict())
        stage4 = next(i for i, name in enumerate(theirs) if name.startswith('layer4'))
        added = len(ours) - len(theirs)
        head = ['global_pool.p', *(f'neck.{n}' for n in ('weight', 'running_mean', 'running_var'))]
        attention = ours[stage4 : stage4 + added - len(head) - 1]
        assert all(name.startswith('layer3.attn.') for name in attention)
        assert ours == [*theirs[:stage4], *attention, *theirs[stage4:], *head, 'neck.num_batches_tracked']

    def test_attentions_stand_after_the_last_blocks_of_their_stage(self, several):
        names = {number: [name for name, _ in stage.named_children()] for number, stage in stages(several).items()}
        assert names == {1: ['0'], 2: ['0', '1', 'attn'], 3: ['0', '1', 'attn_1', '2', 'attn'], 4: ['0']}
        fifty = timm.create_model(
            'reid_resnet50', attn_layer='nl_dot', attn_stages=[2, 3], attn_blocks=[2, 3], device='meta'
        )
        assert [name for name, _ in fifty.layer2.named_children() if 'attn' in name] == ['attn_2', 'attn']
        assert [name for name, _ in fifty.layer3.named_children() if 'attn' in name] == ['attn_3', 'attn_4', 'attn']

    def test_one_number_is_for_all_stages(self):
        model = timm.create_model('se_resnet18', attn_stages=(1, 4), attn_blocks=2, device='meta')
        for stage in (model.layer1, model.layer4):
            assert [name for name, _ in stage.named_children()] == ['0', 'attn_0', '1', 'attn']

    def test_the_first_norm_of_blocks_of_stages_1_to_3_is_instance_norm_in_half(self):
        model = timm.create_model('reid_resnet50', ibn=True, device='meta')
        found = [name.removesuffix('.IN') for name, m in model.named_modules() if isinstance(m, nn.InstanceNorm2d)]
        assert found == [f'layer{s}.{b}.bn1' for s, blocks in ((1, 3), (2, 4), (3, 6)) for b in range(blocks)]
        assert model.layer3[0].bn1.IN.weight.shape == model.layer3[0].bn1.BN.weight.shape == (128,)

    def test_features_and_intermediates_pass_every_attention(self, several):
        x = images(2, 3, 64, 96)
        features = make_several(num_classes=0, features_only=True)
        features.load_state_dict(several.state_dict(), strict=False)
        with torch.no_grad():
            last, maps = several.forward_intermediates(x)
            stage = maps[2]
            for child in several.layer3.children():
                stage = child(stage)
            torch.testing.assert_close(stage, maps[3], rtol=0, atol=0)
            torch.testing.assert_close(last, several.forward_features(x), rtol=0, atol=0)
            for got, expected in zip(features(x), maps, strict=True):
                torch.testing.assert_close(got, expected, rtol=0, atol=0)
            without = copy.deepcopy(several)
            without.layer3.attn_1 = nn.Identity()
            assert (without(x) - several(x)).abs().max() > 1e-4

    @pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
    @pytest.mark.parametrize('convert', [torch.jit.script, torch.fx.symbolic_trace])
    def test_converted_models_give_the_same(self, several, convert):
        x = images(2, 3, 64, 96)
        with torch.no_grad():
            assert_same(convert(copy.deepcopy(several))(x), several(x))

    def test_gradient_checkpointing_gives_the_same_gradients(self, several):
        model = copy.deepcopy(several).train()
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        expected = gradients(copy.deepcopy(model), x, labels)
        model.set_grad_checkpointing()
        assert_same_gradients(gradients(model, x, labels), expected)

    def test_groups_have_each_attention_after_its_block(self, several):
        groups = group_parameters(several, several.group_matcher(), reverse=True)
        order = ['conv1', 'layer1.0', 'layer2.0', 'layer2.1', 'layer2.attn', 'layer3.0', 'layer3.1', 'layer3.attn_1']
        order += ['layer3.2', 'layer3.attn', 'layer4.0', 'neck']
        depths = [{depth for name, depth in groups.items() if name.startswith(f'{part}.')} for part in order]
        assert depths == [{depth} for depth in range(len(order))]
        coarse = group_parameters(several, several.group_matcher(coarse=True), reverse=True)
        assert len({depth for name, depth in coarse.items() if name.startswith('layer3.')}) == 1

    def test_imagenet_weights_fill_all_but_the_attentions(self, tmp_path):
        path = tmp_path / 'plain.safetensors'
        save_file(tiny(None, layers=(1, 2, 3, 1)).state_dict(), path)
        report = timm_dpa.init_backbone(make_several(ibn=False), path)
        assert 'keep their initial values: fc, layer2.attn, layer3.attn, layer3.attn_1' in str(report)
        with pytest.raises(ValueError, match=r'layer1\.0\.bn1\.IN\.weight is missing'):
            timm_dpa.init_backbone(make_several(), path)


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


class TestHead:
    @pytest.mark.parametrize('global_pool', ['gem', 'avg', 'max', 'avgmax', 'catavgmax'])
    def test_embedding_is_pooling_and_neck_by_the_formula_and_logits_a_product(self, global_pool):
        model = tiny('se', global_pool=global_pool, num_classes=4)
        x = images(2, 3, 64, 80)
        with torch.no_grad():
            if global_pool == 'gem':
                assert model.global_pool.p.shape == (1,)
                assert model.global_pool.p.item() == 3
                model.global_pool.p.fill_(2.5)
            maps = model.forward_features(x).double()
            mean, peak = maps.mean((2, 3)), maps.amax((2, 3))
            pooled = {
                'gem': lambda: (maps.clamp(min=1e-6) ** 2.5).mean((2, 3)) ** (1 / 2.5),
                'avg': lambda: mean,
                'max': lambda: peak,
                'avgmax': lambda: (mean + peak) / 2,
                'catavgmax': lambda: torch.cat([mean, peak], 1),
            }[global_pool]()
            neck = model.neck
            assert neck.bias is None
            embedding = (pooled - neck.running_mean) / (neck.running_var.double() + 1e-5).sqrt() * neck.weight
            got = model.forward_head(maps.float(), pre_logits=True)
            torch.testing.assert_close(got.double(), embedding, rtol=1e-5, atol=1e-5)
            assert got.shape == (2, model.head_hidden_size)
            assert model.fc.bias is None
            torch.testing.assert_close(model(x).double(), embedding @ model.fc.weight.double().T, rtol=1e-5, atol=1e-5)

    def test_no_pooling_gives_the_map(self):
        model = tiny('dpa', global_pool='')
        x = images(2, 3, 64, 96)
        torch.testing.assert_close(model(x), model.forward_features(x), rtol=0, atol=0)
        assert model(x).shape == (2, 128, 4, 6)

    def test_dropout_acts_in_training_only(self):
        model = tiny(None, drop_rate=0.5)
        x = images(4, 3, 64, 64)
        assert torch.equal(model(x), model(x))
        freeze_batch_norm(model.train())
        zeros = (model(x) == 0).float().mean().item()
        assert 0.35 < zeros < 0.65

    def test_get_classifier_is_the_module_or_its_name(self, dpa):
        assert dpa.get_classifier() is dpa.fc
        assert dpa.get_classifier(name_only=True) == 'fc' == dpa.default_cfg['classifier']

    def test_reset_classifier_keeps_the_embedding(self, dpa):
        model = copy.deepcopy(dpa)
        x = images(2, 3, 64, 64)
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
        neck, pool = model.neck, model.global_pool
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert (model.num_classes, model.head_hidden_size) == (7, 512)
        assert model.neck is neck
        assert model.global_pool is pool
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), embedding, rtol=0, atol=0)

    def test_reset_classifier_keeps_the_learned_neck_with_another_pooling_of_the_width(self):
        model = tiny('se')
        weight = model.neck.weight.clone()
        model.reset_classifier(0, 'avg')
        torch.testing.assert_close(model.neck.weight, weight, rtol=0, atol=0)
        x = images(2, 3, 64, 64)
        maps = model.forward_features(x)
        expected = (maps.mean((2, 3)) - model.neck.running_mean) / (model.neck.running_var + 1e-5).sqrt() * weight
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)

    def test_reset_classifier_follows_the_width_and_the_absence_of_pooling(self):
        model = tiny('se', num_classes=3)
        x = images(2, 3, 64, 64)
        model.reset_classifier(6, 'catavgmax')
        assert model.head_hidden_size == 256
        assert model(x).shape == (2, 6)
        model.reset_classifier(0, '')
        assert model(x).shape == (2, 128, 4, 4)
        assert not list(model.neck.parameters())
        model.reset_classifier(5, 'gem')
        assert model(x).shape == (2, 5)
        with pytest.raises(ValueError, match='num_classes=5 needs a global_pool'):
            model.reset_classifier(5, '')

    @pytest.mark.parametrize('training', [True, False])
    def test_reset_classifier_keeps_device_dtype_and_mode(self, training):
        model = tiny('se', device='meta', dtype=torch.bfloat16).train(training)
        for pool in ('catavgmax', 'gem', None):
            model.reset_classifier(6, pool)
            parts = [model.global_pool, model.neck, model.fc]
            assert [m.training for m in parts] == [training] * 3
            for tensor in itertools.chain(*(m.parameters() for m in parts)):
                assert (tensor.device.type, tensor.dtype) == ('meta', torch.bfloat16)

    def test_reset_classifier_of_a_frozen_model_leaves_only_the_classifier_to_train(self):
        model = tiny('se').requires_grad_(False)
        for pool in (None, 'avg', 'catavgmax', 'gem', 'catavgmax'):
            model.reset_classifier(6, pool)
            assert [name for name, p in model.named_parameters() if p.requires_grad] == ['fc.weight']

    def test_reset_classifier_of_a_training_model_freezes_nothing(self):
        model = tiny('se')
        for pool in (None, 'avg', 'catavgmax', '', 'gem'):
            model.reset_classifier(0, pool)
            assert all(p.requires_grad for p in model.parameters())


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
