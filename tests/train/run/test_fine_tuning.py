"""Fine-tuning: what is to stay stays bit for bit, and what is to move slowly does."""

import copy
import csv
import json
import os

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from tests.support.models import tiny
from tests.support.runs import QUICK, interrupted, quick
from timm_dpa import FeatureExtractor
from timm_dpa.cli.main import main
from timm_dpa.hub.folder import build_folder
from timm_dpa.layers.norm import InstanceBatchNorm2d, VectorBatchNorm
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.transforms import eval_transform
from timm_dpa.train.evaluation.evaluate import evaluate_model
from timm_dpa.train.recipes.recipe import LossRecipe, OptimRecipe, ScheduleRecipe, load_recipe
from timm_dpa.train.run.checkpoints import load_checkpoint
from timm_dpa.train.run.fine_tuning import Anchor, freeze_for_good, in_trunk, keep_statistics
from timm_dpa.train.run.schedule import LearningRate, create_optimizer, freeze_backbone
from timm_dpa.train.run.task import ReIDTask, pull_loss
from timm_dpa.train.run.trainer import train
from timm_dpa.train.run.whitening import whitening_matrix

STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


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


class TestInterpolation:
    @pytest.mark.parametrize('settings', [[], ['run.ema=0.9'], ['schedule.keep_statistics=true']], ids=str)
    def test_is_the_formula_for_all_but_the_classifier(self, data, start, tmp_path, monkeypatch, settings):
        recipe = quick('schedule.epochs=1', 'run.interpolate=0.3', f'model.checkpoint={start}', *settings)
        interrupted(recipe, data, tmp_path / 'run', monkeypatch, step=3)
        first = load_file(start / 'model' / 'model.safetensors')
        state = last(tmp_path / 'run')
        tuned = state['ema'] or state['model']
        saved = load_file(tmp_path / 'run' / 'model' / 'model.safetensors')
        assert saved.keys() == first.keys()
        for name, value in saved.items():
            if value.is_floating_point():
                expected = first[name].double() + 0.3 * (tuned[name].double() - first[name].double())
                torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-30)
            else:
                assert torch.equal(value, tuned[name])
        assert not torch.equal(saved['conv1.weight'], tuned['conv1.weight'])
        if 'schedule.keep_statistics=true' in settings:
            assert not [name for name in changed(saved, first) if name.endswith(STATISTICS)]
        # what was evaluated is what was saved
        rows = list(csv.DictReader((tmp_path / 'run' / 'metrics.csv').open()))
        model = FeatureExtractor(f'local-dir:{tmp_path / "run" / "model"}', precision='fp32')
        assert float(rows[-1]['mAP']) == pytest.approx(evaluate_model(model, load_data(data)).metrics['mAP'], abs=1e-5)


