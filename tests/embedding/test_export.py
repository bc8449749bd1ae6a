"""Export: files are run by their own runtimes here and compared with numbers that the exporter did not compute."""

import copy
import json
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from packaging.version import Version
from torch import nn

import timm_dpa.embedding.export
import timm_dpa.embedding.onnx_file
from tests.support.exports import GUARDS_FREE_SIZES, eager, noise, run, suffix, tiny
from tests.support.models import lively
from timm_dpa.embedding.export import FORMATS, ExportError, ExportReport, export_model, read_metadata
from timm_dpa.embedding.models import create_embedding_model


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """Thin and shallow: tracing costs time per layer."""
    torch.manual_seed(0)
    return lively(timm.create_model('dpa_resnet18', num_classes=5, layers=(1, 1, 1, 1), channels=(16, 32, 64, 128)))


@pytest.fixture(scope='module')
def exported(dpa, tmp_path_factory):
    """Function of (kind, format) that exports once: dpa_resnet18 with free sizes, a tiny model at one oblong size."""

    @cache
    def export(kind: str, format: str) -> ExportReport:
        out = tmp_path_factory.mktemp(kind) / f'{kind}{suffix(format)}'
        if kind == 'dynamic':
            if format == 'torch-export' and not GUARDS_FREE_SIZES:
                pytest.skip('this torch.export guards a free size with conditions that its own images break')
            return export_model(dpa, out, format, image_size=128, dynamic_size=True)
        return export_model(tiny(), out, format, image_size=(64, 96))

    return export


@pytest.mark.skipif(Version(torch.__version__) >= Version('2.13'), reason='of older versions of torch')
def test_free_sizes_that_torch_cannot_export_are_refused(dpa, tmp_path):
    with pytest.raises(
        ExportError, match=r'Guard failed.*; torch .* guards free sizes wrongly: update torch, or export '
    ):
        export_model(dpa, tmp_path / 'a.pt2', 'torch-export', image_size=128, dynamic_size=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=FORMATS)
def dynamic(request, exported) -> ExportReport:
    return exported('dynamic', request.param)


@pytest.fixture(params=FORMATS)
def fixed(request, exported) -> ExportReport:
    return exported('fixed', request.param)


@pytest.fixture(params=[(kind, format) for kind in ('dynamic', 'fixed') for format in FORMATS], ids='-'.join)
def either(request, exported) -> ExportReport:
    return exported(*request.param)


@pytest.mark.parametrize('shape', [(1, 3, 161, 97), (2, 3, 64, 112), (5, 3, 77, 130)])
def test_dynamic_file_gives_the_models_unit_embeddings(dynamic, dpa, shape):
    images = noise(*shape)
    embeddings = run(dynamic.path, images)
    assert embeddings.shape == (shape[0], 128)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embeddings, eager(dpa, images), rtol=0, atol=1e-5)


def test_dynamic_report_tells_what_was_compared(dynamic):
    assert dynamic.max_difference <= dynamic.tolerance == 1e-4
    assert dynamic.batch_sizes == (1, 3)
    assert dynamic.image_sizes[0] == (128, 128)
    heights, widths = zip(*dynamic.image_sizes, strict=True)
    assert min(heights) < 128
    assert max(widths) > 128
    assert any(height % 16 and width % 16 for height, width in dynamic.image_sizes)
    assert dynamic.file_size == dynamic.path.stat().st_size


def test_fixed_file_takes_any_batch_of_its_size(fixed):
    model = tiny()
    for batch in (1, 2, 7):
        images = noise(batch, 3, 64, 96)
        np.testing.assert_allclose(run(fixed.path, images), eager(model, images), rtol=0, atol=1e-5)
    assert fixed.image_sizes == ((64, 96),)


def test_fixed_file_refuses_other_sizes(fixed):
    with pytest.raises(Exception, match=r'(?i)invalid dimensions|guard|expected'):
        run(fixed.path, noise(2, 3, 96, 64))


