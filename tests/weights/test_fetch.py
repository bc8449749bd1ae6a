"""Weights from the Hub, with the real client in a process of its own against a server on loopback."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from tests.support.hub_client import HubClient, embed
from tests.support.hub_server import ALWAYS, Corrupt, CutAnswer, LoopbackHub, Refuse, Truncate
from tests.support.models import TINY, create
from tests.support.site import copy_package, models_of
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder

ARGS = {key: list(value) for key, value in TINY.items()}
WEIGHTS = 'model.safetensors'


def model_files(folder: Path, attention: str, seed: int = 0, **kwargs) -> dict[str, bytes]:
    """What a repository of a small model holds."""
    args = {**ARGS, **kwargs}
    name = f'{attention}_resnet18'
    save_model_folder(ModelRecipe(name=name, args=args), (64, 64), create(name, seed, **args).state_dict(), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> dict[str, bytes]:
    return model_files(tmp_path_factory.mktemp('dpa') / 'm', 'dpa')


@pytest.fixture(scope='module')
def expected(files, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('expected')
    model = create('dpa_resnet18', seed=1, **TINY)
    (folder / WEIGHTS).write_bytes(files[WEIGHTS])
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.pretrained_cfg['input_size'] = (3, 64, 64)
    return embed(model)


@pytest.fixture(scope='module')
def other_files(tmp_path_factory) -> dict[str, bytes]:
    return model_files(tmp_path_factory.mktemp('se') / 'm', 'se')


def with_classifier(files: dict[str, bytes], classes: int, folder: Path) -> dict[str, bytes]:
    (folder / WEIGHTS).write_bytes(files[WEIGHTS])
    weights = load_file(folder / WEIGHTS)
    return {**files, WEIGHTS: save({**weights, 'fc.weight': torch.zeros(classes, 128)})}


def entry(files: dict[str, bytes], tag: str, **changes) -> dict:
    return {
        'architecture': 'dpa_resnet18',
        'tag': tag,
        'repo': f'org/{tag}',
        'revision': None,
        'sha256': hashlib.sha256(files[WEIGHTS]).hexdigest(),
        'size': len(files[WEIGHTS]),
        'cfg': {'input_size': [3, 64, 64]},
        **changes,
    }


@pytest.fixture(scope='module')
def hub(files, other_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp('classes')
    config = json.loads(files['config.json'])
    config['pretrained_cfg']['num_classes'] = config['num_classes'] = 7
    names = ('both', 'plain', 'damaged', 'cut', 'short', 'tagged', 'swapped', 'rotten', 'private', 'gated', 'late')
    repos = {f'org/{name}': {'main': files} for name in (*names, 'down')}
    repos['mirror/packed'] = {'main': files}
    repos['org/plain'] = {'main': files, 'v0': {**files, WEIGHTS: save({'a': torch.zeros(1)})}}
    repos['org/foreign'] = {'main': {**files, WEIGHTS: other_files[WEIGHTS]}}
    repos['org/classes'] = {'main': with_classifier(files, 5, folder)}
    repos['org/fewer'] = {'main': {**with_classifier(files, 5, folder), 'config.json': json.dumps(config).encode()}}
    repos['org/text'] = {'main': {**files, WEIGHTS: b'<html>Not found</html>'}}
    repos['org/nothing'] = {'main': {'README.md': b'# Nothing'}}
    repos['org/unweighted'] = {'main': {'config.json': files['config.json']}}
    newer = {**json.loads(files['config.json']), 'model_args': {'new_option': True}}
    repos['org/newer'] = {'main': {**files, 'config.json': json.dumps(newer).encode()}}
    repos['org/torn'] = {'main': {**files, 'config.json': b'{"architecture": '}}
    # a sound safetensors file that is not the released one
    repos['org/swapped'] = {'main': {**files, WEIGHTS: save({'a': torch.zeros(1)})}}
    with LoopbackHub(repos) as hub:
        hub.repos['org/private'].private = True
        hub.repos['org/gated'].gated = True
        yield hub


@pytest.fixture(scope='module')
def site(files, other_files, tmp_path_factory) -> Path:
    """A copy of the package whose manifest knows some tags; weights of some come with it."""
    entries = [
        entry(files, 'tagged', revision=LoopbackHub.commit('org/tagged', 'main')),
        entry(files, 'swapped'),
        entry(files, 'rotten'),
        entry(files, 'packed', repo='packed'),
        entry(files, 'both'),
        entry(files, 'broken', repo='broken'),
        entry(files, 'nowhere', repo='nowhere'),
        entry(other_files, 'packed', architecture='se_resnet18', repo='se'),
    ]
    site = copy_package(tmp_path_factory.mktemp('site'), entries)
    for tag in ('packed', 'both', 'broken'):
        put(files[WEIGHTS], models_of(site) / f'dpa_resnet18.{tag}')
    put(files[WEIGHTS][:-1] + bytes([files[WEIGHTS][-1] ^ 1]), models_of(site) / 'dpa_resnet18.broken')
    put(other_files[WEIGHTS], models_of(site) / 'se_resnet18.packed')
    return site


def put(weights: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)


@pytest.fixture(scope='module')
def client(hub, site, tmp_path_factory):
    with HubClient(tmp_path_factory.mktemp('home'), hub.environment, site) as client:
        yield client


def asked(hub: LoopbackHub, repo: str) -> list[str]:
    return [line for line in hub.requests if f' {repo} ' in line]


class TestGood:
    def test_from_its_repository_and_then_from_the_cache(self, hub, client, expected):
        assert client.create('hf-hub:org/plain') == expected
        first = asked(hub, 'org/plain')
        assert len(first) == 4
        assert client.create('hf-hub:org/plain') == expected
        again = asked(hub, 'org/plain')[4:]
        assert [line.split()[0] for line in again] == ['HEAD', 'HEAD']

    def test_pinned_revision_in_the_cache_asks_nothing(self, hub, client, expected):
        name = 'hf-hub:org/plain@' + hub.commit('org/plain', 'main')
        assert client.create(name) == expected
        before = len(hub.requests)
        assert client.create(name) == expected
        assert len(hub.requests) == before

    def test_another_classifier_and_other_channels(self, client):
        logits = client.create('hf-hub:org/plain', num_classes=9)
        assert len(bytes.fromhex(logits)) == 2 * 9 * 4
        gray = client.create('hf-hub:org/plain', in_chans=1)
        assert 'shape' in gray['message'] or 'channels' in gray['message']  # the images are RGB: it got to the forward

    def test_registered_tag_is_pinned_and_checked(self, hub, client, expected):
        assert client.create('dpa_resnet18.tagged', **ARGS) == expected
        commit = hub.commit('org/tagged', 'main')
        assert set(asked(hub, 'org/tagged')) == {f'{verb} org/tagged {commit} {WEIGHTS}' for verb in ('HEAD', 'GET')}

    def test_download_that_is_cut_is_finished(self, hub, client, expected):
        hub.faults.append(CutAnswer(f'GET org/cut * {WEIGHTS}', times=1, after=100_000))
        assert client.create('hf-hub:org/cut') == expected
        assert sum(line.startswith('GET') and WEIGHTS in line for line in asked(hub, 'org/cut')) == 2


class TestWrongContent:
    def test_damaged_on_the_way_is_refused_and_not_kept(self, hub, client, expected):
        fault = Corrupt(f'GET org/damaged * {WEIGHTS}', times=1)
        hub.faults.append(fault)
        error = client.create('hf-hub:org/damaged')
        assert error['type'] == 'WeightsError'
        assert error['message'].startswith('org/damaged: model.safetensors has SHA-256 ')
        assert 'that the Hub states; it was removed from the cache' in error['message']
        assert client.create('hf-hub:org/damaged') == expected

    def test_rotten_in_the_cache_is_downloaded_again(self, hub, client, expected):
        assert client.create('dpa_resnet18.rotten', **ARGS) == expected
        (cached,) = client.home.glob(f'hub/models--org--rotten/snapshots/*/{WEIGHTS}')
        content = bytearray(cached.read_bytes())
        content[-1] ^= 1
        cached.resolve().write_bytes(content)
        assert client.create('dpa_resnet18.rotten', **ARGS) == expected
        assert sum(line.startswith('GET') for line in asked(hub, 'org/rotten')) == 2

    def test_truncated_is_refused(self, hub, client, expected):
        fault = Truncate(f'GET org/short * {WEIGHTS}', times=ALWAYS, to=1000)
        hub.faults.append(fault)
        error = client.create('hf-hub:org/short')
        assert error['type'] == 'WeightsError'
        assert '\n' not in error['message']
        assert error['message'].startswith('org/short: ')
        fault.times = 0
        assert client.create('hf-hub:org/short') == expected

    def test_other_weights_than_the_released_ones_are_refused(self, client):
        error = client.create('dpa_resnet18.swapped', **ARGS)
        assert error['type'] == 'WeightsError'
        assert error['message'].startswith('org/swapped: model.safetensors has ')
        assert 'that this version of timm-dpa expects' in error['message']
        assert not list(client.home.glob(f'hub/models--org--swapped/snapshots/*/{WEIGHTS}'))

    def test_no_safetensors(self, client):
        error = client.create('hf-hub:org/text')
        assert error['type'] == 'WeightsError'
        assert 'is no safetensors file' in error['message']

    @pytest.mark.parametrize(
        ('repo', 'message'),
        [
            ('org/foreign', 'org/foreign: weights of another architecture, layer3.attn.spa.conv2.weight is missing'),
            (
                'org/classes',
                'org/classes: its weights have a classifier of 5 classes, its configuration says num_classes=0',
            ),
            (
                'org/fewer',
                'org/fewer: its weights have a classifier of 5 classes, its configuration says num_classes=7',
            ),
        ],
    )
    @pytest.mark.parametrize('kwargs', [{}, {'num_classes': 3}], ids=['as it is', 'another classifier'])
    def test_another_architecture_or_class_count(self, client, repo, message, kwargs):
        """timm alone loads such weights without a word where the classifier is replaced."""
        error = client.create(f'hf-hub:{repo}', **kwargs)
        assert error['type'] == 'ValueError'
        assert error['message'].startswith(message)


class TestPackaged:
    """Weights that came with the package."""

    def test_need_no_hub(self, hub, client, expected):
        before = len(hub.requests)
        assert client.create('dpa_resnet18.packed', **ARGS) == expected
        logits = client.create('dpa_resnet18.packed', num_classes=9, **ARGS)
        assert len(bytes.fromhex(logits)) == 2 * 9 * 4
        assert len(hub.requests) == before

    def test_are_the_default_of_an_architecture_that_has_no_others(self, hub, client, other_files, tmp_path):
        (tmp_path / WEIGHTS).write_bytes(other_files[WEIGHTS])
        model = create('se_resnet18', **TINY)
        model.load_state_dict(load_file(tmp_path / WEIGHTS))
        model.pretrained_cfg['input_size'] = (3, 64, 64)
        assert client.create('se_resnet18', **ARGS) == embed(model)

    def test_tags_are_those_that_exist(self, client):
        _, table, _ = client.cli('models', '*_resnet18')
        tags = {line.split()[0]: line.split('  ')[-1] for line in table.splitlines()}
        assert tags['dpa_resnet18'].split(', ') == ['tagged', 'swapped', 'rotten', 'packed', 'both', 'broken']
        assert tags['se_resnet18'] == 'packed'
        error = client.create('dpa_resnet18.nowhere', **ARGS)
        assert error['type'] == 'MissingWeightsError'
        assert error['message'].startswith('dpa_resnet18.nowhere: its weights are not in this installation')
        assert 'hf-hub:<org>/nowhere' in error['message']
        assert 'Invalid pretrained tag' in client.create('dpa_resnet18.unheard', **ARGS)['message']

    def test_damaged_ones_are_refused(self, client):
        error = client.create('dpa_resnet18.broken', **ARGS)
        assert error['type'] == 'WeightsError'
        assert error['message'].startswith('dpa_resnet18.broken: ')
        assert 'has SHA-256 ' in error['message']
        assert error['message'].endswith('install timm-dpa again')

    def test_of_another_architecture(self, client):
        error = client.create('dpa_resnet18.packed')  # without the options of the small one
        assert error['type'] == 'ValueError'
        assert error['message'].startswith('dpa_resnet18.packed: weights of another architecture')

    def test_a_file_of_ones_own_goes_before_them(self, client, tmp_path):
        model_files(tmp_path / 'm', 'dpa', seed=7)
        found = client.create(
            'dpa_resnet18.packed', pretrained_cfg_overlay={'file': str(tmp_path / 'm' / WEIGHTS)}, **ARGS
        )
        model = create('dpa_resnet18', **TINY)
        model.load_state_dict(load_file(tmp_path / 'm' / WEIGHTS))
        model.pretrained_cfg['input_size'] = (3, 64, 64)
        assert found == embed(model)

    def test_go_before_those_of_the_hub(self, hub, client, expected):
        assert client.create('dpa_resnet18.both', **ARGS) == expected
        assert asked(hub, 'org/both') == []

    def test_an_organization_that_was_asked_for_is_taken_or_missed(self, hub, site, expected, tmp_path):
        environment = {**hub.environment, 'TIMM_DPA_HUB_ORG': 'mirror'}
        with HubClient(tmp_path / 'home', environment, site) as client:
            assert client.create('dpa_resnet18.packed', **ARGS) == expected
            assert f'GET mirror/packed main {WEIGHTS}' in asked(hub, 'mirror/packed')
            error = client.create('dpa_resnet18.both', **ARGS)
        assert error['type'] == 'WeightsError'
        assert error['message'].startswith('mirror/both: no such repository')
        assert error['message'].endswith('without TIMM_DPA_HUB_ORG the weights of the package are taken')


class TestNotThere:
    """Through the commands, whose errors are one line."""

    @staticmethod
    def embed(client, folder: Path, source: str) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        (folder / 'a.jpg').touch()
        out = str(folder / 'v.safetensors')
        return client.cli('embed', str(folder / 'a.jpg'), '--out', out, '--model', f'hf-hub:{source}')

    @pytest.mark.parametrize(
        ('source', 'message'),
        [
            ('org/missing', r'org/missing: no such repository on http://\S+ that you may read; check the name'),
            ('org/plain@v9', 'org/plain: has no revision v9'),
            ('org/private', r'org/private: no such repository on http://\S+, or a private one; .* log in .* HF_TOKEN'),
            ('org/gated', r'org/gated: access must be requested at http://\S+/org/gated, then log in .*'),
            ('org/nothing', r'org/nothing: holds no config\.json; is it the repository of a timm model\?'),
            ('org/unweighted', r'org/unweighted: holds no model\.safetensors; is it .*'),
        ],
    )
    def test_each_has_a_message_of_its_own(self, client, tmp_path, source, message):
        status, out, errors = self.embed(client, tmp_path, source)
        assert (status, out) == (1, '')
        assert re.fullmatch(f'timm-dpa embed: {message}\n', errors)

    @pytest.mark.parametrize(
        ('source', 'message'),
        [
            ('org/foreign', r'org/foreign: weights of another architecture, layer3\.attn\.\S+ is missing, .*'),
            ('org/newer', r'hf-hub:org/newer: its configuration makes no model \(.* argument .new_option.\)'),
            ('org/torn', r'hf-hub:org/torn: its config\.json cannot be read \(Expecting value: .*\)'),
        ],
    )
    def test_what_cannot_be_used(self, client, tmp_path, source, message):
        status, out, errors = self.embed(client, tmp_path, source)
        assert (status, out) == (2, '')
        assert re.fullmatch(f'timm-dpa embed: {message}\n', errors)

    def test_hub_that_answers_with_an_error_is_no_missing_connection(self, hub, client, expected):
        fault = Refuse('HEAD org/down * config.json', times=ALWAYS, status=410)
        hub.faults.append(fault)
        status, _, errors = client.cli('export', 'hf-hub:org/down', '--out', 'down.onnx')
        assert status == 1
        message = r'timm-dpa export: org/down: the Hub answered with an error \(.*410.*\); try again\n'
        assert re.fullmatch(message, errors)
        fault.times = 0
        assert client.create('hf-hub:org/down') == expected

    def test_server_gone_takes_what_is_cached(self, hub, client, expected):
        assert client.create('hf-hub:org/plain') == expected
        hub.stop()
        try:
            assert client.create('hf-hub:org/plain') == expected
            status, _, errors = client.cli('export', 'hf-hub:org/late', '--out', 'late.onnx')
        finally:
            hub.start()
        assert status == 1
        assert errors.count('\n') == 1
        assert 'org/late: no connection to http://127.0.0.1' in errors
        assert 'connect and try again' in errors
        assert client.create('hf-hub:org/late') == expected

    def test_offline_takes_what_is_cached(self, hub, client, expected):
        pinned = 'hf-hub:org/plain@' + hub.commit('org/plain', 'main')
        assert client.create('hf-hub:org/plain') == client.create(pinned) == expected
        before = len(hub.requests)
        with HubClient(client.home, {**hub.environment, 'HF_HUB_OFFLINE': '1'}) as offline:
            assert offline.create('hf-hub:org/plain') == expected
            assert offline.create(pinned) == expected
            status, _, errors = offline.cli('export', 'hf-hub:org/nothing', '--out', 'nothing.onnx')
        assert status == 1
        assert errors.count('\n') == 1
        assert 'HF_HUB_OFFLINE is set' in errors
        assert len(hub.requests) == before
