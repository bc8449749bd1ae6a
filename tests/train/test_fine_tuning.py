"""Fine-tuning: what is to stay stays bit for bit, and what is to move slowly does."""

import copy
import csv

import pytest
import timm
import torch
from torch import nn

from tests.support.models import tiny
from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.norm import InstanceBatchNorm2d, VectorBatchNorm
from timm_dpa.train.checkpoints import load_checkpoint
from timm_dpa.train.fine_tuning import freeze_for_good, in_trunk, keep_statistics
from timm_dpa.train.loop import train
from timm_dpa.train.recipe import OptimRecipe, ScheduleRecipe
from timm_dpa.train.schedule import LearningRate, create_optimizer, freeze_backbone
from timm_dpa.train.task import ReIDTask

STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_vehicles(tmp_path_factory.mktemp('data') / 'vehicles', identities=18, images=6)


@pytest.fixture(scope='module')
def start(data, tmp_path_factory):
    """A trained run."""
    out = tmp_path_factory.mktemp('runs') / 'start'
    train(quick('schedule.epochs=2', 'run.evaluate_every=0'), data, out)
    return out


def last(out):
    return load_checkpoint(out / 'checkpoints' / 'last.pt')


def changed(ours, theirs):
    return {name for name in ours if name in theirs and not torch.equal(ours[name], theirs[name])}


class TestStatistics:
    @pytest.mark.parametrize(
        'settings',
        [
            [],
            ['run.ema=0.9', 'schedule.freeze_steps=2', 'run.flip=true'],
            pytest.param(['run.compile=true'], marks=pytest.mark.slow),
        ],
        ids=['plain', 'ema', 'compile'],
    )
    def test_those_of_the_start_stay_and_the_rest_learns(self, data, start, tmp_path, settings):
        recipe = quick('schedule.epochs=2', 'schedule.keep_statistics=true', f'model.checkpoint={start}', *settings)
        train(recipe, data, tmp_path / 'run')
        before, after = last(start)['model'], last(tmp_path / 'run')
        moved = changed(after['model'], before)
        assert {'bn1.weight', 'bn1.bias', 'neck.weight', 'layer3.attn.spa.conv1.weight', 'conv1.weight'} <= moved
        assert not [name for name in moved if name.endswith(STATISTICS)]
        if after['ema']:
            assert not [name for name in changed(after['ema'], before) if name.endswith(STATISTICS)]

    def test_goes_on_bit_for_bit(self, data, start, tmp_path, monkeypatch):
        recipe = quick(
            'schedule.epochs=2',
            'schedule.keep_statistics=true',
            'optim.trunk_lr=0.1',
            'schedule.freeze_stages=1',
            'run.ema=0.9',
            f'model.checkpoint={start}',
        )
        train(recipe, data, tmp_path / 'whole')
        interrupted(recipe, data, tmp_path / 'half', monkeypatch, step=3)
        whole, half = last(tmp_path / 'whole'), last(tmp_path / 'half')
        assert not changed(whole['model'], half['model'])
        assert not changed(whole['ema'], half['ema'])

    def test_every_batch_norm_of_ours_and_of_copies(self):
        parts = [VectorBatchNorm(4, bias=False), nn.BatchNorm2d(4), nn.SyncBatchNorm(4), InstanceBatchNorm2d(8)]
        model = nn.Sequential(*parts, nn.Dropout())
        keep_statistics(model)
        twin = copy.deepcopy(model)
        for module in (model, twin):
            module.train()
            kept = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
            assert len(kept) == 4
            assert not any(part.training for part in kept)
            assert module[-1].training
        # each has its own
        twin[0].training = True
        twin.train()
        assert not twin[0].training
        assert twin[0].train.__self__ is twin[0]
        with torch.no_grad():
            model[0].running_mean.copy_(torch.arange(4.0))
        x = torch.randn(5, 4)
        expected = (x - torch.arange(4.0)) / (1 + model[0].eps) ** 0.5
        torch.testing.assert_close(model[0](x), expected)
        assert int(model[0].num_batches_tracked) == 0


def interrupted(recipe, data, out, monkeypatch, step):
    """A run that is stopped after a number of batches, and goes on."""
    forward, seen = ReIDTask.forward, []

    def stop(task, pixels, labels):
        if len(seen) == step:
            raise KeyboardInterrupt
        seen.append(1)
        return forward(task, pixels, labels)

    monkeypatch.setattr(ReIDTask, 'forward', stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, out)
    monkeypatch.setattr(ReIDTask, 'forward', forward)
    train(recipe, data, out)


