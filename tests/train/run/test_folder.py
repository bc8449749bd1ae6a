"""The folder of a run: its files, who may train in it, and runs that do not fit into it."""

import csv
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.cli.main import main
from timm_dpa.train.data.mixing import load_sources
from timm_dpa.train.run.checkpoints import load_checkpoint
from timm_dpa.train.run.distributed import Processes
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.trainer import Trainer, train


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'finished'
    train(quick('schedule.epochs=1', 'run.tensorboard=true'), data, out)
    return out


class TestFiles:
    def test_all_that_a_run_writes_have_a_name(self, finished):
        folder = RunFolder(finished)
        named = {path for path in vars(folder).values() if path != folder.path}
        there = {path for path in finished.iterdir() if path.name != 'evaluation.md'}
        assert there == {path for path in named if path.parent == finished} - {folder.lock}
        assert set(folder.checkpoints.iterdir()) - {folder.checkpoints / 'previous.pt'} == {folder.last, folder.best}
        assert folder.weights.is_file()

    def test_are_read(self, data, finished):
        folder = RunFolder(finished)
        assert folder.read_recipe() == quick('schedule.epochs=1', 'run.tensorboard=true')
        assert folder.read_data() == load_sources(data, quick().data).describe()
        row = next(csv.DictReader(folder.metrics.open()))
        assert folder.read_evaluation()['metrics']['mAP'] == pytest.approx(float(row['mAP']), abs=1e-6)

    def test_a_run_is_found_from_its_parts(self, finished, tmp_path):
        folder = RunFolder(finished)
        for part in (folder.path, folder.model, folder.weights, folder.last, folder.checkpoints):
            assert RunFolder.find(part).path == finished
        for other in (finished.parent, folder.figures, tmp_path):
            assert RunFolder.find(other) is None

    def test_damaged_ones_are_named(self, tmp_path):
        folder = RunFolder(tmp_path)
        assert folder.read_evaluation() is None
        with pytest.raises(FileNotFoundError):
            folder.read_data()
        folder.data.write_text('{')
        with pytest.raises(ValueError, match=r'data\.json: cannot be read'):
            folder.read_data()
        folder.data.write_text('{}')
        with pytest.raises(ValueError, match=r'data\.json: does not say what was trained on'):
            folder.read_data()


class TestRunsThatDoNotFit:
    def test_a_finished_run_that_should_get_longer_says_how_to_go_further(self, data, finished, tmp_path):
        longer = quick('schedule.epochs=2', 'run.tensorboard=true')
        with pytest.raises(ValueError, match=rf'finished run of 1 epochs.*--checkpoint {re.escape(str(finished))}'):
            train(longer, data, finished)
        result = train(longer.override([f'model.checkpoint={finished}']), data, tmp_path / 'further')
        assert result.epochs == 2

    def test_fewer_epochs_are_another_recipe(self, data, finished):
        with pytest.raises(ValueError, match=r'another recipe \(schedule\.epochs 1, now 0'):
            train(quick('schedule.epochs=0', 'run.whiten=3', 'run.tensorboard=true'), data, finished)


