"""The manifest of released weights, and the tags that timm gets from it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.models import is_model_pretrained

import timm_dpa
from tests.support.site import copy_package
from timm_dpa.weights.fetch import MODELS
from timm_dpa.weights.manifest import MANIFEST, Release, read_manifest, record_release

GOOD = Release('dpa_resnet18', 'drawn', 'somebody/dpa', sha256='0' * 64, size=10, revision='a' * 40)


@pytest.fixture
def manifest(tmp_path) -> Path:
    path = tmp_path / 'weights.json'
    path.write_text('{"weights": []}')
    return path


def test_manifest_of_the_package_is_valid():
    assert Path(timm_dpa.__file__).parent / 'weights' / 'manifest.json' == MANIFEST
    releases = read_manifest().values()
    there = {path.name for path in MODELS.glob('*') if (path / 'model.safetensors').is_file()}
    assert there <= {release.name for release in releases}
    offered = {release.name for release in releases if '/' in release.repo or release.folder in there}
    ours = timm.list_models(module='dpa_resnet')
    assert {name for name in timm.list_pretrained() if name.partition('.')[0] in ours} == offered


def test_entries_are_added_and_replaced(manifest):
    other = dataclasses.replace(GOOD, architecture='se_resnet18')
    record_release(GOOD, manifest)
    record_release(other, manifest)
    newer = dataclasses.replace(GOOD, sha256='1' * 64, metrics=[{'data': 'ü', 'mAP': 50.0}])
    record_release(newer, manifest)
    assert list(read_manifest(manifest).values()) == [newer, other]
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
        read_manifest(manifest)


def test_damaged_manifests(manifest):
    for text in ('', '[]', '{"weights": [{"tag": "a"}]}', '{"weights": [{"color": "red"}]}'):
        manifest.write_text(text)
        with pytest.raises(ValueError, match='not a manifest'):
            read_manifest(manifest)
        with pytest.raises(ValueError, match='not a manifest'):
            record_release(GOOD, manifest)
        assert manifest.read_text() == text
    manifest.write_text(json.dumps({'weights': [dataclasses.asdict(GOOD)] * 2}))
    with pytest.raises(ValueError, match=r'two entries are called dpa_resnet18\.drawn'):
        read_manifest(manifest)


def test_organization_of_the_tags(tmp_path):
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


def test_released_weights_bring_their_thresholds():
    """By the tag, and by the architecture alone; where this installation has them."""
    for release in read_manifest().values():
        rows = release.thresholds
        assert [row['false_match_rate'] for row in rows] == sorted({row['false_match_rate'] for row in rows})
        if is_model_pretrained(release.name) and (MODELS / release.name).is_dir():
            model = timm.create_model(release.name, pretrained=True)
            assert model.thresholds == {row['false_match_rate']: row['cosine'] for row in rows}
            assert sorted(model.thresholds.values(), reverse=True) == list(model.thresholds.values())
            break
    assert timm.create_model('reid_resnet18').thresholds is None


def test_weights_in_the_file_of_others(manifest):
    """What is known of the file is written once, and read for both."""
    plain = dataclasses.replace(GOOD, tag='plain', weights_of=GOOD.name, metrics=[{'data': 'a', 'mAP': 50.0}])
    record_release(GOOD, manifest)
    record_release(plain, manifest)
    assert list(read_manifest(manifest).values()) == [GOOD, plain]
    assert not {'repo', 'sha256', 'size', 'revision'} & json.loads(manifest.read_text())['weights'][1].keys()
    newer = dataclasses.replace(GOOD, repo='org/dpa', revision='b' * 40, sha256='1' * 64)
    record_release(newer, manifest)
    found = read_manifest(manifest)[plain.name]
    assert (found.repo, found.revision, found.sha256) == ('org/dpa', 'b' * 40, '1' * 64)
    assert (found.folder, found.metrics) == (GOOD.name, plain.metrics)
    manifest.write_text(
        manifest.read_text().replace(f'"weights_of": "{GOOD.name}"', '"weights_of": "dpa_resnet18.gone"')
    )
    with pytest.raises(ValueError, match=r"no entry .*'dpa_resnet18\.gone'"):
        read_manifest(manifest)


def test_weights_without_the_optional_parts_of_their_file():
    names = [release.name for release in read_manifest().values() if release.weights_of]
    for name in names:
        release = read_manifest()[name]
        if not (MODELS / release.folder).is_dir():
            continue
        plain = timm.create_model(name, pretrained=True).eval()
        whitened = timm.create_model(release.folder, pretrained=True).eval()
        assert plain.thresholds == {row['false_match_rate']: row['cosine'] for row in release.thresholds}
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            embeddings, expected = plain(whitened.color_norm(images)).double(), whitened(images).double()
        torch.testing.assert_close(embeddings @ whitened.whiten.matrix.double().T, expected, rtol=1e-4, atol=1e-5)
        same = timm.create_model(release.folder, pretrained=True, whiten=False, color_norm=False)
        assert same.thresholds is None  # they were measured with these parts
        for key, value in plain.state_dict().items():
            assert torch.equal(value, same.state_dict()[key]), key