class TestPull:
    def test_is_the_formula(self):
        torch.manual_seed(0)
        model, start = (tiny('dpa', num_classes=5) for _ in range(2))
        for parameter in start.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        before, now = copy.deepcopy(start).double().eval(), copy.deepcopy(model).double().train()
        task = ReIDTask(model.train(), LossRecipe(pull=0.7), start=start.train())
        task.train()
        pixels, labels = torch.randn(8, 3, 64, 64), torch.arange(8) // 2
        result = task(pixels, labels)
        with torch.no_grad():
            a, b = (net.neck(net.global_pool(net.forward_features(pixels.double()))) for net in (now, before))
            expected = (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
        assert float(result['pull'].detach()) == pytest.approx(float(expected), rel=1e-4)
        torch.testing.assert_close(result['loss'], result['classifier'] + result['metric'] + 0.7 * result['pull'])
        result['loss'].backward()
        assert all(parameter.grad is None for parameter in start.parameters())
        assert model.neck.weight.grad is not None

    def test_needs_the_start(self):
        with pytest.raises(ValueError, match='network of the start'):
            ReIDTask(tiny('dpa', num_classes=5), LossRecipe(pull=1))

    def test_holds_embeddings_in_a_run_that_goes_on(self, data, start, tmp_path, monkeypatch):
        recipe = quick('schedule.epochs=1', 'loss.pull=2', 'optim.anchor=5', f'model.checkpoint={start}')
        train(recipe, data, tmp_path / 'whole')
        interrupted(recipe, data, tmp_path / 'half', monkeypatch, step=3)
        assert not changed(last(tmp_path / 'whole')['model'], last(tmp_path / 'half')['model'])
        rows = list(csv.DictReader((tmp_path / 'whole' / 'steps.csv').open()))
        assert all(0 < float(row['pull']) < 1 for row in rows)
        # the neck learns from it also where nothing else reaches it
        alone = quick('schedule.epochs=1', 'loss.classifier=none', 'loss.pull=1', f'model.checkpoint={start}')
        train(alone, data, tmp_path / 'alone')
        assert 'neck.weight' in changed(last(tmp_path / 'alone')['model'], last(start)['model'])


class TestAnchor:
    def test_is_the_gradient_of_its_loss_for_plain_descent(self):
        torch.manual_seed(0)
        ours = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        theirs = copy.deepcopy(ours)
        begin = {name: value.clone() for name, value in ours.state_dict().items()}
        x = torch.randn(7, 5, dtype=torch.float64)
        anchor = Anchor(ours, begin, 0.8)
        mine, other = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (ours, theirs))
        for _ in range(5):
            ours(x).square().mean().backward()
            anchor.pull(mine)
            mine.step()
            mine.zero_grad()
            penalty = sum((p - begin[name]).square().sum() for name, p in theirs.named_parameters())
            (theirs(x).square().mean() + 0.8 / 2 * penalty).backward()
            other.step()
            other.zero_grad()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)

    def test_of_the_trunk_only_by_its_learning_rate_and_not_of_what_is_frozen(self):
        model = tiny('dpa', num_classes=5)
        begin = {name: value.clone() for name, value in model.state_dict().items()}
        anchor = Anchor(model, begin, 2.0)
        optimizer = create_optimizer(model, OptimRecipe(name='sgd', lr=0.1, trunk_lr=0.5))
        LearningRate(optimizer, ScheduleRecipe(epochs=1, kind='constant'), 0.1, 1).set(0)
        away = {}
        for name, parameter in model.named_parameters():
            parameter.data.add_(0.3)
            parameter.grad = None if name == 'conv1.weight' else torch.zeros_like(parameter)
            away[name] = parameter.detach().clone()
        anchor.pull(optimizer)
        for name, parameter in model.named_parameters():
            moves = in_trunk(name) and name != 'conv1.weight'
            expected = begin[name] + (1 - 0.1 * moves) * (away[name] - begin[name])
            torch.testing.assert_close(parameter.detach(), expected)