def test_half_precision_and_autocast_do_not_reach_the_file(tmp_path):
    model = tiny().bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        report = export_model(model, tmp_path / 'a.pt2', 'torch-export', image_size=64)
    images = noise(2, 3, 64, 64)
    embeddings = run(report.path, images)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, eager(model, images), rtol=0, atol=1e-5)
    assert next(model.parameters()).dtype == torch.bfloat16


def test_size_and_channels_default_to_the_models(tmp_path):
    overlay = {'input_size': (1, 48, 80), 'mean': (0.5,), 'std': (0.25,)}
    model = tiny(in_chans=1, pretrained_cfg_overlay=overlay)
    report = export_model(model, tmp_path / 'a.pt2', 'torch-export')
    assert report.image_sizes == ((48, 80),)
    assert {key: report.metadata[key] for key in ('input_size', 'mean', 'std', 'pixel_range')} == {
        'input_size': [1, 48, 80],
        'mean': [0.5],
        'std': [0.25],
        'pixel_range': '0..1',
    }
    images = noise(2, 1, 48, 80)
    np.testing.assert_allclose(run(report.path, images), eager(model, images), rtol=0, atol=1e-5)


def test_transformer_exports_at_its_size_only(tmp_path):
    model = timm.create_model('test_vit', dynamic_img_size=False)
    report = export_model(model, tmp_path / 'vit.pt2', 'torch-export')
    images = noise(2, *report.metadata['input_size'])
    np.testing.assert_allclose(run(report.path, images), eager(model, images), rtol=0, atol=1e-5)
    with pytest.raises(ExportError, match='fixed size'):
        export_model(model, tmp_path / 'other.pt2', 'torch-export', dynamic_size=True)
    assert [p.name for p in tmp_path.iterdir()] == ['vit.pt2']


@pytest.mark.parametrize(('kind', 'size'), [('dynamic', ['height', 'width']), ('fixed', [64, 96])])
def test_onnx_graph_has_named_free_axes_and_its_weights_inside(exported, kind, size):
    report = exported(kind, 'onnx')
    model = onnx.load(report.path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ['images']
    assert [entry.name for entry in model.graph.output] == ['embeddings']
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ['batch', 3, *size]
    shape = model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ['batch', report.metadata['embedding_size']]
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert [entry.version for entry in model.opset_import if entry.domain == ''] == [18]
    assert model.ir_version == 8  # onnxruntime 1.17 knows up to 9, and opset 18


@pytest.mark.parametrize('how', ['whole', 'in place', 'part'])
def test_a_compiled_model_is_exported_as_what_it_was_made_of(tmp_path, how):
    model = tiny()
    if how == 'whole':
        model = torch.compile(model, backend='eager')
    elif how == 'in place':
        model.compile(backend='eager')
    else:
        model.layer1 = torch.compile(model.layer1, backend='eager')
    report = export_model(model, tmp_path / 'a.pt2', 'torch-export', image_size=64)
    images = noise(2, 3, 64, 64)
    np.testing.assert_allclose(run(report.path, images), eager(tiny(), images), rtol=0, atol=1e-5)


def test_a_transformer_made_for_another_size(tmp_path):
    model = create_embedding_model('test_vit3', False, (64, 96))
    report = export_model(model, tmp_path / 'a.pt2', 'torch-export')
    assert report.metadata['input_size'] == [3, 64, 96]
    with pytest.raises(ExportError, match=r'does not run at 32 x 32: AssertionError: Input height'):
        export_model(model, tmp_path / 'b.pt2', 'torch-export', image_size=32)


def test_nothing_else_is_written(either):
    # for BoxMOT, which normalizes as ImageNet does
    has_sidecar = either.format == 'onnx' and either.metadata['mean'] == [0.485, 0.456, 0.406]
    sidecar = [Path(f'{either.path}.metadata.json')] if has_sidecar else []
    assert sorted(either.path.parent.iterdir()) == sorted([either.path, *sidecar])
    assert either.sidecar == (sidecar[0] if sidecar else None)


def test_metadata_are_readable_without_this_package(fixed):
    if fixed.format == 'onnx':
        model = onnx.load(fixed.path)
        metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    else:
        with zipfile.ZipFile(fixed.path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith('/timm_dpa.json')]
            metadata = json.loads(archive.read(name))
    assert metadata == read_metadata(fixed.path) == fixed.metadata


def test_metadata_say_how_to_prepare_images(dynamic):
    metadata = dict(read_metadata(dynamic.path))
    assert metadata.pop('torch_version') == str(torch.__version__)
    assert metadata.pop('timm_dpa_version') == timm_dpa.__version__
    assert metadata == {
        'model': 'dpa_resnet18',
        'input_size': [3, 128, 128],
        'dynamic_axes': ['batch', 'height', 'width'],
        'interpolation': 'bicubic',
        'crop_mode': 'squash',
        'crop_pct': 1.0,
        'input': 'normalized',
        'input_type': 'float32',
        'layout': 'NCHW',
        'pixel_range': '0..1 RGB',
        'mean': [0.485, 0.456, 0.406],
        'std': [0.229, 0.224, 0.225],
        'embedding_size': 128,
        'normalisation': 'l2',
        'precision': 'float32',
        'args': {'dynamic': 1},
    }


def test_files_hold_no_paths_of_the_machine_that_wrote_them(either):
    content = either.path.read_bytes()
    if either.format == 'torch-export':
        with zipfile.ZipFile(either.path) as archive:
            content = b''.join(archive.read(name) for name in archive.namelist())
    for module in (timm, timm_dpa, torch):
        assert str(Path(module.__file__).parent).encode() not in content


def test_file_can_be_read_by_whom_the_umask_allows(fixed, tmp_path):
    usual = tmp_path / 'usual'
    usual.touch()
    assert fixed.path.stat().st_mode == usual.stat().st_mode


def test_model_is_left_as_it_was(tmp_path):
    model = tiny(num_classes=5).to(memory_format=torch.channels_last).train()
    model.layer1.eval()
    model.conv1.requires_grad_(False)
    before = copy.deepcopy(model)
    export_model(model, tmp_path / 'a.pt2', 'torch-export', image_size=64)
    assert model.num_classes == 5
    assert [(name, module.training) for name, module in model.named_modules()] == [
        (name, module.training) for name, module in before.named_modules()
    ]
    for (name, tensor), expected in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name
        assert tensor.stride() == expected.stride(), name
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]


