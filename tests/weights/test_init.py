"""Weights from elsewhere, against timm's own loading of the same files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.support.hub_server import LoopbackHub
from tests.support.models import TINY, create, images, tiny
from timm_dpa import init_backbone, load_weights
from timm_dpa.weights.fetch import MODELS
from timm_dpa.weights.init import InitReport

BACKBONE = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')


def untouched(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def write(state: dict, path: Path) -> Path:
    (save_file if path.suffix == '.safetensors' else torch.save)(state, path)
    return path


@pytest.fixture(scope='module')
def source() -> nn.Module:
    """What stands for a network trained on ImageNet."""
    return create('resnet18', num_classes=10)


@pytest.fixture(scope='module')
def folder(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('weights')
    write(source.state_dict(), folder / 'resnet18.safetensors')
    write(source.state_dict(), folder / 'resnet18.pth')
    return folder


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return (Path.touch, (self.flag,))


def damaged(kind: str, folder: Path) -> Path:
    """Files that are no checkpoint."""
    path = folder / f'{kind}.{"safetensors" if "safetensors" in kind else "pth"}'
    state = {'conv1.weight': torch.zeros(64, 3, 7, 7)}
    if kind.startswith('truncated'):
        write(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind.startswith('empty'):
        path.write_bytes(b'')
    elif kind.startswith('text'):
        path.write_text('<html>404 Not Found</html>', encoding='utf-8')
    elif kind == 'list':
        torch.save([torch.zeros(3)], path)
    elif kind == 'numbers':
        torch.save({'epoch': 3}, path)
    elif kind == 'no_tensors':
        torch.save({}, path)
    return path


DAMAGED = [
    *(f'{kind}_{form}' for kind in ('truncated', 'empty', 'text') for form in ('safetensors', 'torch')),
    'list',
    'numbers',
    'no_tensors',
]


class TestInitBackbone:
    @pytest.mark.parametrize('file', ['resnet18.safetensors', 'resnet18.pth'])
    def test_imagenet_checkpoint_fills_the_backbone_and_the_report_tells_all(self, source, folder, file):
        model = timm.create_model('dpa_resnet18', num_classes=5)
        before = snapshot(model)
        report = init_backbone(model, folder / file)
        theirs = source.state_dict()
        backbone = {name for name in theirs if not name.startswith('fc.')}
        assert set(report.filled) == backbone
        assert set(report.filled) == {name for name in before if name.startswith(BACKBONE) and '.attn.' not in name}
        assert set(report.not_filled) == before.keys() - backbone
        assert {name.split('.')[0] for name in report.not_filled} == {'layer3', 'neck', 'fc', 'global_pool'}
        assert all(name.startswith('layer3.attn.') for name in report.not_filled if name.startswith('layer3'))
        assert set(report.ignored) == {'fc.weight', 'fc.bias'}
        assert report.source == str(folder / file)
        for name, value in model.state_dict().items():
            assert torch.equal(value, theirs[name] if name in backbone else before[name]), name

    def test_report_reads_as_one_line(self, folder):
        text = str(init_backbone(timm.create_model('dpa_resnet18'), folder / 'resnet18.pth'))
        assert text == (
            f'120 tensors from {folder / "resnet18.pth"}; keep their initial values: global_pool, layer3.attn, '
            'neck; not used: fc.weight, fc.bias'
        )
        assert str(InitReport('x', ('a',), (), ())) == '1 tensors from x; keep their initial values: none'

    def test_features_are_those_of_the_network_of_timm(self, source, folder):
        model = timm.create_model('dpa_resnet18', last_stride=2).eval()
        init_backbone(model, folder / 'resnet18.safetensors')
        model.layer3.attn = nn.Identity()
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(model.forward_features(x), source.forward_features(x), rtol=0, atol=0)

    @pytest.mark.parametrize('in_chans', [1, 4])
    def test_other_input_channels_are_adapted_as_timm_does(self, folder, in_chans):
        file = folder / 'resnet18.safetensors'
        model = timm.create_model('reid_resnet18', in_chans=in_chans)
        report = init_backbone(model, file)
        theirs = timm.create_model(
            'resnet18',
            pretrained=True,
            pretrained_cfg_overlay={'file': str(file), 'num_classes': 10},
            in_chans=in_chans,
        )
        assert 'conv1.weight' in report.filled
        torch.testing.assert_close(model.conv1.weight, theirs.conv1.weight, rtol=0, atol=0)
        torch.testing.assert_close(model.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight, rtol=0, atol=0)

    def test_training_checkpoint_with_prefixes_is_unpacked(self, source, tmp_path):
        state = {f'module.{name}': value for name, value in source.state_dict().items()}
        path = write({'epoch': 3, 'arch': 'resnet18', 'state_dict': state}, tmp_path / 'last.pth.tar')
        model = timm.create_model('reid_resnet18')
        init_backbone(model, str(path))
        torch.testing.assert_close(model.conv1.weight, source.conv1.weight, rtol=0, atol=0)

    def test_checkpoint_of_a_reid_model_fills_attention_and_neck_too(self, tmp_path):
        trained = tiny('dpa', num_classes=7)
        path = write(trained.state_dict(), tmp_path / 'reid.safetensors')
        model = tiny('dpa', seed=1)
        report = init_backbone(model, path)
        assert report.not_filled == ()
        assert report.ignored == ('fc.weight',)
        trained.reset_classifier(0)
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)

    @pytest.mark.parametrize(('theirs', 'ours'), [('se', 'cbam'), ('cpa', 'spa')], ids=str)
    def test_attention_of_another_kind_is_left_out(self, tmp_path, theirs, ours):
        """All of it: those of `cpa` and `spa` share names, and shapes too."""
        path = write(tiny(theirs).state_dict(), tmp_path / 'other.safetensors')
        model = tiny(ours, seed=1)
        before = snapshot(model)
        report = init_backbone(model, path)
        assert all(name.startswith('layer3.attn.') for name in (*report.not_filled, *report.ignored))
        assert set(report.not_filled) == {name for name in before if name.startswith('layer3.attn.')}
        assert all(torch.equal(model.state_dict()[name], before[name]) for name in report.not_filled)
        assert str(report).endswith('keep their initial values: layer3.attn; not used: layer3.attn')

    def test_trunk_of_released_weights_by_name_and_by_folder(self):
        reports = []
        for source in ('dpa_resnet50.rendered_kit', MODELS / 'dpa_resnet50.rendered_kit'):
            model = timm.create_model('se_resnet50', num_classes=3)
            reports.append(init_backbone(model, source))
            trained = timm.create_model('dpa_resnet50.rendered_kit', pretrained=True).state_dict()
            for name, value in model.state_dict().items():
                assert name.startswith(('layer3.attn.', 'fc.')) or torch.equal(value, trained[name]), name
        assert set(reports[0].filled) == set(reports[1].filled)
        assert {name.rpartition('.')[0] for name in reports[0].not_filled} == {
            'layer3.attn.fc1',
            'layer3.attn.fc2',
            'fc',
        }
        assert str(reports[0]).startswith(
            f'{len(reports[0].filled)} tensors from dpa_resnet50.rendered_kit; keep their'
        )
        twin = timm.create_model('dpa_resnet50')
        assert str(init_backbone(twin, 'dpa_resnet50.rendered_kit')).endswith(
            'values: layer3.attn; not used: color_norm.mean, color_norm.deviation, layer3.attn, whiten.matrix'
        )
        assert init_backbone(twin, MODELS / 'dpa_resnet50.rendered_kit').not_filled == ()
        with pytest.raises(FileNotFoundError, match=r'holds neither model/model\.safetensors nor model\.safetensors'):
            init_backbone(model, MODELS)

    @pytest.mark.parametrize(
        ('name', 'options', 'tensor'),
        [
            ('resnet50', {}, r'layer1\.0\.conv1\.weight is \(16, 64, 1, 1\) instead of \(16, 64, 3, 3\)'),
            # has all tensors of the model, and more
            ('resnet18', {'layers': (1, 1, 2, 1)}, r'layer3\.1\.\S+ has no place'),
            ('resnet18', {'stem_type': 'deep'}, r'conv1\.weight is missing'),
            ('resnet18', {'layers': (1, 1, 1)}, r'layer4\.0\.conv1\.weight is missing'),
        ],
        ids=['bottlenecks', 'deeper', 'stem', 'shallower'],
    )
    def test_weights_of_another_architecture_are_an_error_that_names_a_tensor(self, tmp_path, name, options, tensor):
        state = timm.create_model(name, **{**TINY, **options}).state_dict()
        path = write(state, tmp_path / 'other.safetensors')
        model = tiny('dpa')
        before = snapshot(model)
        with pytest.raises(ValueError, match=f'another architecture, {tensor}'):
            init_backbone(model, path)
        assert untouched(model, before)

    @pytest.mark.parametrize('form', ['torch', 'pickle'])
    def test_pickle_that_needs_code_is_refused_and_not_executed(self, tmp_path, form):
        flag, path = tmp_path / 'executed', tmp_path / 'evil.pth'
        content = {'conv1.weight': Payload(flag)}
        if form == 'torch':
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(content, protocol=2))
        model = tiny(None)
        before = snapshot(model)
        for load in (init_backbone, load_weights):
            with pytest.raises(
                ValueError, match=r'evil\.pth: holds more than tensors.*save model\.state_dict\(\)'
            ) as e:
                load(model, path)
            assert 'weights_only=False' not in str(e.value)  # no advice to do it nevertheless
        assert not flag.exists()
        assert untouched(model, before)
        torch.load(path, weights_only=False) if form == 'torch' else pickle.loads(path.read_bytes())
        assert flag.exists(), 'the payload of this test does nothing'

    @pytest.mark.parametrize('kind', DAMAGED)
    def test_file_that_is_no_checkpoint_is_an_error_that_names_it(self, tmp_path, kind):
        path = damaged(kind, tmp_path)
        model = tiny(None)
        before = snapshot(model)
        for load in (init_backbone, load_weights):
            with pytest.raises(ValueError, match=path.name):
                load(model, path)
        assert untouched(model, before)

    @pytest.mark.parametrize(
        'missing',
        ['weights.safetensors', 'runs/last.pt', './weights', '/nowhere/weights', 'resnet18.pth', '~/last.ckpt'],
    )
    def test_missing_file_is_an_error_and_not_looked_for_on_the_hub(self, monkeypatch, tmp_path, missing):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match='no such checkpoint file') as e:
            init_backbone(tiny(None), missing)
        assert missing in str(e.value)

    def test_unknown_name_is_an_error_that_says_what_is_possible(self):
        with pytest.raises(
            FileNotFoundError, match=r'resnet9000: neither a file, nor a Hub repository .* nor a timm model'
        ):
            init_backbone(tiny(None), 'resnet9000')

    @pytest.mark.parametrize('name', ['resnet18.no_such_tag', 'reid_resnet18.no_such_tag'])
    def test_model_without_such_weights_is_an_error_that_names_it(self, name):
        with pytest.raises(ValueError, match=name):
            init_backbone(tiny(None), name)


HUB_CLIENT = """
import json, sys
import timm, torch
from safetensors.torch import save_file
from timm_dpa import init_backbone
out = sys.argv[1]
results = {}
for i, source in enumerate(sys.argv[2:]):
    torch.manual_seed(0)
    model = timm.create_model('dpa_resnet18')
    before = model.conv1.weight.clone()
    try:
        report = init_backbone(model, source)
    except Exception as error:
        results[source] = [type(error).__name__, str(error), torch.equal(model.conv1.weight, before)]
    else:
        save_file(model.state_dict(), f'{out}/{i}.safetensors')
        results[source] = ['filled', len(report.filled), sorted(report.ignored), f'{out}/{i}.safetensors']
