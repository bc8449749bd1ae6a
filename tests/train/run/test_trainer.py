"""Training: it learns, it resumes after anything that stops it, and several processes compute what one does."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from timm.data import resolve_data_config

from tests.support.processes import heed_ctrl_c
from tests.support.runs import QUICK, quick
from tests.support.vehicles import write_vehicles
from timm_dpa import FeatureExtractor
from timm_dpa.cli.main import main
from timm_dpa.train.data.datasets import load_data, train_labels
from timm_dpa.train.data.transforms import eval_transform
from timm_dpa.train.evaluation.evaluate import evaluate_model
from timm_dpa.train.run.checkpoints import load_checkpoint
from timm_dpa.train.run.networks import create_network
from timm_dpa.train.run.task import ReIDTask
from timm_dpa.train.run.trainer import train
from timm_dpa.train.samplers import IdentitySampler


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp('runs') / 'whole'
    train(quick(), data, out)
    return out


def command(data: Path, out: Path, *settings: str) -> list[str]:
    options = ['--recipe', str(write_base(out)), '--data', str(data), '--out', str(out)]
    return [sys.executable, '-m', 'timm_dpa.cli', 'train', *options, *settings]


def write_base(out: Path) -> Path:
    path = out.with_name('base.yaml')
    path.write_text(quick().as_yaml())
    return path


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out / 'checkpoints' / 'last.pt')['model']


def assert_same_weights(ours: Path, theirs: Path) -> None:
    a, b = weights(ours), weights(theirs)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    without_time = [
        [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(path.open())]
        for path in (ours / 'metrics.csv', theirs / 'metrics.csv')
    ]
    assert without_time[0] == without_time[1]


class TestARun:
    def test_it_learns_and_leaves_what_it_says(self, data, finished):
        rows = list(csv.DictReader((finished / 'metrics.csv').open()))
        assert [row['epoch'] for row in rows] == ['1', '2', '3']
        steps = list(csv.DictReader((finished / 'steps.csv').open()))
        assert float(steps[-1]['loss']) < float(steps[0]['loss'])
        assert [int(row['step']) for row in steps] == list(range(1, len(steps) + 1))
        for name in ('recipe.yaml', 'run.log', 'evaluation.json', 'evaluation.md', 'model/config.json'):
            assert (finished / name).stat().st_size > 0
        best = max(float(row['mAP']) for row in rows)
        assert json.loads((finished / 'evaluation.json').read_text())['metrics']['mAP'] == pytest.approx(best, abs=1e-6)

    def test_its_model_is_the_best_one_without_classifier(self, data, finished):
        best = load_checkpoint(finished / 'checkpoints' / 'best.pt')['model']
        saved = load_file(finished / 'model' / 'model.safetensors')
        assert set(best) - set(saved) == {'fc.weight'}
        assert all(torch.equal(saved[name], best[name]) for name in saved)
        model = timm.create_model(f'local-dir:{finished / "model"}', pretrained=True)
        assert (model.num_classes, tuple(model.pretrained_cfg['input_size'])) == (0, (3, 32, 32))
        image = next((data / 'image_test').iterdir())
        assert FeatureExtractor(f'local-dir:{finished / "model"}')(image).shape == (1, 64)

    def test_a_finished_run_is_not_done_again(self, data, finished):
        before = (finished / 'checkpoints' / 'last.pt').read_bytes()
        assert train(quick(), data, finished).finished_before
        assert (finished / 'checkpoints' / 'last.pt').read_bytes() == before

    def test_another_recipe_or_other_data_are_refused(self, data, finished, tmp_path):
        with pytest.raises(ValueError, match=r'another recipe.*optim\.lr'):
            train(quick('optim.lr=0.5'), data, finished)
        others = write_vehicles(tmp_path / 'others', identities=24)
        with pytest.raises(ValueError, match='other data'):
            train(quick(), others, finished)
        train(quick('run.log_every=7'), data, finished)  # what does not change the result may differ

    def test_a_folder_with_other_things_is_left_alone(self, data, tmp_path):
        (tmp_path / 'holiday.jpg').write_bytes(b'x')
        with pytest.raises(ValueError, match='other things than a run'):
            train(quick(), data, tmp_path)
        assert os.listdir(tmp_path) == ['holiday.jpg']

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (['batch.images_per_identity=5'], 'multiple of images_per_identity'),
            (['batch.size=64'], 'at most 12'),
            (['batch.accumulate=0'], 'accumulate'),
            (['model.name=dpa_resnet19'], 'dpa_resnet19'),
            (['loss.classifier=none', 'loss.metric=none'], 'nothing to learn from'),
            (['loss.metric_args={margn: 1}'], 'margn'),
            (['model.init_from=nowhere.safetensors'], 'nowhere.safetensors'),
            (['data.draws=3'], 'picks nothing at random'),
            (['run.log_every=0'], 'log_every'),
            (['run.ema=1.5'], r'run\.ema'),
            (['optim.clip_grad=0'], 'clip_grad'),
            (['schedule.early_sizes=[[3, 32]]'], 'early_sizes'),
            (['augment.sensor=9'], 'sensor'),
        ],
    )
    def test_what_is_wrong_shows_before_the_work(self, data, tmp_path, settings, message):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(quick(*settings), data, tmp_path / 'run')


class TestOptions:
    @pytest.mark.parametrize(
        'settings',
        [
            ['run.ema=0.9', 'optim.clip_grad=1', 'batch.accumulate=3', 'run.flip=true'],
            ['schedule.freeze_steps=4', 'optim.layer_decay=0.7', 'run.channels_last=false', 'optim.lr=4e-3'],
            ['loss.classifier=circle', 'loss.metric=supcon', 'loss.metric_feature=after_neck', 'data.workers=2'],
            ['loss.classifier=none', 'loss.metric=multi_similarity', 'run.precision=bf16'],
            ['loss.metric=none', 'run.precision=fp16', 'run.tensorboard=true'],
            ['model.name=dpa_resnet18', 'model.args.attn_stages=[2, 3]', 'loss.smooth_target=false'],
        ],
        ids=lambda settings: settings[0],
    )
    def test_it_learns(self, data, tmp_path, settings):
        plain = ['augment.erasing=0', 'augment.flip=0', 'schedule.epochs=4', 'run.evaluate_every=4']
        result = train(quick(*plain, *settings), data, tmp_path / 'run')
        rows = list(csv.DictReader((tmp_path / 'run' / 'steps.csv').open()))
        losses = [float(row['classifier' if 'classifier' in row else 'loss']) for row in rows]
        half = len(losses) // 2
        assert sum(losses[-half:]) < 0.98 * sum(losses[:half])
        assert result.best['mAP'] > 0.1
        model = timm.create_model(f'local-dir:{tmp_path / "run" / "model"}', pretrained=True)
        best = load_checkpoint(tmp_path / 'run' / 'checkpoints' / 'best.pt')['model']
        assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())

    def test_images_grow_also_after_an_interruption(self, data, tmp_path, monkeypatch):
        recipe = quick('data.image_size=48', 'schedule.early_sizes=[[1, 32]]', 'augment.sensor=1')
        seen = []
        forward = ReIDTask.forward

        def watch(task, pixels, labels, *wanted):
            seen.append(tuple(pixels.shape[2:]))
            return forward(task, pixels, labels, *wanted)

        monkeypatch.setattr(ReIDTask, 'forward', watch)
        train(recipe, data, tmp_path / 'whole')
        steps = len(seen) // 3
        assert seen == [(32, 32)] * steps + [(48, 48)] * 2 * steps
        config = json.loads((tmp_path / 'whole' / 'model' / 'config.json').read_text())
        assert config['pretrained_cfg']['input_size'] == [3, 48, 48]

        def stop(task, pixels, labels, *wanted):
            if pixels.shape[2] == 48:
                raise KeyboardInterrupt
            return forward(task, pixels, labels, *wanted)

        monkeypatch.setattr(ReIDTask, 'forward', stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, tmp_path / 'half')
        monkeypatch.setattr(ReIDTask, 'forward', forward)
        train(recipe, data, tmp_path / 'half')
        assert_same_weights(tmp_path / 'half', tmp_path / 'whole')

    def test_any_backbone_of_timm(self, data, tmp_path):
        settings = ['model.name=resnet18', 'model.args={layers: [1, 1, 1, 1], channels: [8, 16, 32, 64]}']
        train(quick('schedule.epochs=1', *settings), data, tmp_path / 'run')
        model = timm.create_model(f'local-dir:{tmp_path / "run" / "model"}', pretrained=True).eval()
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
        best = load_checkpoint(tmp_path / 'run' / 'checkpoints' / 'best.pt')['model']
        assert torch.equal(model.backbone.conv1.weight, best['backbone.conv1.weight'])

    def test_accumulated_batches_have_the_mean_of_their_gradients(self, data, tmp_path):
        settings = ['loss.metric=none', 'optim.name=momentum', 'optim.momentum=0', 'optim.weight_decay=0', 'optim.lr=1']
        settings += [
            'augment.erasing=0',
            'augment.flip=0',
            'augment.pad=0',
            'schedule.epochs=1',
            'batch.accumulate=100',
        ]
        recipe = quick(*settings)
        train(recipe, data, tmp_path / 'run')
        # a whole epoch is one step
        assert len(list(csv.DictReader((tmp_path / 'run' / 'steps.csv').open()))) == 1

        split = load_data(data).train
        labels, identities = train_labels(split)
        torch.manual_seed(0)
        model = create_network(recipe.model, len(identities), (32, 32)).train()
        start = model.fc.weight.detach().clone()
        transform = eval_transform(resolve_data_config(model=model))
        batches = list(IdentitySampler(labels, split.camids, identities=4, images=4))
        for rows in batches:
            pixels = torch.stack([transform(Image.open(split.paths[row])) for row in rows])
            target = torch.from_numpy(labels[rows])
            (F.cross_entropy(model(pixels), target, label_smoothing=0.1) / len(batches)).backward()
        torch.testing.assert_close(weights(tmp_path / 'run')['fc.weight'], start - model.fc.weight.grad)

    def test_fine_tuning_starts_from_a_run(self, data, finished, tmp_path):
        settings = ['schedule.epochs=1', 'optim.name=sgd', 'optim.lr=1e-12', 'optim.weight_decay=0']
        train(quick(*settings, f'model.checkpoint={finished}'), data, tmp_path / 'tuned')
        saved = load_file(finished / 'model' / 'model.safetensors')
        tuned = load_file(tmp_path / 'tuned' / 'model' / 'model.safetensors')
        for name in ('conv1.weight', 'layer3.attn.spa.conv1.weight', 'global_pool.p'):
            torch.testing.assert_close(tuned[name], saved[name], atol=1e-6, rtol=0)

    def test_any_backbone_at_another_size_and_tuned_from_its_folder(self, data, tmp_path):
        small = 'model.args={color_norm: true, depth: 1, embed_dim: 24, num_heads: 2, patch_size: 8}'
        vit = ['model.name=vit_tiny_patch16_224', small, 'schedule.epochs=1']
        train(quick(*vit), data, tmp_path / 'first')
        folder = f'local-dir:{tmp_path / "first" / "model"}'
        tuned = [
            'model.args={}',
            f'model.name={folder}',
            'schedule.epochs=1',
            'model.init_from=imagenet',
            'optim.lr=1e-9',
        ]
        train(quick(*tuned), data, tmp_path / 'second')
        first, second = (
            timm.create_model(f'local-dir:{tmp_path / name / "model"}', pretrained=True) for name in ('first', 'second')
        )
        assert first.backbone.patch_embed.img_size == (32, 32)
        torch.testing.assert_close(second.backbone.blocks[0].attn.qkv.weight, first.backbone.blocks[0].attn.qkv.weight)
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for model in (first, second):  # a cast of color is taken away
            cast = images + torch.tensor([0.3, -0.2, 0.1])[:, None, None]
            torch.testing.assert_close(model.eval()(cast), model(images))

    def test_no_test_images(self, data, tmp_path):
        flat = tmp_path / 'flat'
        flat.mkdir()
        for path in (data / 'image_train').iterdir():
            os.symlink(path, flat / path.name)
        result = train(quick('schedule.epochs=1', 'data.test_fraction=0'), flat, tmp_path / 'run')
        assert result.best is None
        assert (tmp_path / 'run' / 'model' / 'model.safetensors').is_file()


@pytest.fixture(scope='module')
def half(data, tmp_path_factory) -> Path:
    """The same run, killed in its second epoch."""
    out = tmp_path_factory.mktemp('runs') / 'half'
    kill_after(8, command(data, out), out)
    return out


def kill_after(steps: int, arguments: list[str], out: Path) -> None:
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while process.poll() is None and steps_done(out) < steps and time.time() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL


class TestInterruptions:
    def test_killed_again_and_again_it_ends_with_the_same_weights(self, data, finished, half, tmp_path):
        out = shutil.copytree(half, tmp_path / 'killed')
        kill_after(14, command(data, out, 'data.workers=1'), out)
        (out / 'checkpoints' / '.last.pt.tmp123').write_bytes(b'killed while writing')
        (out / '.model.tmp123').mkdir()
        train(quick(), data, out)
        assert_same_weights(out, finished)
        assert not list(out.rglob('.*tmp*'))
        steps = [int(row['step']) for row in csv.DictReader((out / 'steps.csv').open())]
        assert steps == list(range(1, len(steps) + 1))

    @pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
    def test_asked_to_stop_it_writes_a_checkpoint(self, data, finished, tmp_path, number):
        out = tmp_path / 'stopped'
        process = subprocess.Popen(
            command(data, out, 'run.checkpoint_every=0', 'data.workers=2'),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
            start_new_session=True,
        )
        while steps_done(out) < 2 and process.poll() is None:
            time.sleep(0.005)
        os.killpg(process.pid, number)  # terminals and launchers ask all
        errors = process.communicate()[1]
        assert process.returncode == 130
        assert 'rerun the command to resume' in errors
        assert load_checkpoint(out / 'checkpoints' / 'last.pt')['step'] >= 2
        train(quick('run.checkpoint_every=0'), data, out)
        assert_same_weights(out, finished)

    def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(self, data, finished, half, tmp_path):
        out = shutil.copytree(half, tmp_path / 'damaged')
        last = out / 'checkpoints' / 'last.pt'
        last.write_bytes(last.read_bytes()[:-1000])
        train(quick(), data, out)
        assert 'damaged, or not a checkpoint of a training run; took the one before it' in (out / 'run.log').read_text()
        assert_same_weights(out, finished)

    def test_a_loss_that_is_no_number_stops_and_leaves_a_good_checkpoint(self, data, tmp_path):
        out = tmp_path / 'nan'
        recipe = quick('optim.lr=1e30', 'optim.name=sgd', 'run.checkpoint_every=1', 'schedule.warmup_steps=6')
        with pytest.raises(FloatingPointError, match=r'step \d+.*learning rate.*checkpoint of step.*optim\.lr'):
            train(recipe, data, out)
        state = load_checkpoint(out / 'checkpoints' / 'last.pt')
        assert all(torch.isfinite(value).all() for value in state['model'].values())

    def test_a_full_disk_stops_and_the_checkpoint_is_good(self, data, finished, half, tmp_path, capsys):
        out = shutil.copytree(half, tmp_path / 'full')
        good = load_checkpoint(out / 'checkpoints' / 'last.pt')['step']
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # no file can become larger
        try:
            assert main(command(data, out)[3:]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        errors = capsys.readouterr().err.strip()
        assert f'the checkpoint of step {good} is good' in errors
        assert '\n' not in errors
        assert load_checkpoint(out / 'checkpoints' / 'last.pt')['step'] == good
        train(quick(), data, out)
        assert_same_weights(out, finished)

    def test_an_unreadable_image_is_skipped_and_named(self, tmp_path):
        data = write_vehicles(tmp_path / 'data', identities=18, images=6)
        bad = sorted((data / 'image_train').iterdir())[3]
        bad.write_bytes(b'no image')
        tested = sorted((data / 'image_test').iterdir())[0]
        tested.write_bytes(tested.read_bytes()[:200])
        result = train(quick('schedule.epochs=1', 'data.workers=1'), data, tmp_path / 'run')
        log = (tmp_path / 'run' / 'run.log').read_text()
        assert f'skipped: {bad}' in log
        assert f'left out: {tested}' in log
        assert result.epochs == 1


@pytest.fixture(scope='module')
def pair(data, tmp_path_factory) -> Path:
    """The same run by two processes."""
    out = tmp_path_factory.mktemp('runs') / 'pair'
    together(data, out, 'train')
    return out


class TestSeveralProcesses:
    def test_the_same_batches_and_close_weights(self, pair, finished):
        ours, theirs = (list(csv.DictReader((out / 'steps.csv').open())) for out in (pair, finished))
        assert [row['step'] for row in ours] == [row['step'] for row in theirs]
        # the metric loss before the neck of the first step sees the same pairs, but for batch norms of half a batch
        assert float(ours[0]['loss']) == pytest.approx(float(theirs[0]['loss']), rel=0.1)
        assert 'processes on cpu' in (pair / 'run.log').read_text()

    def test_metrics_of_several_processes_are_those_of_one(self, pair, data):
        alone = evaluate_model(
            FeatureExtractor(f'local-dir:{pair / "model"}', precision='fp32', batch_size=8), load_data(data)
        )
        together = json.loads((pair / 'evaluation.json').read_text())
        assert together['metrics'] == pytest.approx(alone.metrics, abs=1e-6)
        assert together['cmc'] == pytest.approx(alone.cmc.tolist(), abs=1e-6)


def together(data: Path, out: Path, *arguments: str) -> str:
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'timm_dpa.cli']
    done = subprocess.run(
        [
            sys.executable,
            *launcher,
            *arguments,
            '--recipe',
            str(write_base(out)),
            '--data',
            str(data),
            '--out',
            str(out),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    'settings',
    [
        ['loss.classifier=none', 'loss.metric_feature=before_neck'],
        ['loss.classifier=none', 'loss.metric_feature=after_neck'],
        ['model.name=convnext_atto', 'model.args={depths: [1, 1, 1, 1], dims: [8, 16, 24, 32]}'],
    ],
    ids=['before', 'after', 'convnext'],
)
def test_parameters_without_gradient_do_not_stop_several_processes(data, tmp_path, settings):
    together(data, tmp_path / 'run', 'train', *settings, 'schedule.epochs=1')


@pytest.mark.slow
def test_a_table_by_several_processes(data, tmp_path):
    out = together(data, tmp_path / 'table', 'ablate', 'table6', '--epochs', '1')
    assert f'md: {tmp_path / "table" / "table6.md"}' in out


def steps_done(out: Path) -> int:
    path = out / 'steps.csv'
    return max(0, path.read_text().count('\n') - 1) if path.is_file() else 0


def test_the_quick_settings_are_a_recipe():
    assert quick().model.args['layers'] == [1, 1, 1, 1]
    assert len(QUICK) == len({setting.partition('=')[0] for setting in QUICK})
