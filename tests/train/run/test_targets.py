"""Targets: the right embedding for each image, cosines that survive another width, and runs that come near them."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.ranking_reference import cosine_distances
from tests.support.runs import interrupted, quick
from tests.support.vehicles import write_vehicles
from timm_dpa import FeatureExtractor
from timm_dpa.cli.main import main
from timm_dpa.embedding.files import EmbeddingsFile, load_embeddings, save_embeddings
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.recipes.recipe import LossRecipe
from timm_dpa.train.run.checkpoints import load_checkpoint
from timm_dpa.train.run.targets import load_targets, main_directions
from timm_dpa.train.run.trainer import train


def cosines(vectors):
    return 1 - cosine_distances(vectors, vectors)


class TestDirections:
    def test_narrow_ones_keep_all_cosines(self):
        vectors = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
        wide = main_directions(vectors, 8)
        assert (wide.shape, wide.dtype) == ((20, 8), np.float32)
        np.testing.assert_allclose(cosines(wide), cosines(vectors), atol=1e-6)

    def test_wide_ones_lose_what_the_smallest_singular_values_hold(self):
        rng = np.random.default_rng(0)
        vectors = (rng.standard_normal((50, 30)) * 0.8 ** np.arange(30)).astype(np.float32)
        left, values, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
        expected = left[:, :8] * values[:8]
        np.testing.assert_allclose(cosines(main_directions(vectors, 8)), cosines(expected), atol=1e-5)

    def test_no_number_carries_much_more_than_another(self):
        rng = np.random.default_rng(0)
        vectors = rng.standard_normal((2000, 64)) * 0.8 ** np.arange(64)
        spread = main_directions(vectors, 16).std(0)
        assert spread.max() / spread.min() < 5  # before, 0.8 ** 15: 28


@pytest.fixture(scope='module')
def teacher(data, tmp_path_factory):
    """Weights, and an embeddings file of all images."""
    out = tmp_path_factory.mktemp('runs') / 'teacher'
    train(quick('schedule.epochs=6', 'run.evaluate_every=0'), data, out)
    targets = out / 'targets.safetensors'
    assert main(['embed', str(data), '--model', str(out), '--out', str(targets)]) == 0
    return str(out / 'model'), targets


def name_of(file):
    return load_embeddings(file).metadata['model']


def wanted(loss, paths, width=64):
    return load_targets(loss, paths, width).numpy()


class TestFiles:
    def test_each_image_gets_its_own(self, data, teacher):
        weights, file = teacher
        paths = list(reversed(load_data(data).train.paths))
        loss = LossRecipe(pull=1, teacher=name_of(file), targets=[str(file)])
        direct = np.stack(list(FeatureExtractor(weights)(paths)))
        np.testing.assert_allclose(cosines(wanted(loss, paths)), cosines(direct), atol=1e-4)

    def test_of_several_files(self, data, teacher, tmp_path):
        content = load_embeddings(teacher[1])
        halves = []
        for number, rows in enumerate((slice(0, 50), slice(50, None))):
            halves.append(str(tmp_path / f'{number}.safetensors'))
            part = EmbeddingsFile(
                content.vectors[rows], content.names[rows], content.stamps[rows], dict(content.metadata)
            )
            save_embeddings(halves[-1], part)
        paths = load_data(data).train.paths
        name = name_of(teacher[1])
        whole = wanted(LossRecipe(pull=1, teacher=name, targets=[str(teacher[1])]), paths)
        np.testing.assert_array_equal(wanted(LossRecipe(pull=1, teacher=name, targets=halves), paths), whole)
        with pytest.raises(ValueError, match='is in none of the files; add it with timm-dpa embed'):
            wanted(LossRecipe(pull=1, teacher=name, targets=halves[:1]), paths)
        other = EmbeddingsFile(
            content.vectors, content.names, content.stamps, {**content.metadata, 'network_sha256': '0' * 64}
        )
        save_embeddings(tmp_path / 'other.safetensors', other)
        files = [halves[0], str(tmp_path / 'other.safetensors')]
        with pytest.raises(ValueError, match=r'other weights than .*0\.safetensors'):
            wanted(LossRecipe(pull=1, teacher=name, targets=files), paths)

    def test_of_another_model_or_another_image(self, data, teacher, tmp_path):
        file = teacher[1]
        with pytest.raises(ValueError, match=r'not of loss\.teacher=somebody'):
            wanted(LossRecipe(pull=1, teacher='somebody', targets=[str(file)]), load_data(data).train.paths)
        copy = write_vehicles(tmp_path / 'vehicles', identities=3)
        out = tmp_path / 'targets.safetensors'
        assert main(['embed', str(copy), '--model', teacher[0], '--out', str(out)]) == 0
        paths = load_data(copy).train.paths
        loss = LossRecipe(pull=1, teacher=name_of(out), targets=[str(out)])
        wanted(loss, paths)
        os.utime(paths[3], ns=(1, 1))
        with pytest.raises(ValueError, match=f'{Path(paths[3]).name} has changed since'):
            wanted(loss, paths)
        with pytest.raises(FileNotFoundError, match='no such embeddings file'):
            wanted(LossRecipe(pull=1, teacher='a', targets=['nowhere.safetensors']), paths)


class TestRun:
    def test_comes_near_the_targets_and_resumes_bit_for_bit(self, data, teacher, tmp_path, monkeypatch):
        file = teacher[1]
        recipe = quick(
            'schedule.epochs=40',
            'run.evaluate_every=0',
            'run.checkpoint_every=0',
            'model.name=reid_resnet18',
            'model.args={layers: [1, 1, 1, 1], channels: [8, 16, 24, 32]}',
            'loss.classifier=none',
            'loss.metric=none',
            'loss.pull=1',
            'augment.erasing=0',
            f'loss.teacher={name_of(file)}',
            f'loss.targets=[{file}]',
        )
        train(recipe, data, tmp_path / 'whole')
        interrupted(recipe, data, tmp_path / 'half', monkeypatch, step=5)
        whole, half = (load_checkpoint(tmp_path / run / 'checkpoints' / 'last.pt') for run in ('whole', 'half'))
        assert all(torch.equal(value, half['model'][name]) for name, value in whole['model'].items())
        pulls = [float(row['pull']) for row in csv.DictReader((tmp_path / 'whole' / 'steps.csv').open())]
        assert np.mean(pulls[-3:]) < 0.7 * np.mean(pulls[:3])
        # the cosines of pairs become those of the teacher, whose embeddings are twice as wide
        paths = load_data(data).train.paths
        ours = np.stack(list(FeatureExtractor(str(tmp_path / 'whole' / 'model'))(paths)))
        theirs = np.stack(list(FeatureExtractor(teacher[0])(paths)))
        assert np.corrcoef(cosines(ours).ravel(), cosines(theirs).ravel())[0, 1] > 0.8

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (['loss.targets=[a.safetensors]', 'loss.pull=1'], r'loss\.targets needs loss\.teacher'),
            (['loss.targets=[a.safetensors]', 'loss.teacher=dpa_resnet50'], r'needs loss\.pull above 0'),
        ],
    )
    def test_wrong_settings(self, data, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            train(quick(*settings), data, tmp_path / 'run')