class TestComparison:
    def rows(self, out):
        return list(csv.DictReader((out / 'metrics.csv').open()))

    def test_a_worse_result_leaves_the_start(self, data, tmp_path, capsys):
        start = tmp_path / 'good'
        train(quick('schedule.epochs=8', 'run.evaluate_every=0', 'augment.erasing=0'), data, start)
        # what pushes images of a vehicle apart
        settings = ['schedule.epochs=2', 'loss.classifier=none', 'loss.metric_weight=-1', 'run.compare_start=true']
        recipe = quick(*settings, f'model.checkpoint={start}')
        result = train(recipe, data, tmp_path / 'run')
        rows = self.rows(tmp_path / 'run')
        assert [row['epoch'] for row in rows] == ['0', '1', '2']
        assert max(float(row['mAP']) for row in rows[1:]) < float(rows[0]['mAP'])
        alone = evaluate_model(FeatureExtractor(f'local-dir:{start / "model"}', precision='fp32'), load_data(data))
        assert float(rows[0]['mAP']) == pytest.approx(alone.metrics['mAP'], abs=1e-5)
        first, saved = (load_file(out / 'model' / 'model.safetensors') for out in (start, tmp_path / 'run'))
        assert first.keys() == saved.keys()
        assert not changed(saved, first)
        assert changed(last(tmp_path / 'run')['model'], first)  # the tuned ones are there, too
        assert result.comparison[0]['epoch'] == 0
        log = (tmp_path / 'run' / 'run.log').read_text()
        assert f'before training: mAP {100 * alone.metrics["mAP"]:.2f} %' in log
        assert 'Fine-tuning did not raise the mAP on the test part: model/ holds the weights' in log
        assert f'before training {100 * alone.metrics["mAP"]:9.2f}' in log
        assert json.loads((tmp_path / 'run' / 'evaluation.json').read_text())['epoch'] == 0
        with pytest.raises(ValueError, match='did not help'):
            build_folder(tmp_path / 'run', tmp_path / 'out', 'somebody/x', license='other')
        # a finished run says it again
        (tmp_path / 'same.yaml').write_text(recipe.as_yaml())
        capsys.readouterr()
        options = ['--recipe', str(tmp_path / 'same.yaml'), '--data', str(data), '--out', str(tmp_path / 'run')]
        assert main(['train', *options]) == 0
        assert 'Fine-tuning did not raise' in capsys.readouterr().out

    def test_a_better_one_is_kept(self, data, start, tmp_path, monkeypatch):
        settings = ['schedule.epochs=3', 'run.evaluate_every=0', 'run.compare_start=true', f'model.checkpoint={start}']
        interrupted(quick(*settings), data, tmp_path / 'run', monkeypatch, step=9)
        rows = self.rows(tmp_path / 'run')
        assert [row['epoch'] for row in rows] == ['0', '3']
        assert float(rows[1]['mAP']) > float(rows[0]['mAP'])
        saved = load_file(tmp_path / 'run' / 'model' / 'model.safetensors')
        assert not changed(saved, last(tmp_path / 'run')['model'])
        log = (tmp_path / 'run' / 'run.log').read_text()
        assert 'after epoch 3' in log
        assert 'did not raise' not in log

    def test_without_a_test_part(self, data, start, tmp_path):
        flat = tmp_path / 'flat'
        flat.mkdir()
        for path in (data / 'image_train').iterdir():
            os.symlink(path, flat / path.name)
        settings = ['schedule.epochs=1', 'run.compare_start=true', 'data.test_fraction=0', 'run.interpolate=0.5']
        result = train(quick(*settings, f'model.checkpoint={start}'), flat, tmp_path / 'run')
        assert result.comparison is None
        assert 'no test part' in (tmp_path / 'run' / 'run.log').read_text()
        saved = load_file(tmp_path / 'run' / 'model' / 'model.safetensors')
        assert changed(saved, load_file(start / 'model' / 'model.safetensors'))


class TestWhitening:
    """A run without a step."""

    settings = ('schedule.epochs=0', 'run.whiten=3', 'run.whiten_images=40', 'run.compare_start=true')

    def test_fits_one_and_changes_nothing_else(self, data, start, tmp_path):
        result = train(quick(*self.settings, f'model.checkpoint={start}'), data, tmp_path / 'run')
        assert (result.epochs, result.steps) == (1, 0)
        rows = list(csv.DictReader((tmp_path / 'run' / 'metrics.csv').open()))
        assert [(row['epoch'], row['step']) for row in rows] == [('0', '0'), ('1', '0')]
        before, after = (load_file(out / 'model' / 'model.safetensors') for out in (start, tmp_path / 'run'))
        assert not changed(after, before)
        log = (tmp_path / 'run' / 'run.log').read_text()
        assert 'whitening fitted to 48 images' in log  # whole batches
        assert 'whitened  ' in log
        better = float(rows[1]['mAP']) > float(rows[0]['mAP'])
        assert better == (after.keys() - before.keys() == {'whiten.matrix'})

    def test_is_the_matrix_of_plain_images(self, data, start, tmp_path):
        settings = ['augment.pad=0', 'augment.flip=0', 'augment.erasing=0', 'run.compare_start=false', 'batch.size=12']
        recipe = quick(*self.settings, *settings, 'run.whiten_images=72', f'model.checkpoint={start}')
        train(recipe, data, tmp_path / 'run')
        split = load_data(data).train
        model = timm.create_model(f'local-dir:{start / "model"}', pretrained=True).eval()
        transform = eval_transform(model.pretrained_cfg)
        with torch.no_grad():
            images = torch.stack([transform(Image.open(path).convert('RGB')) for path in split.paths])
            plain = model(images).numpy()
        matrix = load_file(tmp_path / 'run' / 'model' / 'model.safetensors')['whiten.matrix']
        expected = whitening_matrix(plain, split.pids, 3.0)
        # an epoch shows each image once or, to fill a batch, twice
        assert np.abs(matrix.numpy() - expected).max() < 0.2 * np.abs(expected - np.eye(len(expected))).max()

    def test_goes_on_in_a_further_run(self, data, start, tmp_path):
        first = quick(*self.settings, 'run.compare_start=false', f'model.checkpoint={start}')
        train(first, data, tmp_path / 'first')
        train(quick('schedule.epochs=1', f'model.checkpoint={tmp_path / "first"}'), data, tmp_path / 'second')
        weights = [load_file(tmp_path / run / 'model' / 'model.safetensors') for run in ('first', 'second')]
        assert torch.equal(*(each['whiten.matrix'] for each in weights))
        assert 'conv1.weight' in changed(*weights)