class FreshNoise(nn.Module):
    """Adds noise at every call; tracing to the graph keeps that of one call, or draws its own."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.generator = np.random.default_rng(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn = float(self.generator.standard_normal()) if self.frozen else torch.randn_like(x)
        return x.mul(torch.linspace(-1, 1, x.shape[1])[:, None, None]) + drawn


@pytest.fixture
def old_file(tmp_path) -> Path:
    path = tmp_path / 'model.file'
    path.write_bytes(b'the export of yesterday')
    return path


def survived(old_file: Path) -> bool:
    return old_file.read_bytes() == b'the export of yesterday' and list(old_file.parent.iterdir()) == [old_file]


@pytest.mark.parametrize('frozen', [True, False])
def test_model_that_changes_from_call_to_call_is_refused(old_file, frozen):
    model = tiny()
    model.layer4.add_module('noise', FreshNoise(frozen))
    with pytest.raises(ExportError, match=r'differ from those of PyTorch by 0\.\d+, 0\.0001 is allowed'):
        export_model(model, old_file, 'torch-export', image_size=64)
    assert survived(old_file)


def test_tolerance_decides(old_file):
    with pytest.raises(ExportError, match='0 is allowed'):
        export_model(tiny(), old_file, 'onnx', image_size=64, tolerance=0)
    assert survived(old_file)


@pytest.mark.parametrize('format', FORMATS)
def test_good_export_quietly_replaces_the_old_file(old_file, capfd, format):
    report = export_model(tiny(), old_file, format, image_size=64)
    assert report.max_difference < 1e-5
    assert read_metadata(old_file)['model'] == 'test_resnet'
    assert capfd.readouterr() == ('', '')


def test_file_that_gives_nan_is_refused(old_file, monkeypatch):
    load = timm_dpa.embedding.export.load_file
    monkeypatch.setattr(
        timm_dpa.embedding.export, 'load_file', lambda *args: lambda images: load(*args)(images) * np.float32('nan')
    )
    with pytest.raises(ExportError, match='differ'):
        export_model(tiny(), old_file, 'torch-export', image_size=64)
    assert survived(old_file)


def test_interrupt_leaves_nothing_behind(old_file, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(timm_dpa.embedding.export, 'load_file', interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(tiny(), old_file, 'torch-export', image_size=64)
    assert survived(old_file)


def test_weights_that_are_not_finite_are_named(old_file):
    model = tiny()
    model.layer2[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match=r'layer2\.0\.conv1\.weight'):
        export_model(model, old_file)
    model = tiny()
    model.bn1.running_var.fill_(torch.nan)
    with pytest.raises(ExportError, match='not finite'):
        export_model(model, old_file)
    assert survived(old_file)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'format': 'tflite'}, "unknown format 'tflite'; choose one of onnx, torch-export"),
        ({'image_size': 31}, 'at least 32'),
        ({'image_size': -64}, 'at least 32'),
        ({'image_size': 64.0}, 'whole number'),
        ({'image_size': (64, 64, 64)}, 'height, width'),
        ({'image_size': (64, 0)}, 'at least 32'),
        ({'image_size': 32, 'dynamic_size': True}, 'at least 64 where the size is dynamic'),
        ({'opset': 15}, 'opset must be at least 16, not 15'),
        ({'batch': 0}, 'batch must be a whole number of at least 1'),
        ({'batch': 1.0}, 'batch must be a whole number'),
        ({'tolerance': -1}, 'tolerance'),
        ({'tolerance': float('nan')}, 'tolerance'),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_model(tiny(), tmp_path / 'a.onnx', **arguments)
    assert not list(tmp_path.iterdir())


def test_wrong_places(tmp_path):
    with pytest.raises(ValueError, match='does not exist'):
        export_model(tiny(), tmp_path / 'missing' / 'a.onnx')
    with pytest.raises(ValueError, match='is a folder'):
        export_model(tiny(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_models(tmp_path):
    with pytest.raises(ValueError, match='Linear is not a timm model'):
        export_model(nn.Linear(3, 3), tmp_path / 'a.onnx')
    with pytest.raises(ValueError, match='one vector per image'):
        export_model(timm.create_model('reid_resnet18', global_pool=''), tmp_path / 'a.onnx', image_size=64)
    with pytest.raises(ValueError, match='mean'):
        export_model(timm.create_model('reid_resnet18', in_chans=1), tmp_path / 'a.onnx', image_size=64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime', 'onnxscript'])
def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"pip install 'timm-dpa\[export\]' .*{package}"):
        export_model(tiny(), tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


def test_torch_export_needs_no_extra(tmp_path, monkeypatch):
    for package in ('onnx', 'onnxruntime', 'onnxscript'):
        monkeypatch.setitem(sys.modules, package, None)
    report = export_model(tiny(), tmp_path / 'a.pt2', 'torch-export', image_size=64)
    assert read_metadata(report.path) == report.metadata


def test_weights_beyond_one_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr(timm_dpa.embedding.onnx_file, 'ONNX_LIMIT', 1000)
    with pytest.raises(ExportError, match='torch-export'):
        export_model(tiny(), tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


def test_foreign_files_have_no_metadata(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / 'missing.onnx')
    text = tmp_path / 'notes.txt'
    text.write_text('no model at all, ' * 20)
    with pytest.raises(ValueError, match='neither'):
        read_metadata(text)
    with zipfile.ZipFile(tmp_path / 'weights.zip', 'w') as archive:
        archive.writestr('a.txt', 'a')
    plain = tmp_path / 'plain.onnx'
    value = onnx.helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node('Identity', ['x'], ['y'])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], 'g', [value], [value]))
    onnx.helper.set_model_props(model, {'author': 'someone'})
    onnx.save(model, plain)
    for path in (tmp_path / 'weights.zip', plain):
        with pytest.raises(ValueError, match='no metadata of timm-dpa'):
            read_metadata(path)
