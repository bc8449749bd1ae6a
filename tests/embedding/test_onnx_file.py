"""ONNX files for other runtimes: operator sets, IR versions, fixed batches."""

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from tests.support.exports import GUARDS_FREE_SIZES, eager, noise, run, suffix, tiny
from tests.support.models import lively
from timm_dpa.embedding.export import FORMATS, ExportError, export_model, read_metadata


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """Thin and shallow: tracing costs time per layer."""
    torch.manual_seed(0)
    return lively(timm.create_model('dpa_resnet18', num_classes=5, layers=(1, 1, 1, 1), channels=(16, 32, 64, 128)))


def every_metadata_entry(message) -> int:
    """Entries of messages below the model, which IR 10 brought."""
    total = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            values = value if field.is_repeated else [value]
            total += len(values) if field.name == 'metadata_props' else sum(map(every_metadata_entry, values))
    return total


@pytest.mark.parametrize('opset', [16, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (17, 18, 19)), 20])
def test_any_opset_with_the_lowest_ir_version_it_allows(dpa, tmp_path, opset):
    report = export_model(dpa, tmp_path / 'a.onnx', image_size=64, opset=opset)
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ''] == [opset]
    # the table of ONNX's own versions
    first = min(ir for row in onnx.helper.VERSION_TABLE if row[2] >= opset for ir in [row[1]])
    assert model.ir_version == first == (8 if opset <= 18 else 9)
    assert every_metadata_entry(model.graph) == 0
    images = noise(3, 3, 64, 64)
    np.testing.assert_allclose(run(report.path, images), eager(dpa, images), rtol=0, atol=1e-5)


def test_an_opset_that_lacks_an_operator_is_refused_with_one_that_has_it(tmp_path):
    model = timm.create_model('test_convnext')  # LayerNormalization came with 17
    with pytest.raises(ExportError, match=r'onnx of opset 16 cannot express test_convnext: .*try opset 18'):
        export_model(model, tmp_path / 'a.onnx', opset=16)
    assert not list(tmp_path.iterdir())
    report = export_model(model, tmp_path / 'a.onnx', opset=17)
    images = noise(2, *report.metadata['input_size'])
    np.testing.assert_allclose(run(report.path, images), eager(model, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize(('batch', 'dynamic'), [(1, False), (3, False), (1, True)])
def test_a_fixed_batch(tmp_path, format, batch, dynamic):
    if format == 'torch-export' and dynamic and not GUARDS_FREE_SIZES:
        pytest.skip('this torch.export guards a free size with conditions that its own images break')
    report = export_model(tiny(), tmp_path / f'a{suffix(format)}', format, 96, dynamic_size=dynamic, batch=batch)
    assert report.batch_sizes == (batch,)
    metadata = read_metadata(report.path)
    assert metadata['dynamic_axes'] == (['height', 'width'] if dynamic else [])
    assert (metadata['args'], metadata['batch']) == ({'dynamic': False}, batch)  # for Ultralytics
    images = noise(batch, 3, 96, 96)
    np.testing.assert_allclose(run(report.path, images), eager(tiny(), images), rtol=0, atol=1e-5)
    with pytest.raises(Exception, match=r'(?i)invalid dimensions|guard|expected'):
        run(report.path, noise(batch + 1, 3, 96, 96))
    if format == 'onnx':
        graph = onnx.load(report.path).graph
        for value, rest in ((graph.input[0], 3), (graph.output[0], report.metadata['embedding_size'])):
            assert [dim.dim_value for dim in value.type.tensor_type.shape.dim][:2] == [batch, rest]
