"""Further data sets in the training: whose images a batch has, over epochs, processes and interruptions."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from tests.train.run.test_fine_tuning import changed, interrupted, last
from timm_dpa.train.data.mixing import MixedSampler, TrainingSources, load_sources
from timm_dpa.train.data.provenance import write_about
from timm_dpa.train.recipes.recipe import AugmentRecipe, BatchRecipe, DataRecipe, Recipe
from timm_dpa.train.run.task import ReIDTask
from timm_dpa.train.run.trainer import Trainer, train
from timm_dpa.train.samplers import IdentitySampler

CONFIG = {'input_size': (3, 32, 32), 'interpolation': 'bicubic', 'mean': (0.5,) * 3, 'std': (0.5,) * 3}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_vehicles(tmp_path_factory.mktemp('data') / 'street', identities=18, images=6)


@pytest.fixture(scope='module')
def rendered(tmp_path_factory):
    """Synthetic vehicles with train and test parts."""
    root = write_vehicles(tmp_path_factory.mktemp('data') / 'rendered', identities=9, images=7, seed=1)
    write_about(root, 'rendered squares', 'Squares of a renderer.', synthetic=True)
    return root


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A folder per vehicle, no parts."""
    root = tmp_path_factory.mktemp('data') / 'crops'
    for number in range(3):
        (root / f'car{number}').mkdir(parents=True)
        for image in range(5):
            Image.new('RGB', (32, 32), (80 * number, 40 * image, 99)).save(root / f'car{number}' / f'{image}.png')
    return root


def sources(root, *mix, **options) -> TrainingSources:
    return load_sources(root, DataRecipe(mix=[str(path) for path in mix], **options))


class TestSources:
    def test_train_parts_or_all_images_with_labels_of_their_own(self, data, rendered, folders):
        found = sources(data, rendered, folders)
        assert [len(source.train) for source in found.sources] == [72, 42, 15]
        assert found.identities == 12 + 6 + 3
        labels = np.concatenate(found.labels)
        assert sorted(set(labels.tolist())) == list(range(21))
        assert not set(found.labels[0]) & set(found.labels[1]) & set(found.labels[2])
        # an item's label is that of its row, its image that of its path
        images = found.images(CONFIG, AugmentRecipe(pad=0, flip=0, erasing=0))
        paths = [path for source in found.sources for path in source.train.paths]
        assert len(images) == len(paths) == len(labels)
        for row in (0, 71, 72, 113, 114, 128):
            pixels, label, read, message = images[row, 5]
            assert read == row
            assert (label, message) == (labels[row], '')
            expected = torch.from_numpy(np.array(Image.open(paths[row]).convert('RGB'))).permute(2, 0, 1) / 127.5 - 1
            torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)

    def test_images_of_a_set_with_a_test_part_only(self, data, folders, tmp_path):
        (tmp_path / 'tested').mkdir()
        (tmp_path / 'tested' / 'test').symlink_to(folders)
        found = sources(data, tmp_path / 'tested')
        assert len(found.sources[1].train) == 15
        assert found.describe()['mix'][0]['test']['images'] == 0

    def test_describe_themselves(self, data, rendered, folders):
        about = sources(data, rendered, folders).describe()
        assert (about['name'], about['train']['images'], about['test']['images']) == ('street', 72, 36)
        assert [source['name'] for source in about['mix']] == ['rendered squares', 'crops']
        assert [source.get('synthetic', False) for source in about['mix']] == [True, False]
        assert about['mix'][0]['description'] == 'Squares of a renderer.'
        assert [source['train']['images'] for source in about['mix']] == [42, 15]
        assert 'mix' not in sources(data).describe()

    def test_wrong_ones(self, data, rendered, tmp_path):
        with pytest.raises(FileNotFoundError, match='nowhere'):
            sources(data, tmp_path / 'nowhere')
        for mix in ([data], [rendered, rendered]):
            with pytest.raises(ValueError, match='among the data already'):
                sources(data, *mix)

    def test_a_clean_render_gets_the_sensor_and_a_photograph_does_not(self, data, rendered):
        found = sources(data, rendered)
        plain, everywhere, synthetic, both = (
            found.images(CONFIG, AugmentRecipe(pad=0, flip=0, erasing=0, **options))
            for options in (
                {},
                {'sensor': 1.0},
                {'sensor': 1.0, 'real': {'sensor': 0}},
                {'sensor': 1.0, 'real': {'sensor': 0.5}},
            )
        )
        real, render = (3, 7), (80, 7)
        assert torch.equal(synthetic[real][0], plain[real][0])
        assert torch.equal(synthetic[render][0], everywhere[render][0])
        assert not torch.equal(everywhere[real][0], plain[real][0])
        assert not torch.equal(everywhere[render][0], plain[render][0])
        only_half = found.images(CONFIG, AugmentRecipe(pad=0, flip=0, erasing=0, sensor=0.5))
        assert torch.equal(both[real][0], only_half[real][0])

    @pytest.mark.parametrize('key', ['pad', 'sensors', 'real'])
    def test_keys_that_photographs_cannot_have_for_themselves(self, key):
        with pytest.raises(ValueError, match=f'augment.real has no key {key}; there are flip'):
            Recipe().override([f'augment.real.{key}=0'])
        with pytest.raises(ValueError, match=r"augment\.real\.sensor='off': must be a number"):
            Recipe().override(['augment.real.sensor="off"'])
        with pytest.raises(ValueError, match=r'augment\.real\.sensor must be in 0\.\.4, not 5'):
            Recipe().override(['augment.real.sensor=5'])