class TestTeacher:
    def test_of_another_width_pulls_cosines_of_pairs(self):
        torch.manual_seed(0)
        own, wanted = torch.randn(6, 8), torch.randn(6, 5)
        a, b = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (own, wanted))
        expected = sum((float(a[i] @ a[j]) - float(b[i] @ b[j])) ** 2 for i in range(6) for j in range(6)) / 36
        assert float(pull_loss(own, wanted)) == pytest.approx(expected, rel=1e-5)

    def test_of_the_same_width_pulls_embeddings(self):
        own = torch.randn(6, 8)
        assert float(pull_loss(own, 3 * own)) == pytest.approx(0, abs=1e-6)
        assert float(pull_loss(own, -own)) == pytest.approx(2)

    def test_is_a_network_of_its_own(self, data, start, tmp_path):
        teacher = f'local-dir:{start / "model"}'
        settings = ['schedule.epochs=3', 'loss.classifier=none', 'loss.metric=none', 'loss.pull=1', 'augment.erasing=0']
        train(quick(*settings, f'loss.teacher={teacher}'), data, tmp_path / 'run')
        pulls = [float(row['pull']) for row in csv.DictReader((tmp_path / 'run' / 'steps.csv').open())]
        assert sum(pulls[-3:]) < 0.8 * sum(pulls[:3])

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (['loss.teacher=dpa_resnet50.rendered'], r'needs loss\.pull above 0'),
            (['loss.teacher=dpa_resnet18', 'loss.pull=1'], 'give a tag that has weights'),
            (['loss.teacher=nobody', 'loss.pull=1'], 'nobody'),
        ],
    )
    def test_wrong_ones(self, data, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            train(quick(*settings), data, tmp_path / 'run')


class TestRecipe:
    def test_runs_as_it_is_written_with_small_weights(self, data, start, tmp_path):
        recipe = load_recipe('fine_tune')
        assert recipe.model.name == 'dpa_resnet50.rendered'
        small = [text for text in QUICK if text.startswith(('model.', 'data.', 'run.precision', 'run.tensorboard'))]
        settings = [*small, 'run.whiten_images=64', f'model.checkpoint={start}']
        options = ['--recipe', 'fine_tune', '--data', str(data), '--out', str(tmp_path / 'run')]
        assert main(['train', *options, *settings]) == 0
        assert len(list(csv.DictReader((tmp_path / 'run' / 'metrics.csv').open()))) == 2
        assert last(tmp_path / 'run')['step'] == 0


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (['schedule.keep_statistics=true'], 'random ones'),
        (['optim.trunk_lr=1.5'], r'optim\.trunk_lr'),
        (['schedule.freeze_stages=5'], r'schedule\.freeze_stages'),
        (['run.interpolate=0'], r'run\.interpolate must be'),
        (['run.interpolate=0.5'], r'run\.interpolate needs weights of the whole network'),
        (['loss.pull=-1'], r'loss\.pull must be'),
        (['loss.pull=1'], r'loss\.pull needs weights'),
        (['optim.anchor=-1'], r'optim\.anchor must be'),
        (['optim.anchor=101'], r'optim\.anchor must be'),
        (['optim.anchor=1'], 'random ones'),
        (['run.compare_start=true'], r'run\.compare_start needs weights'),
        (['schedule.epochs=0'], 'nothing to do'),
        (['run.whiten=0'], r'run\.whiten must be above 0'),
        (['run.whiten=1', 'run.whiten_images=0'], r'run\.whiten_images must be at least 1'),
    ],
)
def test_what_is_wrong_shows_before_the_work(data, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(quick(*settings), data, tmp_path / 'run')