print(json.dumps(results))
"""


@pytest.fixture(scope='module')
def hub_states() -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    names = ('main', 'v2')
    return {name: timm.create_model('resnet18', num_classes=10).state_dict() for name in names}


@pytest.fixture(scope='module')
def hub_results(hub_states, tmp_path_factory) -> dict[str, list]:
    """What a fresh process with a real client makes of each source; one process, as its start takes long."""
    tmp = tmp_path_factory.mktemp('hub')
    config = {'architecture': 'resnet18', 'num_classes': 10, 'pretrained_cfg': {'num_classes': 10}}
    files = {}
    for name, state in hub_states.items():
        content = write(state, tmp / f'{name}.safetensors').read_bytes()
        files[name] = {'config.json': json.dumps(config).encode(), 'model.safetensors': content}
    small = write(timm.create_model('resnet18', **TINY).state_dict(), tmp / 'small.safetensors').read_bytes()
    narrow = {**config, 'num_classes': 1000, 'model_args': {k: list(v) for k, v in TINY.items()}}
    repos = {
        'somebody/resnet18': files,
        'somebody/narrow': {
            'main': {'config.json': json.dumps(narrow).encode(), 'model.safetensors': small},
            'wrong': {'config.json': json.dumps(config).encode(), 'model.safetensors': small},
        },
        'somebody/empty': {'main': {'config.json': json.dumps(config).encode()}},
    }
    sources = [
        'somebody/resnet18',
        'somebody/resnet18@v2',
        'hf-hub:somebody/resnet18@' + LoopbackHub.commit('somebody/resnet18', 'v2'),
        'somebody/resnet18@v3',
        'somebody/missing',
        'somebody/empty',
        'somebody/narrow',
        'somebody/narrow@wrong',
    ]
    with LoopbackHub(repos) as hub:
        environment = {**os.environ, **hub.environment, 'HF_HOME': str(tmp / 'home')}
        done = subprocess.run(
            [sys.executable, '-c', HUB_CLIENT, str(tmp), *sources], env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TestHub:
    @pytest.mark.parametrize(
        ('source', 'revision'),
        [('somebody/resnet18', 'main'), ('somebody/resnet18@v2', 'v2'), ('hf-hub:somebody/resnet18@', 'v2')],
        ids=['default', 'name', 'commit'],
    )
    def test_repository_and_revision_fill_the_backbone(self, hub_results, hub_states, source, revision):
        key = source + (LoopbackHub.commit('somebody/resnet18', revision) if source.endswith('@') else '')
        what, count, ignored, file = hub_results[key]
        assert (what, count, ignored) == ('filled', 120, ['fc.bias', 'fc.weight'])
        loaded = load_file(file)
        for name, value in hub_states[revision].items():
            if not name.startswith('fc.'):
                torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ('source', 'reason'),
        [
            ('somebody/missing', 'somebody/missing: no such repository on http'),
            ('somebody/resnet18@v3', 'somebody/resnet18: has no revision v3'),
            ('somebody/empty', 'somebody/empty: holds no pytorch_model.bin; is it'),
        ],
    )
    def test_missing_repository_revision_or_weights_is_an_error_that_names_it(self, hub_results, source, reason):
        error, message, same = hub_results[source]
        assert error == 'FileNotFoundError'
        assert message.startswith(reason)
        assert same

    @pytest.mark.parametrize(
        ('source', 'tensor'), [('somebody/narrow', 'layer1.0.conv1.weight'), ('somebody/narrow@wrong', 'layer1.0.')]
    )
    def test_repository_of_another_architecture_is_an_error_that_names_a_tensor(self, hub_results, source, tensor):
        error, message, same = hub_results[source]
        assert error == 'ValueError'
        assert message.startswith(f'{source}: ')
        assert tensor in message
        assert same


class TestLoadWeights:
    @pytest.mark.parametrize('file', ['model.safetensors', 'model.pth'])
    def test_checkpoint_of_the_same_model_is_restored(self, tmp_path, file):
        trained = tiny('dpa', num_classes=4)
        model = tiny('dpa', seed=1, num_classes=4)
        load_weights(model, write(trained.state_dict(), tmp_path / file))
        assert untouched(model, trained.state_dict())

    @pytest.mark.parametrize(('saved', 'own'), [(7, 4), (0, 4), (7, 0)])
    def test_classifier_of_another_width_is_left_out(self, tmp_path, saved, own):
        trained = tiny('dpa', num_classes=saved)
        model = tiny('dpa', seed=1, num_classes=own)
        classifier = [p.clone() for p in model.fc.parameters()]
        load_weights(model, write(trained.state_dict(), tmp_path / 'model.safetensors'))
        assert all(torch.equal(a, b) for a, b in zip(model.fc.parameters(), classifier, strict=True))
        for m in (trained, model):
            m.reset_classifier(0)
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(model(x), trained(x), rtol=0, atol=0)

    def test_grid_of_another_size_is_resampled(self, tmp_path):
        """On maps of the new grid's size the loaded model computes what the saved one does."""
        trained = tiny('spa', attn_args={'grid_size': 8})
        model = tiny('spa', seed=1, attn_args={'grid_size': 4})
        load_weights(model, write(trained.state_dict(), tmp_path / 'model.safetensors'))
        assert model.layer3.attn.conv1.weight.shape == (64, 32, 1, 1)
        x = images(2, 3, 64, 64)
        torch.testing.assert_close(model(x), trained(x), rtol=1e-4, atol=1e-4)

    def test_timm_resnet_loads_as_well(self, source, folder):
        model = timm.create_model('resnet18', num_classes=3).eval()
        load_weights(model, folder / 'resnet18.pth')
        x = images(1, 3, 64, 64)
        torch.testing.assert_close(model.forward_features(x), source.forward_features(x), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ('saved', 'tensor'),
        [
            (('se', {}), r'layer3\.attn'),
            ((None, {}), r'layer3\.attn\.spa\.\S+ is missing'),
            (('dpa', {'layers': (1, 1, 2, 1)}), r'layer3\.1\.\S+ has no place'),
            (('dpa', {'in_chans': 1}), r'conv1\.weight is \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)'),
            (('dpa', {'channels': (16, 32, 64, 96)}), r'layer4\.0\.conv1\.weight is \(96, 64, 3, 3\)'),
            (('dpa', {'attn_args': {'grid_size': (3, 5)}}), r'layer3\.attn\.spa\.conv1\.weight is \(64, 30, 1, 1\)'),
        ],
        ids=['attention', 'baseline', 'deeper', 'channels', 'width', 'grid'],
    )
    def test_checkpoint_of_another_model_is_an_error_that_leaves_the_model_untouched(self, tmp_path, saved, tensor):
        attn, options = saved
        path = write(tiny(attn, seed=1, **options).state_dict(), tmp_path / 'other.safetensors')
        model = tiny('dpa')
        before = snapshot(model)
        with pytest.raises(ValueError, match=rf'other\.safetensors: weights of another architecture, {tensor}'):
            load_weights(model, path)
        assert untouched(model, before)

    def test_missing_file_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'nothing\.pth: no such checkpoint file'):
            load_weights(tiny(None), tmp_path / 'nothing.pth')