def epochs(sampler, count):
    result = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        result.append(list(sampler))
    return result


class TestBatches:
    @pytest.mark.parametrize(('share', 'others'), [(0.5, 2), (0.25, 1), (0.01, 1), (0.99, 3)])
    def test_share_of_identities(self, data, rendered, share, others):
        found = sources(data, rendered)
        labels = np.concatenate(found.labels)
        sampler = found.sampler(BatchRecipe(size=16, images_per_identity=4, mix=share), seed=3)
        # a pass over the main data: 12 vehicles of 6 images are 24 groups of 4
        assert len(sampler) == -(-24 // (4 - others))
        for batches in epochs(sampler, 3):
            assert len(batches) == len(sampler)
            for rows in batches:
                names, counts = np.unique(labels[rows], return_counts=True)
                assert counts.tolist() == [4] * 4
                assert (names >= 12).sum() == others

    def test_the_main_data_define_the_epoch_and_the_others_go_round(self, data, rendered):
        found = sources(data, rendered)
        batch = BatchRecipe(size=16, images_per_identity=4)
        main = found.sampler(batch, seed=3)
        alone = IdentitySampler(found.labels[0], found.sources[0].train.camids, 2, 4, seed=3)
        others = IdentitySampler(found.labels[1], found.sources[1].train.camids, 2, 4, seed=4)
        expected = [rows for part in epochs(others, 9) for rows in part]
        number = 0
        for ours, theirs in zip(epochs(main, 4), epochs(alone, 4), strict=True):
            for rows, plain in zip(ours, theirs, strict=True):
                assert [row for row in rows if row < 72] == plain
                assert [row - 72 for row in rows if row >= 72] == expected[number]
                number += 1
        assert number > 2 * len(others)

    def test_epochs_of_any_length_show_what_a_pass_shows(self, data):
        found = sources(data)
        plain = found.sampler(BatchRecipe(size=16, images_per_identity=4), seed=3)
        assert isinstance(plain, IdentitySampler)
        passes = [rows for part in epochs(plain, 4) for rows in part]
        for length in (4, 9):
            sampler = found.sampler(BatchRecipe(size=16, images_per_identity=4, per_epoch=length), seed=3)
            assert len(sampler) == length
            assert [rows for part in epochs(sampler, 2) for rows in part] == passes[: 2 * length]

    def test_starts_anywhere(self, data, rendered):
        sampler = sources(data, rendered).sampler(BatchRecipe(size=16, images_per_identity=4, per_epoch=5), seed=3)
        whole = epochs(sampler, 4)[3]
        sampler.set_epoch(3, 2)
        assert list(sampler) == whole[2:]

    @pytest.mark.parametrize('world_size', [2, 4])
    def test_processes_share_batches_and_each_has_both_kinds(self, data, rendered, world_size):
        found = sources(data, rendered)
        batch = BatchRecipe(size=32, images_per_identity=4)
        whole = epochs(found.sampler(batch, 3), 2)
        parts = [epochs(found.sampler(batch, 3, rank, world_size), 2) for rank in range(world_size)]
        for epoch, batches in enumerate(whole):
            for number, rows in enumerate(batches):
                shares = [part[epoch][number] for part in parts]
                assert list(itertools.chain(*shares)) == rows
                assert {sum(row >= 72 for row in share) for share in shares} == {16 // world_size}
        with pytest.raises(ValueError, match='cannot share'):
            found.sampler(batch, 3, 0, 3)

    def test_wrong_ones(self, data, rendered):
        found = sources(data, rendered)
        for batch, message in [
            (BatchRecipe(size=4), 'no room'),
            (BatchRecipe(size=15), 'multiple of images_per_identity'),
            (BatchRecipe(size=64), r'data\.mix with batch\.mix=0\.5: a batch of 8 identities'),
        ]:
            with pytest.raises(ValueError, match=message):
                found.sampler(batch, 0)
        sampler = found.sampler(BatchRecipe(size=16), 0)
        assert isinstance(sampler, MixedSampler)
        for epoch, first in ((-1, 0), (0, len(sampler) + 1)):
            with pytest.raises(ValueError, match='must be'):
                sampler.set_epoch(epoch, first)


class TestRuns:
    def test_goes_on_bit_for_bit_wherever_the_data_lie(self, data, rendered, tmp_path, monkeypatch):
        settings = ['schedule.epochs=3', 'batch.per_epoch=4', 'augment.sensor=1', 'augment.real={sensor: 0}']
        recipe = quick(*settings, f'data.mix=[{rendered}]')
        train(recipe, data, tmp_path / 'whole')
        interrupted(recipe, data, tmp_path / 'half', monkeypatch, step=6)
        assert not changed(last(tmp_path / 'whole')['model'], last(tmp_path / 'half')['model'])
        assert last(tmp_path / 'whole')['model']['fc.weight'].shape[0] == 12 + 6
        about = json.loads((tmp_path / 'whole' / 'data.json').read_text())
        assert [source['name'] for source in about['mix']] == ['rendered squares']
        assert 'mixed in: 42 synthetic images of 6 identities' in (tmp_path / 'whole' / 'run.log').read_text()
        moved = tmp_path / 'moved'
        moved.symlink_to(rendered)
        train(quick(*settings, f'data.mix=[{moved}]'), data, tmp_path / 'whole')
        with pytest.raises(ValueError, match='other data'):
            train(quick(*settings), data, tmp_path / 'whole')

    def test_labels_and_images_of_both_kinds_reach_the_loss(self, data, rendered, tmp_path, monkeypatch):
        seen = []
        forward = ReIDTask.forward

        def watch(task, pixels, labels, *wanted):
            seen.extend(labels.tolist())
            return forward(task, pixels, labels, *wanted)

        monkeypatch.setattr(ReIDTask, 'forward', watch)
        train(quick('schedule.epochs=1', 'data.workers=2', f'data.mix=[{rendered}]'), data, tmp_path / 'run')
        assert set(seen) == set(range(18))
        assert sum(label >= 12 for label in seen) == len(seen) / 2

    def test_checkpoints_of_a_version_without_these_keys_go_on(self, data, tmp_path, monkeypatch):
        state = Trainer.state

        def older(run):
            old = state(run)
            for section, key in (
                ('data', 'mix'),
                ('batch', 'mix'),
                ('batch', 'per_epoch'),
                ('augment', 'real'),
                ('optim', 'trunk_lr'),
                ('schedule', 'keep_statistics'),
            ):
                del old['recipe'][section][key]
            return old

        monkeypatch.setattr(Trainer, 'state', older)
        interrupted(quick('schedule.epochs=1'), data, tmp_path / 'run', monkeypatch, step=3)
        with pytest.raises(ValueError, match=r'another recipe.*trunk_lr'):
            train(quick('schedule.epochs=1', 'optim.trunk_lr=0.5'), data, tmp_path / 'run')
