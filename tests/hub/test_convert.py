"""Converted checkpoints against networks that are written without the package."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import timm_dpa.train.run.networks
from tests.layers.test_odconv import FIXTURE, released_state
from tests.support.foreign_networks import ChannelGate, FastReID, SpatialGate, TorchReID, calibrated
from tests.support.site import MODEL_FILES
from timm_dpa.hub.convert import convert_checkpoint

SBS = {'non_local': {2: 2, 3: 3}, 'gem': True}
#: source, network, sizes of images (the odd ones are for the pooling of the stem), architecture
CASES = {
    'bag of tricks': ('fastreid', lambda: FastReID(), [(96, 64), (101, 67)], 'reid_resnet50'),
    'bag of tricks, ibn': ('fastreid', lambda: FastReID(ibn=True), [(96, 64)], 'reid_resnet50'),
    'stride 2': ('fastreid', lambda: FastReID(last_stride=2), [(96, 64)], 'reid_resnet50'),
    'SBS': ('fastreid', lambda: FastReID(**SBS), [(96, 64), (101, 67)], 'nl_resnet50'),
    'SBS, ibn, other pixels': (
        'fastreid',
        lambda: FastReID(ibn=True, **SBS, mean=(0.31, 0.42, 0.53), std=(0.21, 0.25, 0.3)),
        [(96, 64)],
        'nl_resnet50',
    ),
    'one inner channel': ('fastreid', lambda: FastReID(**SBS, inner=1), [(96, 64)], 'nl_resnet50'),
    'non-local in all': ('fastreid', lambda: FastReID(non_local={1: 3, 2: 1, 4: 2}), [(96, 64)], 'nl_resnet50'),
    'dpa': ('g-re-id', lambda: FastReID(gem=True, gates='sc'), [(256, 256)], 'dpa_resnet50'),
    'cpa, ibn': ('g-re-id', lambda: FastReID(gem=True, gates='c', ibn=True), [(96, 64)], 'cpa_resnet50'),
    'spa': ('g-re-id', lambda: FastReID(gem=True, gates='s'), [(256, 256)], 'spa_resnet50'),
    'torchreid': ('torchreid', TorchReID, [(96, 64), (101, 67)], 'reid_resnet50'),
}
SLOW = ('stride 2', 'spa')


def save(name: str, state: dict[str, torch.Tensor], folder: Path) -> tuple[Path, set[str]]:
    """A file as the source writes it, or another usual one; and the keys in it."""
    beside = {'optimizer': {'state': {0: torch.zeros(2)}}, 'scheduler': {'last_epoch': 59}, 'iteration': 7}
    if name == 'torchreid':
        beside = {'epoch': 60, 'rank1': np.float64(0.9), 'optimizer': {}, 'scheduler': {'milestones': [20]}}
        content = {'state_dict': {f'module.{key}': value for key, value in state.items()}, **beside}
        torch.save(content, folder / 'model.pth.tar-60')
        return folder / 'model.pth.tar-60', {*content.pop('state_dict'), *beside}
    if name == 'SBS':
        save_file(state, folder / 'model.safetensors')
        return folder / 'model.safetensors', set(state)
    path = folder / 'model.pth'
    if name == 'bag of tricks, ibn':
        torch.save(state, path)
        return path, set(state)
    torch.save({'model': state, **beside}, path)
    return path, {*state, *beside}


def embed(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Unit embeddings of pixels in 0..255 by a converted model and what its configuration says of them."""
    mean, std = (pixels.new_tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
    with torch.no_grad():
        return F.normalize(model((pixels / 255 - mean) / std))


@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_embeddings_equal_those_of_the_source(name, tmp_path):
    source, make, sizes, architecture = CASES[name]
    torch.manual_seed(0)
    network = calibrated(make(), sizes[0] if sizes[0][0] == 256 else (64, 64))
    path, keys = save(name, network.state_dict(), tmp_path)
    options = {'last_stride': 2} if name == 'stride 2' else {}
    report = convert_checkpoint(path, source, tmp_path / 'out', **options)

    assert {*report.renamed, *report.left_out} == keys
    assert not report.renamed.keys() & report.left_out.keys()
    assert report.architecture == architecture
    assert (
        {'config.json', 'model.safetensors'} <= {file.name for file in (tmp_path / 'out').iterdir()} <= {*MODEL_FILES}
    )
    saved = load_file(tmp_path / 'out' / 'model.safetensors')
    made = {key for key in saved if key.startswith('neck.')} if source == 'torchreid' else set()
    assert sorted([*report.renamed.values(), *made]) == sorted(saved)
    assert not any(key.startswith('fc.') for key in saved)

    model = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    with torch.no_grad():
        pixels = 255 * torch.rand(2, 3, *sizes[0])
        torch.testing.assert_close(embed(model, pixels), F.normalize(network(pixels)), rtol=0, atol=1e-4)
        network, model = network.double(), model.double()
        for size in sizes:
            pixels = 255 * torch.rand(2, 3, *size, dtype=torch.float64)
            expected = F.normalize(network(pixels))
            assert (expected[0] - expected[1]).abs().max() > 0.01
            torch.testing.assert_close(embed(model, pixels), expected, rtol=0, atol=1e-5)


def test_gates_of_the_foreign_network_equal_the_released_implementation():
    for prefix, gate in (('cpa', ChannelGate(64)), ('spa', SpatialGate(64))):
        gate.load_state_dict(released_state(f'{prefix}.'))
        torch.testing.assert_close(gate.eval()(FIXTURE['x']), FIXTURE[f'y_{prefix}_gate'], rtol=0, atol=1e-5)


def outline(network: type[nn.Module] = FastReID, **options) -> dict[str, torch.Tensor]:
    """A state dict with all names and shapes, in a file of some kilobytes: every tensor is a single 1."""
    with torch.device('meta'):
        state = network(**options).state_dict()
    state = {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
    if network is FastReID:
        state['heads.bottleneck.0.bias'] = torch.zeros(2048)
    return state


def write(state: object, folder: Path) -> Path:
    torch.save(state, folder / 'model.pth')
    return folder / 'model.pth'


class TestWhatIsWritten:
    def test_image_size_stride_and_what_is_assumed_are_in_the_configuration_and_the_report(self, tmp_path):
        path = write({key: value.half() for key, value in outline().items() if not key.startswith('pixel')}, tmp_path)
        report = convert_checkpoint(path, 'fastreid', tmp_path / 'wide', image_size=(128, 256), last_stride=2)
        config = json.loads((tmp_path / 'wide' / 'config.json').read_text())
        cfg = config['pretrained_cfg']
        assert (cfg['input_size'], cfg['pool_size'], config['num_classes']) == ([3, 128, 256], [4, 8], 0)
        assert (cfg['mean'], cfg['std']) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert 'license' not in cfg  # nobody knows it
        assert config['model_args']['last_stride'] == 2
        assert [note.partition(':')[0] for note in report.notes] == [
            'global average pooling',
            'mean and std of ImageNet',
        ]
        saved = load_file(tmp_path / 'wide' / 'model.safetensors')
        assert {value.dtype for value in saved.values()} == {torch.float32, torch.int64}

        report = convert_checkpoint(path, 'fastreid', tmp_path / 'square')
        config = json.loads((tmp_path / 'square' / 'config.json').read_text())
        assert config['pretrained_cfg']['input_size'] == [3, 256, 256]
        assert config['model_args']['last_stride'] == 1
        assert 'image size 256 x 256' in str(report)
        assert 'stride 1 in stage 4' in str(report)
        assert 'left out: heads.weight (classifier of 7 identities)' in str(report)

    def test_checkpoint_without_classifier_and_counters_is_complete(self, tmp_path):
        state = {key: value for key, value in outline(TorchReID).items() if 'classifier' not in key}
        state = {key: value for key, value in state.items() if 'num_batches' not in key}
        report = convert_checkpoint(write(state, tmp_path), 'torchreid', tmp_path / 'out', image_size=96)
        assert set(report.renamed) == set(state)
        assert load_file(tmp_path / 'out' / 'model.safetensors')['bn1.num_batches_tracked'] == 0
        assert any('neck' in note for note in report.notes)
        config = json.loads((tmp_path / 'out' / 'config.json').read_text())
        assert config['pretrained_cfg']['interpolation'] == 'bilinear'

    def test_older_name_of_the_classifier(self, tmp_path):
        state = outline()
        state['heads.classifier.weight'] = state.pop('heads.weight')
        report = convert_checkpoint(write({'model': state}, tmp_path), 'fastreid', tmp_path / 'out')
        assert report.left_out['heads.classifier.weight'] == 'classifier of 7 identities'

    def test_offset_of_the_neck_is_folded_into_its_mean(self, tmp_path):
        generator = torch.Generator().manual_seed(0)
        neck = nn.BatchNorm1d(2048).eval()
        state = outline()
        for name, value in neck.state_dict().items():
            if value.dim():
                value.copy_(0.5 + torch.rand(2048, generator=generator))
                state[f'heads.bottleneck.0.{name}'] = value
        neck.weight.data[0] = neck.bias.data[0] = 0  # what is constant and 0 stays so
        report = convert_checkpoint(write(state, tmp_path), 'fastreid', tmp_path / 'out')
        assert 'folded' in report.left_out['heads.bottleneck.0.bias']
        model = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
        x = torch.rand(4, 2048, generator=generator)
        torch.testing.assert_close(model.neck(x), neck(x), rtol=1e-5, atol=1e-5)

        neck.bias.data[0] = 0.1
        path = write(state, tmp_path)
        with pytest.raises(ValueError, match=r'heads\.bottleneck\.0\.bias is not 0 where the weight is'):
            convert_checkpoint(path, 'fastreid', tmp_path / 'other')
        assert not (tmp_path / 'other').exists()

    def test_an_empty_folder_is_filled_and_any_other_left_alone(self, tmp_path):
        path = write(outline(TorchReID), tmp_path)
        out = tmp_path / 'out'
        out.mkdir()
        convert_checkpoint(path, 'torchreid', out)
        before = (out / 'config.json').stat().st_mtime_ns
        for there in (out, path):
            with pytest.raises(FileExistsError, match=f'{there.name}: there already'):
                convert_checkpoint(path, 'torchreid', there)
        assert (out / 'config.json').stat().st_mtime_ns == before

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path, monkeypatch):
        path = write(outline(TorchReID), tmp_path)

        def fill(model, folder, **kwargs):
            (folder / 'model.safetensors').write_bytes(b'some')
            raise SafetensorError('No space left on device')

        monkeypatch.setattr(timm_dpa.train.run.networks, 'save_for_hf', fill)
        with pytest.raises(OSError, match='No space left'):
            convert_checkpoint(path, 'torchreid', tmp_path / 'out')
        assert list(tmp_path.iterdir()) == [path]


def changed(change: dict[str, tuple[int, ...] | None], network: type[nn.Module] = FastReID, **options) -> dict:
    """An outline with other shapes, further keys (of one 1 each), or without those that are None."""
    state = outline(network, **options)
    for key, shape in change.items():
        if shape is None:
            del state[key]
        else:
            state[key] = torch.ones(()).expand(shape)
    return state


DPA = {'gem': True, 'gates': 'sc'}
WRONG = {
    'unknown': ('fastreid', lambda: changed({'backbone.layer1.0.se.fc.weight': (4, 4)}), 'se.fc.weight has no place'),
    'deeper': ('fastreid', lambda: changed({'backbone.layer3.6.bn1.bias': (256,)}), 'layer3.6.bn1.bias has no place'),
    'missing': ('fastreid', lambda: changed({'backbone.bn1.bias': None}), 'backbone.bn1.bias is missing'),
    'shape': (
        'fastreid',
        lambda: changed({'backbone.conv1.weight': (64, 1, 7, 7)}),
        'backbone.conv1.weight is (64, 1, 7, 7) instead of (64, 3, 7, 7)',
    ),
    'no neck': ('fastreid', lambda: changed({'heads.bottleneck.0.bias': None}), 'heads.bottleneck.0.bias is missing'),
    'narrower neck': (
        'fastreid',
        lambda: changed({'heads.bottleneck.0.weight': (512, 2048, 1, 1)}),
        'heads.bottleneck.0 is a convolution (EMBEDDING_DIM above 0)',
    ),
    'width of the classifier': (
        'fastreid',
        lambda: changed({'heads.weight': (7, 512)}),
        'heads.weight is (7, 512) instead of (7, 2048)',
    ),
    'half of the pixels': ('fastreid', lambda: changed({'pixel_std': None}), 'pixel_std is missing'),
    'shape of the pixels': ('fastreid', lambda: changed({'pixel_std': (3,)}), 'pixel_std is (3,) instead of (1, 3, 1'),
    'ibn in part': (
        'fastreid',
        lambda: changed({'backbone.layer2.1.bn1.IN.bias': None}, ibn=True),
        'backbone.layer2.1.bn1.IN.bias is missing',
    ),
    'gap between non-local blocks': (
        'fastreid',
        lambda: {k: v for k, v in outline(**SBS).items() if not k.startswith('backbone.NL_3.1.')},
        'backbone.NL_3.1.theta.weight is missing',
    ),
    'more non-local blocks than blocks': (
        'fastreid',
        lambda: changed({'backbone.NL_2.7.theta.weight': (256, 512, 1, 1)}, **SBS),
        'backbone.NL_2.7.theta.weight has no place',
    ),
    'mixed non-local blocks': (
        'fastreid',
        lambda: changed({'backbone.NL_3.0.theta.weight': (1, 1024, 1, 1)}, **SBS),
        'inner channels of backbone.NL_* are {2: 256, 3: 1}',
    ),
    'one mixed non-local block': (
        'fastreid',
        lambda: changed({'backbone.NL_3.1.theta.weight': (1, 1024, 1, 1)}, **SBS),
        'backbone.NL_3.1.theta.weight is (1, 1024, 1, 1) instead of (512, 1024, 1, 1)',
    ),
    'more kernels': (
        'g-re-id',
        lambda: changed({'backbone.mul1.fc1.weight': (4, 64, 1024, 3, 3)}, **DPA),
        'backbone.mul1.fc1.weight is (4, 64, 1024, 3, 3) instead of (64, 1024, 3, 3)',
    ),
    'another grid': (
        'g-re-id',
        lambda: changed({'backbone.mul1.conv1.weight': (1024, 800, 1, 1)}, **DPA),
        'backbone.mul1.conv1.weight is (1024, 800, 1, 1) instead of (1024, 512, 1, 1)',
    ),
    'non-local blocks and gates': (
        'g-re-id',
        lambda: outline(**DPA, non_local={2: 1}),
        'backbone.NL_2.0.g.weight has no place',
    ),
    'gate in part': ('g-re-id', lambda: changed({'backbone.mul2.fc1.weight': None}, **DPA), 'mul2.fc1.weight is miss'),
    'fc512': ('torchreid', lambda: changed({'fc.0.weight': (512, 2048)}, TorchReID), 'fc.0.weight is of a layer after'),
    'scalar classifier': ('torchreid', lambda: changed({'classifier.bias': ()}, TorchReID), 'classifier.bias is ()'),
    'transformer': ('torchreid', lambda: {'cls_token': torch.ones(1)}, 'cls_token is no key of torchreid'),
    'fastreid as torchreid': ('torchreid', outline, 'looks like a checkpoint of fastreid, not of torchreid'),
    'fastreid as g-re-id': ('g-re-id', outline, 'looks like a checkpoint of fastreid, not of g-re-id'),
    'g-re-id as fastreid': ('fastreid', lambda: outline(**DPA), 'looks like a checkpoint of g-re-id'),
    'torchreid as fastreid': ('fastreid', lambda: outline(TorchReID), 'looks like a checkpoint of torchreid'),
    'not tensors': ('fastreid', lambda: {'backbone.conv1.weight': 3}, 'holds no state dict'),
    'not a dictionary': ('fastreid', lambda: [torch.ones(1)], 'holds no state dict'),
    'nothing': ('fastreid', dict, 'holds no state dict'),
    'numbered': ('fastreid', lambda: {0: torch.ones(1)}, 'holds no state dict'),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_not_supported_is_named_and_nothing_is_written(case, tmp_path):
    source, make, words = WRONG[case]
    path = write({'model': make()} if case != 'not a dictionary' else make(), tmp_path)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        convert_checkpoint(path, source, tmp_path / 'out')
    assert str(path) in str(caught.value)
    assert ('supported: ' in str(caught.value)) == any(
        word in words for word in ('place', 'miss', 'instead', 'is ()', 'above 0', 'after', 'no key')
    )
    assert list(tmp_path.iterdir()) == [path]


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return (Path.touch, (self.flag,))


def test_files_that_run_code_or_are_damaged_are_refused(tmp_path):
    path, out, flag = tmp_path / 'model.pth', tmp_path / 'out', tmp_path / 'flag'

    def refused(words: str) -> None:
        with pytest.raises(ValueError, match=words):
            convert_checkpoint(path, 'fastreid', out)
        assert list(tmp_path.iterdir()) == [path]

    torch.save({'model': outline(), 'hook': Payload(flag)}, path)
    refused('could run code')
    path.write_bytes(pickle.dumps({'model': Payload(flag)}, protocol=2))
    refused('could run code')
    torch.save({'model': outline()}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    refused('not a checkpoint that can be read')
    path.write_bytes(b'')
    refused('not a checkpoint that can be read')
    path.unlink()
    path = tmp_path / 'model.safetensors'
    path.write_bytes(b'\x10\0\0\0\0\0\0\0{')
    refused('not a checkpoint that can be read')
    with pytest.raises(FileNotFoundError, match='no such checkpoint'):
        convert_checkpoint(tmp_path / 'none.pth', 'fastreid', out)


def test_wrong_options_are_named(tmp_path):
    path = write(outline(TorchReID), tmp_path)
    for options, words in (
        ({'source': 'fast-reid'}, "unknown source 'fast-reid'; choose one of fastreid, g-re-id, torchreid"),
        ({'image_size': (0, 128)}, 'image_size'),
        ({'last_stride': 0}, 'last_stride must be 1 or 2, not 0'),
    ):
        with pytest.raises(ValueError, match=words):
            convert_checkpoint(path, **{'source': 'torchreid', 'out': tmp_path / 'out', **options})
    assert list(tmp_path.iterdir()) == [path]
