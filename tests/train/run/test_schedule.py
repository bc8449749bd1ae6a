"""Learning rates against their formulas, optimizers' groups, and the frozen start."""

import math

import pytest
import timm
import torch
from torch import nn

from tests.support.models import tiny
from timm_dpa.train.recipes.recipe import OptimRecipe, ScheduleRecipe
from timm_dpa.train.run.schedule import LearningRate, create_optimizer, early_size, freeze_backbone


def rates(schedule: ScheduleRecipe, lr: float, steps_per_epoch: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    rate = LearningRate(optimizer, schedule, lr, steps_per_epoch)
    values = []
    for step in range(schedule.epochs * steps_per_epoch):
        rate.set(step)
        values.append(optimizer.param_groups[0]['lr'])
    return values


def test_cosine_after_warm_up():
    got = rates(ScheduleRecipe(epochs=10, warmup_epochs=2, warmup_factor=0.1, min_lr=1e-6), 1e-3, 7)
    for step, value in enumerate(got):
        if step < 14:
            expected = 1e-4 + (1e-3 - 1e-4) * step / 14
        else:
            expected = 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * (step - 14) / 56))
        assert value == pytest.approx(expected, rel=1e-9)


def test_released_schedule_rises_to_an_end_above_its_start():
    schedule = ScheduleRecipe(epochs=60, hold_epochs=30, min_lr=7.7e-5, warmup_steps=30, warmup_factor=0.1)
    got = rates(schedule, 3.5e-5, 4)
    assert got[0] == pytest.approx(3.5e-6)
    assert got[30:121] == pytest.approx([3.5e-5] * 91)
    for step in range(120, 240):
        expected = 7.7e-5 + 0.5 * (3.5e-5 - 7.7e-5) * (1 + math.cos(math.pi * (step - 120) / 120))
        assert got[step] == pytest.approx(expected, rel=1e-9)


def test_steps_and_constant():
    got = rates(ScheduleRecipe(epochs=6, kind='step', decay_epochs=[4, 2], decay_rate=0.1), 1.0, 5)
    assert got == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
    got = rates(ScheduleRecipe(epochs=2, kind='constant', warmup_steps=4, warmup_factor=0), 2.0, 5)
    assert got == pytest.approx([0.0, 0.5, 1.0, 1.5] + [2.0] * 6)


def test_small_images_come_first():
    recipe = ScheduleRecipe(epochs=6, early_sizes=[(2, 64), (3, 128)])
    assert [early_size(recipe, (256, 256), epoch)[0] for epoch in range(6)] == [64, 64, 128, 128, 128, 256]
    assert early_size(recipe, (256, 128), 0) == (64, 32)
    assert early_size(ScheduleRecipe(epochs=6), (256, 128), 0) == (256, 128)


def test_early_sizes_leave_an_epoch_at_the_final_size():
    with pytest.raises(ValueError, match='leave at least one'):
        early_size(ScheduleRecipe(epochs=6, early_sizes=[(6, 64)]), (256, 256), 3)


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (ScheduleRecipe(epochs=3, warmup_epochs=3), 'nothing is left for the cosine'),
        (ScheduleRecipe(epochs=3, kind='step'), 'decay_epochs'),
    ],
)
def test_numbers_that_do_not_fit(schedule, message):
    with pytest.raises(ValueError, match=message):
        rates(schedule, 1.0, 5)


def test_layer_decay_scales_by_depth_and_the_attention_belongs_to_its_stage():
    model = tiny('dpa', num_classes=5)
    optimizer = create_optimizer(model, OptimRecipe(name='adamw', lr=1.0, layer_decay=0.5))
    LearningRate(optimizer, ScheduleRecipe(epochs=2, kind='constant'), 1.0, 3).set(0)
    rate_of = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    rate = {name: rate_of[id(p)] for name, p in model.named_parameters()}
    assert rate['conv1.weight'] < rate['layer1.0.conv1.weight'] < rate['layer4.0.conv1.weight'] < rate['fc.weight']
    assert rate['layer3.0.conv1.weight'] <= rate['layer3.attn.spa.conv1.weight'] <= rate['layer4.0.conv1.weight']
    assert rate['fc.weight'] == 1.0


def test_weight_decay_of_vectors_is_an_option():
    model = tiny('dpa', num_classes=5)
    for everything in (False, True):
        groups = create_optimizer(
            model, OptimRecipe(name='sgd', weight_decay=0.1, decay_norm_and_bias=everything)
        ).param_groups
        decayed = {id(p) for group in groups for p in group['params'] if group['weight_decay'] > 0}
        assert (id(model.bn1.weight) in decayed) is everything
        assert id(model.conv1.weight) in decayed


@pytest.mark.parametrize(
    ('recipe', 'message'),
    [
        (OptimRecipe(name='adamm'), 'optim.name=adamm'),
        (OptimRecipe(args={'nesterow': True}), 'nesterow'),
        (OptimRecipe(name='adahessian'), 'needs second derivatives'),
    ],
)
def test_wrong_optimizers(recipe, message):
    with pytest.raises(ValueError, match=message):
        create_optimizer(tiny('dpa'), recipe)


@pytest.mark.parametrize('with_attention', [False, True])
def test_frozen_backbone_does_not_move(with_attention):
    model = tiny('dpa', num_classes=5).train()
    freeze_backbone(model, True, with_attention)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    torch.nn.functional.cross_entropy(model(torch.randn(6, 3, 64, 64)), torch.arange(6) % 5).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {'fc.weight', 'neck.weight', 'neck.running_mean', 'global_pool.p'} <= moved
    assert any('.attn.' in name for name in moved) is not with_attention
    assert not any(name.startswith(('conv1', 'bn1', 'layer')) and '.attn.' not in name for name in moved)
    freeze_backbone(model, False, with_attention)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_attention_inside_a_transformer_is_backbone():
    vit = {'depth': 1, 'embed_dim': 24, 'num_heads': 2, 'img_size': 64}
    model = timm.create_model('reid_timm', backbone='vit_tiny_patch16_224', backbone_args=vit, num_classes=5)
    freeze_backbone(model, True, False)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {'neck.weight', 'fc.weight'}


def test_attention_after_earlier_blocks_trains_while_the_backbone_is_frozen():
    model = timm.create_model('dpa_resnet18', attn_blocks=2, num_classes=5)
    freeze_backbone(model, True, False)
    trained = {
        name.split('.')[1] for name, value in model.named_parameters() if value.requires_grad and 'layer' in name
    }
    assert trained == {'attn', 'attn_0'}
