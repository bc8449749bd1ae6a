"""Upload to a server on loopback with the real client, in a process of its own."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch

from tests.support.hub_client import TOKEN, HubClient, embed
from tests.support.hub_server import ALWAYS, CutUpload, LoopbackHub, Refuse
from tests.support.hub_storage import Account, Repository
from tests.support.site import MODEL_FILES, copy_package, models_of
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.release import describe_release
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder


@pytest.fixture(scope='module')
def hub():
    accounts = {TOKEN: Account('me', orgs=('org', 'mirror')), 'hf_reader': Account('reader', write=False)}
    with LoopbackHub(accounts=accounts) as hub:
        yield hub


@pytest.fixture(scope='module')
def released(tmp_path_factory) -> Path:
    """A finished folder of a standard architecture."""
    folder = tmp_path_factory.mktemp('released')
    torch.manual_seed(0)
    weights = timm.create_model('reid_resnet18').state_dict()
    save_model_folder(ModelRecipe(name='reid_resnet18'), (64, 64), weights, folder / 'model')
    out = folder / 'reid_resnet18.random'
    build_folder(folder / 'model', out, 'somebody/reid', license='mit', trained_on='Nothing: random weights.')
    return out


@pytest.fixture(scope='module')
def site(released, tmp_path_factory) -> Path:
    """A copy of the package that has a released model, and a second tag of the same file."""
    release = describe_release(released, 'random', 'reid-random')
    plain = {'architecture': release.architecture, 'tag': 'plain', 'weights_of': release.name, 'cfg': release.cfg}
    site = copy_package(tmp_path_factory.mktemp('site'), [release, plain])
    shutil.copytree(released, models_of(site) / released.name)
    return site


@pytest.fixture(scope='module')
def client(hub, site, tmp_path_factory):
    environment = {**hub.environment, 'HF_TOKEN': TOKEN}
    with HubClient(tmp_path_factory.mktemp('home'), environment, site) as client:
        yield client


def commits(hub: LoopbackHub, repo: str) -> list[str]:
    return [commit.id for commit in hub.repos[repo].history()]


def published(client: HubClient, *argv: str) -> str:
    status, out, errors = client.cli('publish', *argv)
    assert status == 0, errors
    return out


class TestRun:
    def test_from_a_run_to_the_same_embeddings_in_another_place(self, hub, client, trained, tmp_path):
        out = published(client, str(trained), '--repo-id', 'org/run')
        revision = hub.repos['org/run'].branches['main'].id
        assert f'/org/run/commit/{revision}\n' in out
        assert f"use: timm.create_model('hf-hub:org/run@{revision}', pretrained=True)" in out
        assert set(hub.repos['org/run'].contents()) == {*MODEL_FILES, '.gitattributes'}
        assert not hub.repos['org/run'].private
        expected = embed(timm.create_model(f'local-dir:{trained}/model', pretrained=True))
        with HubClient(tmp_path / 'elsewhere', hub.environment) as other:
            assert other.create('hf-hub:org/run') == expected
            assert other.create(f'hf-hub:org/run@{revision}') == expected

    def test_twice_changes_nothing(self, hub, client, trained):
        published(client, str(trained), '--repo-id', 'org/twice')
        before = commits(hub, 'org/twice')
        status, out, errors = client.cli('publish', str(trained), '--repo-id', 'org/twice')
        assert status == 0
        assert '(nothing has changed)' in out
        assert 'No files' not in errors  # the client's own words for it
        assert commits(hub, 'org/twice') == before

    def test_dry_run_writes_what_would_be_uploaded_and_asks_nobody(self, hub, client, trained, tmp_path):
        before = len(hub.requests)
        out = published(client, str(trained), '--repo-id', 'org/dry', '--dry-run', str(tmp_path / 'dry'))
        assert 'nothing was uploaded' in out
        assert len(hub.requests) == before
        written = {
            path.relative_to(tmp_path / 'dry').as_posix(): path.read_bytes()
            for path in (tmp_path / 'dry').rglob('*')
            if path.is_file()
        }
        published(client, str(trained), '--repo-id', 'org/dry')
        uploaded = hub.repos['org/dry'].contents()
        del uploaded['.gitattributes']
        assert written == uploaded
        # and a card that was edited goes up as it is
        card = tmp_path / 'dry' / 'README.md'
        card.write_text(card.read_text() + '\nEdited.\n')
        published(client, str(tmp_path / 'dry'), '--repo-id', 'org/dry')
        assert hub.repos['org/dry'].contents() == {
            **uploaded,
            'README.md': card.read_bytes(),
            '.gitattributes': hub.repos['org/dry'].contents()['.gitattributes'],
        }
        status, _, errors = client.cli('publish', str(tmp_path / 'dry'), '--repo-id', 'org/dry', '--license', 'mit')
        assert status == 2
        assert 'edit its release.json' in errors

    def test_private(self, hub, client, trained):
        published(client, str(trained), '--repo-id', 'me/secret', '--private')
        assert hub.repos['me/secret'].private
        published(client, str(trained), '--repo-id', 'me/open')
        status, _, errors = client.cli('publish', str(trained), '--repo-id', 'me/open', '--private')
        assert status == 2
        assert 'me/open: exists already and is public' in errors

    def test_pull_request_leaves_the_repository_alone(self, hub, client, trained):
        hub.repos['org/theirs'] = Repository('org/theirs')
        hub.repos['org/theirs'].write({'README.md': b'# Theirs'})
        before = commits(hub, 'org/theirs')
        out = published(client, str(trained), '--repo-id', 'org/theirs', '--create-pr')
        assert re.search(r'/org/theirs/discussions/1\n', out)
        assert commits(hub, 'org/theirs') == before
        assert set(hub.repos['org/theirs'].contents('refs/pr/1')) == {*MODEL_FILES}

    def test_upload_that_is_cut_goes_on(self, hub, client, trained):
        hub.faults.append(CutUpload('PUT /storage/*', times=1, after=1000))
        published(client, str(trained), '--repo-id', 'org/cut')
        assert len(commits(hub, 'org/cut')) == 2  # the first is of the creation
        assert set(hub.repos['org/cut'].contents()) >= {*MODEL_FILES}

    def test_interrupted_upload_is_finished_by_the_next(self, hub, client, trained):
        """The large files have arrived, the commit has not."""
        hub.faults.append(CutUpload('POST /api/models/org/half/commit/main', times=1, after=100))
        status, _, errors = client.cli('publish', str(trained), '--repo-id', 'org/half')
        assert status == 1
        assert re.search(r'org/half: the connection to \S+ was lost .*the same command resumes from there\n$', errors)
        assert len(commits(hub, 'org/half')) == 1
        assert set(hub.repos['org/half'].contents()) == {'.gitattributes'}
        before = len(hub.requests)
        published(client, str(trained), '--repo-id', 'org/half')
        assert not [line for line in hub.requests[before:] if line.startswith('PUT')]
        assert len(commits(hub, 'org/half')) == 2
        assert set(hub.repos['org/half'].contents()) >= {*MODEL_FILES}

    def test_refused_file_says_so(self, hub, client, trained):
        hub.faults.append(Refuse('PUT /storage/*', times=ALWAYS, status=400, message='too much'))
        status, _, errors = client.cli('publish', str(trained), '--repo-id', 'org/refused')
        hub.faults.clear()
        assert status == 1
        assert 'org/refused: the Hub refused the upload' in errors


class TestManifest:
    def test_all_go_to_an_organization_and_the_manifest_says_where(self, hub, client, site, released, tmp_path):
        manifest = site / 'timm_dpa' / 'weights' / 'manifest.json'
        out = published(client, '--all', '--org', 'org')
        revision = commits(hub, 'org/reid-random')[0]
        assert revision in out
        entry, plain = json.loads(manifest.read_text())['weights']
        assert (entry['repo'], entry['revision']) == ('org/reid-random', revision)
        assert 'repo' not in plain
        assert "'hf-hub:org/reid-random'" in hub.repos['org/reid-random'].contents()['README.md'].decode()
        assert '(nothing has changed)' in published(client, '--all', '--org', 'org')

        expected = embed(timm.create_model(f'local-dir:{released}', pretrained=True))
        with HubClient(tmp_path / 'user', hub.environment, site) as user:
            assert user.create('reid_resnet18.random') == expected
            assert user.create('reid_resnet18') == expected
            assert user.create('reid_resnet18.plain') == expected
        published(client, '--all', '--org', 'mirror')
        with HubClient(tmp_path / 'mirror', {**hub.environment, 'TIMM_DPA_HUB_ORG': 'mirror'}, site) as user:
            assert user.create('reid_resnet18.random') == expected
        assert [line for line in hub.requests if line.startswith('GET mirror/reid-random ')]

    def test_a_tag_of_ones_own_is_noted(self, hub, client, site, released):
        manifest = site / 'timm_dpa' / 'weights' / 'manifest.json'
        published(client, str(released), '--repo-id', 'org/noted', '--tag', 'mine')
        entry = json.loads(manifest.read_text())['weights'][-1]
        assert (entry['architecture'], entry['tag']) == ('reid_resnet18', 'mine')
        assert (entry['repo'], entry['revision']) == ('org/noted', commits(hub, 'org/noted')[0])

    def test_folders_that_are_not_those_of_the_manifest_stop_all(self, hub, client, site):
        weights = site / 'timm_dpa' / 'hub' / 'models' / 'reid_resnet18.random' / 'model.safetensors'
        good = weights.read_bytes()
        manifest = site / 'timm_dpa' / 'weights' / 'manifest.json'
        before = manifest.read_text()
        manifest.write_text(json.dumps({'weights': json.loads(before)['weights'][:1]}))
        try:
            weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
            status, _, errors = client.cli('publish', '--all', '--org', 'org')
            assert status == 2
            assert 'SHA-256 of its weights' in errors
            weights.unlink()
            status, _, errors = client.cli('publish', '--all', '--org', 'org')
            assert status == 2
            assert 'no finished model here' in errors
        finally:
            weights.write_bytes(good)
            manifest.write_text(before)


def test_no_connection_is_one_line(hub, client, released, tmp_path):
    with HubClient(tmp_path / 'home', {**hub.environment, 'HF_TOKEN': TOKEN, 'HF_HUB_OFFLINE': '1'}) as offline:
        status, _, errors = offline.cli('publish', str(released), '--repo-id', 'org/cold')
    assert (status, errors) == (1, 'timm-dpa publish: org/cold: HF_HUB_OFFLINE is set; unset it to publish\n')
    hub.stop()
    try:
        status, _, errors = client.cli('publish', str(released), '--repo-id', 'org/cold')
    finally:
        hub.start()
    assert status == 1
    assert re.fullmatch(r'timm-dpa publish: org/cold: the connection to \S+ was lost .*\n', errors)


class TestWrongUse:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['--repo-id', 'org/x'], 'needs a folder and --repo-id'),
            (['RUN'], 'needs a folder and --repo-id'),
            (['--all'], '--all takes --org'),
            (['RUN', '--all', '--org', 'org'], '--all takes --org'),
            (['--all', '--org', 'org', '--license', 'mit'], 'their cards take no options'),
            (['RUN', '--repo-id', 'x'], 'ORG/NAME'),
            (['RUN', '--repo-id', 'org/x', '--dry-run', '.'], 'is there already'),
            (['nowhere', '--repo-id', 'org/x'], 'no such folder'),
            (['RUN', '--repo-id', 'org/x', '--tag', 'x', '--create-pr'], 'no revision'),
            (['RUN', '--repo-id', 'org/x', '--tag', 'x', '--dry-run', 'd'], 'no revision'),
            (['RUN', '--repo-id', 'org/x', '--tag', 'x'], 'options of its own'),
        ],
    )
    def test_is_one_line(self, hub, client, trained, argv, message):
        status, out, errors = client.cli('publish', *(str(trained) if word == 'RUN' else word for word in argv))
        assert (status, out) == (2, '')
        assert errors.count('\n') == 1
        assert message in errors
        assert 'org/x' not in hub.repos

    @pytest.mark.parametrize(
        ('token', 'message'),
        [
            ('', 'no login: run hf auth login, or set HF_TOKEN'),
            ('hf_stolen', 'does not know this token'),
            ('hf_reader', 'may not write there'),
        ],
    )
    def test_rights(self, hub, trained, tmp_path, token, message):
        with HubClient(tmp_path / 'home', {**hub.environment, 'HF_TOKEN': token}) as nobody:
            status, _, errors = nobody.cli('publish', str(trained), '--repo-id', 'org/rights')
        assert status == 1
        assert errors.count('\n') == 1
        assert message in errors
        assert 'org/rights' not in hub.repos
