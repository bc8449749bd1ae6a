"""The manifest of released weights, and the tags that timm gets from it."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import timm_dpa
from tests.support.site import copy_package
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.golden import check_golden
from timm_dpa.hub.weights import MANIFEST, MODELS, Release, describe_release, load_releases, record_release
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder

GOOD = Release('dpa_resnet18', 'drawn', 'somebody/dpa', sha256='0' * 64, size=10, revision='a' * 40)


@pytest.fixture(scope='module')
def released(tmp_path_factory) -> Path:
    """A finished folder of a standard architecture."""
    folder = tmp_path_factory.mktemp('released')
    torch.manual_seed(0)
    weights = timm.create_model('reid_resnet18').state_dict()
    save_model_folder(ModelRecipe(name='reid_resnet18'), (64, 96), weights, folder / 'model')
    said = {'licence': 'mit', 'trained_on': 'Nothing.'}
    build_folder(folder / 'model', folder / 'reid_resnet18.random', 'somebody/reid', **said)
    return folder / 'reid_resnet18.random'


@pytest.fixture
def manifest(tmp_path) -> Path:
    path = tmp_path / 'weights.json'
    path.write_text('{"weights": []}')
    return path


def test_manifest_of_the_package_is_valid():
    assert Path(timm_dpa.__file__).parent / 'weights' / 'manifest.json' == MANIFEST
    releases = load_releases()
    there = {path.name for path in MODELS.glob('*') if (path / 'model.safetensors').is_file()}
    assert there <= {release.name for release in releases}
    offered = {release.name for release in releases if '/' in release.repo or release.name in there}
    ours = timm.list_models(module='dpa_resnet')
    assert {name for name in timm.list_pretrained() if name.partition('.')[0] in ours} == offered


def test_models_of_the_package_are_those_of_its_manifest():
    for release in load_releases():
        folder = MODELS / release.name
        if folder.exists():
            known = describe_release(folder, release.tag, release.repo)
            assert dataclasses.replace(known, revision=release.revision) == release
            assert check_golden(folder) <= 1e-4


def test_entries_are_added_and_replaced(manifest):
    other = dataclasses.replace(GOOD, architecture='se_resnet18')
    record_release(GOOD, manifest)
    record_release(other, manifest)
    newer = dataclasses.replace(GOOD, sha256='1' * 64, metrics=[{'data': 'ü', 'mAP': 50.0}])
    record_release(newer, manifest)
    assert load_releases(manifest) == [newer, other]
    assert [path.name for path in manifest.parent.iterdir()] == ['weights.json']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'architecture': 'resnet18'}, 'resnet18.drawn: wrong architecture'),
        ({'tag': 'Drawn'}, 'wrong tag'),
        ({'repo': 'a/b/c'}, 'wrong repo'),
        ({'sha256': 'abc'}, 'wrong sha256'),
        ({'size': 0}, 'wrong size'),
        ({'revision': 'main'}, 'wrong revision'),
        ({'metrics': {}}, 'wrong metrics'),
    ],
)
def test_wrong_values_are_named(manifest, change, message):
    entry = {**dataclasses.asdict(GOOD), **change}
    manifest.write_text(json.dumps({'weights': [entry]}))
    with pytest.raises(ValueError, match=message):
        load_releases(manifest)


def test_damaged_manifests(manifest):
    for text in ('', '[]', '{"weights": [{"tag": "a"}]}', '{"weights": [{"colour": "red"}]}'):
        manifest.write_text(text)
        with pytest.raises(ValueError, match='not a manifest'):
            load_releases(manifest)
        with pytest.raises(ValueError, match='not a manifest'):
            record_release(GOOD, manifest)
        assert manifest.read_text() == text
    manifest.write_text(json.dumps({'weights': [dataclasses.asdict(GOOD)] * 2}))
    with pytest.raises(ValueError, match=r'two entries are called dpa_resnet18\.drawn'):
        load_releases(manifest)


def test_a_folder_describes_itself(released):
    release = describe_release(released, 'random', 'somebody/reid')
    weights = (released / 'model.safetensors').read_bytes()
    assert (release.name, release.repo) == ('reid_resnet18.random', 'somebody/reid')
    assert (release.sha256, release.size) == (hashlib.sha256(weights).hexdigest(), len(weights))
    assert release.cfg == {'input_size': [3, 64, 96], 'pool_size': [4, 6], 'license': 'mit'}
    assert (release.metrics, release.command) == ([], '')


def test_results_and_command_come_from_the_card(trained, tmp_path):
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


def test_organisation_of_the_tags(tmp_path):
    """Of the entry; of the variable, and then its newest revision; none, and then no tag."""
    entries = [
        dataclasses.asdict(GOOD),
        dataclasses.asdict(dataclasses.replace(GOOD, architecture='se_resnet18', repo='unpublished', revision=None)),
    ]
    site = copy_package(tmp_path / 'site', entries)
    code = """
import timm, timm_dpa
from timm.models import get_pretrained_cfg
print([get_pretrained_cfg(name).hf_hub_id for name in ('dpa_resnet18.drawn', 'se_resnet18')])
print([name for name in timm.list_pretrained() if 'drawn' in name])
"""
    for org, expected in (
        (None, f"['somebody/dpa@{'a' * 40}', None]\n['dpa_resnet18.drawn']\n"),
        ('ours', "['ours/dpa', 'ours/unpublished']\n['dpa_resnet18.drawn', 'se_resnet18.drawn']\n"),
    ):
        environment = {**os.environ, 'PYTHONPATH': str(site)}
        environment.pop('TIMM_DPA_HUB_ORG', None)
        if org:
            environment['TIMM_DPA_HUB_ORG'] = org
        done = subprocess.run(
            [sys.executable, '-c', code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == expected
