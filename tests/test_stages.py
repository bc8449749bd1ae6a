"""Attention inside the stages of our models: where it stands, and what timm makes of such stages."""

import copy
import itertools

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters
from torch import nn

import timm_dpa
from tests.support.models import (
    ATTENTIONS,
    TINY,
    assert_same,
    assert_same_gradients,
    attentions,
    create,
    every_attention,
    gradients,
    images,
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