class TestOneAtATime:
    def test_a_second_training_says_who_is_first(self, data, finished, tmp_path, capsys):
        out = tmp_path / 'run'
        recipe = tmp_path / 'long.yaml'
        recipe.write_text(quick('schedule.epochs=10000', 'run.evaluate_every=0', 'data.workers=1').as_yaml())
        words = ['train', '--recipe', str(recipe), '--data', str(data), '--out', str(out)]
        first = subprocess.Popen(
            [sys.executable, '-m', 'timm_dpa.cli', *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not RunFolder(out).last.is_file() and first.poll() is None:
                time.sleep(0.01)
            log = RunFolder(out).log.read_text()
            assert main(words) == 1
            error = capsys.readouterr().err
            assert re.search(rf'{re.escape(str(out))}: is in use by process {first.pid} on \S+ since \d{{4}}-', error)
            assert 'resumes' not in RunFolder(out).log.read_text()[len(log) :]
            step = load_checkpoint(RunFolder(out).last)['step']
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        # its worker may live for some seconds, and the folder is free all the same
        with RunFolder(out).alone(Processes()):
            assert load_checkpoint(RunFolder(out).last)['step'] >= step
        assert not RunFolder(out).lock.exists()

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / 'run').write_text('')
        with pytest.raises(ValueError, match='is a file'), RunFolder(tmp_path / 'run').alone(Processes()):
            pass


class TestEvaluations:
    def write_csv(self, root, rows):
        """Images of `data`-like vehicles with the cameras and parts of `rows`, (vehicle, camera, part)."""
        source = sorted((write_vehicles(root / 'images', identities=6, images=6) / 'image_train').iterdir())
        lines = [f'{path},{pid},{camid},{part}' for path, (pid, camid, part) in zip(source, rows, strict=False)]
        (root / 'set.csv').write_text('path,pid,camid,split\n' + '\n'.join(lines) + '\n')
        return root / 'set.csv'

    TRAIN = tuple((f't{k // 2}', k % 2, 'train') for k in range(8))
    SMALL = ('batch.size=8', 'batch.images_per_identity=2', 'schedule.epochs=1')

    @pytest.mark.parametrize(
        ('test', 'settings', 'remedy'),
        [
            (
                [(f'v{k}', k, 'test') for k in range(4) for _ in range(2)],
                ['data.protocol=cross-camera'],
                'data.exclude_same_camera=false',
            ),
            (
                [(f'v{k}', k, part) for k in range(4) for part in ('query', 'gallery')],
                [],
                'data.exclude_same_camera=false',
            ),
            (
                [(f'v{k}', 0, part) for k in range(4) for part in ('query', 'gallery')],
                ['data.protocol=cross-camera'],
                'protocol vru',
            ),
            ([(f'{part}{k}', 1 + k, part) for k in range(4) for part in ('query', 'gallery')], [], 'test part'),
        ],
        ids=['a camera for each vehicle', 'the same with parts', 'one camera', 'disjoint'],
    )
    def test_that_cannot_give_a_score_are_refused_before_the_first_step(self, tmp_path, test, settings, remedy):
        table = self.write_csv(tmp_path, [*self.TRAIN, *test])
        recipe = quick(*self.SMALL, *settings)
        with pytest.raises(ValueError, match=remedy) as error:
            train(recipe, table, tmp_path / 'run')
        assert not (tmp_path / 'run' / 'steps.csv').exists()
        advice = re.search(r'data\.\w+=\w+', str(error.value))
        if advice:
            assert train(recipe.override([advice[0]]), table, tmp_path / 'run').best is not None

    def test_one_image_by_each_camera_is_enough(self, tmp_path):
        table = self.write_csv(tmp_path, [*self.TRAIN, *[(f'v{k}', c, 'test') for k in range(4) for c in (1, 2)]])
        assert train(quick(*self.SMALL), table, tmp_path / 'run').best is not None

    def test_one_that_fails_all_the_same_costs_neither_training_nor_model(self, data, tmp_path):
        broken = write_vehicles(tmp_path / 'data', identities=18, images=6)
        for path in (broken / 'image_query').iterdir():
            path.write_bytes(b'no image')
        result = train(quick('schedule.epochs=2', 'run.compare_start=false'), broken, tmp_path / 'run')
        folder = RunFolder(tmp_path / 'run')
        assert (result.epochs, result.best) == (2, None)
        assert folder.log.read_text().count('failed, and the training continues without it') == 2
        state, best = (load_checkpoint(path)['model'] for path in (folder.last, folder.best))
        assert all((state[name] == best[name]).all() for name in best)
        assert folder.weights.is_file()
        # where an earlier one succeeded, its model stays
        assert not folder.evaluation.exists()


def test_a_trainer_takes_batches_from_elsewhere(data, tmp_path):
    recipe = quick('batch.per_epoch=3', 'run.evaluate_every=0', 'run.checkpoint_every=0')
    trainer = Trainer(recipe, load_sources(data, recipe.data), RunFolder(tmp_path / 'run'), Processes(), False)
    batches = list(trainer.batches.epoch(0))
    with trainer.session():
        trainer.train_epoch(batches)
    assert (trainer.batch, trainer.learner.step) == (3, 3)
    theirs = Trainer(recipe, load_sources(data, recipe.data), RunFolder(tmp_path / 'other'), Processes(), False)
    with theirs.session():
        theirs.train_epoch()
    ours, theirs = (each.learner.state()['model'] for each in (trainer, theirs))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert json.loads(RunFolder(tmp_path / 'run').data.read_text())
