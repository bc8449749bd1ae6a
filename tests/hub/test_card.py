"""The facts of a model: what its card and its entry in the manifest are made from."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch

from timm_dpa.hub.card import read_facts, render_card, write_card
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.golden import check_golden
from timm_dpa.hub.release import describe_release
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder
from timm_dpa.weights.fetch import MODELS
from timm_dpa.weights.manifest import read_manifest


@pytest.fixture(scope='module')
def released(tmp_path_factory) -> Path:
    """A finished folder of a standard architecture."""
    folder = tmp_path_factory.mktemp('released')
    torch.manual_seed(0)
    weights = timm.create_model('reid_resnet18').state_dict()
    save_model_folder(ModelRecipe(name='reid_resnet18'), (64, 96), weights, folder / 'model')
    said = {'license': 'mit', 'trained_on': 'Nothing.'}
    build_folder(folder / 'model', folder / 'reid_resnet18.random', 'somebody/reid', **said)
    return folder / 'reid_resnet18.random'


def test_models_of_the_package_are_those_of_its_manifest(tmp_path):
    for release in read_manifest().values():
        folder = MODELS / release.name
        if folder.exists():
            known = describe_release(folder, release.tag, release.repo)
            assert dataclasses.replace(known, revision=release.revision) == release
            assert check_golden(folder) <= 1e-4
            assert (folder / 'README.md').read_text() == render_card(read_facts(folder))
            written = tmp_path / release.name
            written.mkdir()
            write_card(read_facts(folder), written)
            assert (written / 'release.json').read_bytes() == (folder / 'release.json').read_bytes()


def test_a_folder_describes_itself(released):
    release = describe_release(released, 'random', 'somebody/reid')
    weights = (released / 'model.safetensors').read_bytes()
    assert (release.name, release.repo) == ('reid_resnet18.random', 'somebody/reid')
    assert (release.sha256, release.size) == (hashlib.sha256(weights).hexdigest(), len(weights))
    assert release.cfg == {'input_size': [3, 64, 96], 'pool_size': [4, 6], 'license': 'mit'}
    assert (release.metrics, release.command) == ([], '')


def test_results_and_command_come_from_the_facts(trained, tmp_path):
    build_folder(trained, tmp_path / 'out', 'somebody/small')
    with pytest.raises(ValueError, match='options of its own'):  # layers and channels
        describe_release(tmp_path / 'out', 'small', 'somebody/small')
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    config['model_args'] = {}
    (tmp_path / 'out' / 'config.json').write_text(json.dumps(config))
    release = describe_release(tmp_path / 'out', 'small', 'somebody/small')
    measured = json.loads((trained / 'evaluation.json').read_text())
    (row,) = release.metrics
    assert (row['data'], row['revision']) == ('noisy | patterns', measured['data']['test']['revision'])
    assert row['mAP'] == pytest.approx(100 * measured['metrics']['mAP'], abs=0.00501)
    assert set(row) == {'data', 'revision', 'protocol', 'mAP', 'Rank-1', 'Rank-5', 'Rank-10', 'mINP'}
    assert release.command.startswith('timm-dpa train --recipe recipe.yaml --data ')


@pytest.mark.parametrize('text', ['', '[]', '{"repo_id": "a/b"}', '{"colors": 3}'])
def test_damaged_facts_are_named(tmp_path, text):
    (tmp_path / 'release.json').write_text(text)
    with pytest.raises(ValueError, match=r'release\.json: does not hold the facts of a model card'):
        read_facts(tmp_path)