class TestTrunk:
    def test_is_all_but_attention_neck_and_classifier(self):
        model = tiny('dpa', num_classes=5)
        new = {name for name, _ in model.named_parameters() if not in_trunk(name)}
        assert new == {n for n, _ in model.named_parameters() if n.startswith(('layer3.attn.', 'neck.', 'fc.'))}
        vit = timm.create_model('vit_tiny_patch16_224', depth=1, embed_dim=24, num_heads=2)
        assert all(in_trunk(f'backbone.{name}') for name, _ in vit.named_parameters())

    @pytest.mark.parametrize('layer_decay', [None, 0.5])
    @pytest.mark.parametrize('name', ['adamw', 'lookahead_sgd'])
    def test_learns_by_its_factor(self, layer_decay, name):
        model = tiny('dpa', num_classes=5)
        schedule = ScheduleRecipe(epochs=2, kind='cosine', warmup_steps=2, warmup_factor=0.5, min_lr=1e-3)
        rates = []
        for factor in (1.0, 0.25):
            recipe = OptimRecipe(name=name, lr=1.0, layer_decay=layer_decay, trunk_lr=factor)
            optimizer = create_optimizer(model, recipe)
            rate = LearningRate(optimizer, schedule, 1.0, 4)
            rows = []
            for step in range(8):
                rate.set(step)
                groups = optimizer.param_groups
                rows.append({id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']})
            rates.append(rows)
        assert len(rates[0][0]) == len(list(model.parameters()))
        for plain, slow in zip(*rates, strict=True):
            for parameter_name, parameter in model.named_parameters():
                factor = 0.25 if in_trunk(parameter_name) else 1.0
                assert slow[id(parameter)][0] == pytest.approx(factor * plain[id(parameter)][0], rel=1e-12)
                assert slow[id(parameter)][1] == plain[id(parameter)][1]

    def test_of_a_factor_of_0_is_frozen(self, data, start, tmp_path):
        recipe = quick('schedule.epochs=1', 'optim.trunk_lr=0', 'schedule.freeze_steps=2', f'model.checkpoint={start}')
        train(recipe, data, tmp_path / 'run')
        moved = changed(last(tmp_path / 'run')['model'], last(start)['model'])
        assert {'neck.weight', 'neck.running_mean', 'layer3.attn.spa.conv1.weight'} <= moved
        assert not [name for name in moved if in_trunk(name)]


class TestFrozenStages:
    @pytest.mark.parametrize('stages', [1, 3])
    def test_do_not_move_and_get_no_gradient(self, data, start, tmp_path, stages):
        recipe = quick(
            'schedule.epochs=1',
            f'schedule.freeze_stages={stages}',
            'schedule.freeze_steps=2',
            f'model.checkpoint={start}',
        )
        train(recipe, data, tmp_path / 'run')
        moved = changed(last(tmp_path / 'run')['model'], last(start)['model'])
        frozen = ('conv1', 'bn1', *(f'layer{n}.' for n in range(1, stages + 1)))
        assert f'layer{stages + 1}.0.conv1.weight' in moved
        assert f'layer{stages + 1}.0.bn1.running_mean' in moved
        assert not [name for name in moved if name.startswith(frozen)]

    def test_need_no_backward_pass(self):
        model = tiny('dpa', num_classes=5).train()
        schedule = ScheduleRecipe(freeze_stages=2)
        freeze_for_good(model, OptimRecipe(), schedule)
        seen = {}
        for name in ('layer2', 'layer3'):
            model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        model(torch.randn(4, 3, 64, 64)).sum().backward()
        assert seen['layer2'].grad_fn is None  # autograd recorded nothing up to here
        assert seen['layer3'].grad_fn is not None
        without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
        assert without == {n for n, _ in model.named_parameters() if n.startswith(('conv1', 'bn1', 'layer1', 'layer2'))}
        # a frozen start that ends does not release them
        freeze_backbone(model, True, True)
        freeze_backbone(model, False, True)
        freeze_for_good(model, OptimRecipe(), schedule)
        assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == without

    def test_of_resnets_of_timm_too_and_of_no_others(self, data, tmp_path):
        settings = ['model.name=resnet18', 'model.args={layers: [1, 1, 1, 1], channels: [8, 16, 32, 64]}']
        recipe = quick('schedule.epochs=1', 'schedule.freeze_stages=2', *settings)
        train(recipe, data, tmp_path / 'run')
        assert list(csv.DictReader((tmp_path / 'run' / 'steps.csv').open()))
        settings = ['model.name=convnext_atto', 'model.args={depths: [1, 1, 1, 1], dims: [8, 16, 24, 32]}']
        with pytest.raises(ValueError, match=r'freeze_stages=2: a ConvNeXt has no stages of a ResNet'):
            train(quick('schedule.freeze_stages=2', *settings), data, tmp_path / 'other')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (['schedule.keep_statistics=true'], 'random ones'),
        (['optim.trunk_lr=1.5'], r'optim\.trunk_lr'),
        (['schedule.freeze_stages=5'], r'schedule\.freeze_stages'),
    ],
)
def test_what_is_wrong_shows_before_the_work(data, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(quick(*settings), data, tmp_path / 'run')
