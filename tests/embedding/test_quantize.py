"""Smaller files, and the rules that a graph has to keep for TensorRT; one export of a thin network for all of it."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support.exports import eager, run
from tests.support.models import tiny
from timm_dpa.cli.main import main
from timm_dpa.embedding.export import ExportError, export_model, read_metadata
from timm_dpa.embedding.onnx_file import write_half
from timm_dpa.embedding.quantize import CalibrationImages, quantize
from timm_dpa.train.data.toy_vehicles import draw_vehicle

SIZE = 64
#: operators of graphs like ours that the public table of TensorRT's ONNX parser (of 8.4) lists as supported; a graph
#: with another one needs a look into that table, as of some (If, Loop, NonZero) it supports special cases only
TENSORRT = frozenset(
    re.findall(
        r'\w+',
        """
    Add BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv DequantizeLinear Div Equal Exp
    Expand Flatten Floor Gather Gemm GlobalAveragePool Identity Log MatMul Max MaxPool Min Mul Neg Pad Pow
    QuantizeLinear ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Slice
    Softmax Split Sqrt Squeeze Sub Tile Transpose Unsqueeze Where
        """,
    )
)


@pytest.fixture(scope='module')
def model():
    return tiny('dpa')


@pytest.fixture(scope='module')
def plain(model, tmp_path_factory):
    return export_model(model, tmp_path_factory.mktemp('plain') / 'a.onnx', image_size=SIZE, input='unit')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Twelve crops, and one that is damaged."""
    folder = tmp_path_factory.mktemp('crops')
    for k in range(12):
        draw_vehicle(k, k).resize((80, 60)).save(folder / f'{k:02d}.png')
    (folder / 'bad.png').write_bytes(b'text')
    return folder


def pixels(image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((SIZE, SIZE)), np.float32) / 255).permute(2, 0, 1)


def cosines(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (actual * expected).sum(1) / np.linalg.norm(actual, axis=1)


def types(path) -> dict[str, int]:
    """Bytes of the weights by their type."""
    sizes: dict[str, int] = {}
    for tensor in onnx.load(path).graph.initializer:
        name = onnx.TensorProto.DataType.Name(tensor.data_type)
        sizes[name] = sizes.get(name, 0) + onnx.numpy_helper.to_array(tensor).nbytes
    return sizes


def test_half_keeps_input_output_and_embeddings(model, plain, tmp_path):
    write_half(plain.path, tmp_path / 'half.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'half.onnx')
    assert [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())] == [
        ('images', 'tensor(float)'),
        ('embeddings', 'tensor(float)'),
    ]
    sizes = types(tmp_path / 'half.onnx')
    assert sizes['FLOAT16'] > 50 * sizes.get('FLOAT', 0)
    images = np.random.default_rng(0).random((5, 3, SIZE, SIZE), np.float32)
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = cosines(run(tmp_path / 'half.onnx', images), eager(model, (images - mean) / std))
    assert 0.999 < found.min() < 1
    assert read_metadata(tmp_path / 'half.onnx') == plain.metadata


def test_int8_is_calibrated_and_compared_on_other_images(model, plain, folder, tmp_path, caplog):
    images = CalibrationImages(folder, pixels, lambda batch: batch)
    assert 'bad.png' in caplog.text
    assert (len(images.calibration), len(images.held_out)) == (8, 4)
    assert not any((one == other).all() for one in images.calibration for other in images.held_out)
    out = tmp_path / 'int8.onnx'
    found = quantize(plain.path, out, images, None)
    sizes = types(out)
    convolutions = sum(p.numel() for p in model.parameters() if p.ndim == 4 and p.shape[-1] * p.shape[0] > 1)
    assert 0.5 * convolutions < sizes['INT8'] <= convolutions * 1.1
    images_given = images.held_out
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = cosines(run(out, images_given), eager(model, (images_given - mean) / std))
    assert found.mean_cosine == pytest.approx(expected.mean(), abs=1e-4)
    assert found.min_cosine == pytest.approx(expected.min(), abs=1e-4)
    assert 0.9 < found.min_cosine < 0.99999
    assert read_metadata(out) == plain.metadata
    assert list(tmp_path.iterdir()) == [out]


def test_batches_of_a_fixed_number(folder):
    images = CalibrationImages(folder, pixels, lambda batch: batch)
    assert [len(batch) for batch in images.batches(5)] == [5, 5]
    assert sum(len(batch) for batch in images.batches(None)) == 8


def test_too_few_images(folder):
    with pytest.raises(ValueError, match=r'calibration needs at least 8 images that can be read.* these are 3'):
        CalibrationImages(sorted(folder.iterdir())[:3], pixels, lambda batch: batch)


@pytest.mark.slow
def test_a_cosine_that_is_too_low_leaves_nothing(model, folder, tmp_path):
    with pytest.raises(ExportError, match=r'int8 changes the embeddings: .* on 4 images .*, 1 is asked for'):
        export_model(model, tmp_path / 'a.onnx', image_size=SIZE, precision='int8', calibrate=str(folder), min_cosine=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('options', ['--half --for openvino', '--int8 --calibrate {folder} --min-cosine 0.9'])
def test_command_line(folder, tmp_path, capsys, options):
    out = tmp_path / 'a.onnx'
    words = options.format(folder=folder).split()
    assert main(['export', 'dpa_resnet18', '--image-size', '64', '--out', str(out), *words]) == 0
    printed = capsys.readouterr().out
    assert re.search(r'(half|int8): cosine to float32 (1\.0000|0\.9\d+) on average, .* of 4\d\.\d MB\n', printed)
    assert read_metadata(out)['precision'] == ('half' if '--half' in options else 'int8')


def test_constants_are_computed_once(plain):
    graph = onnx.load(plain.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    left = [node for node in graph.node if node.input and all(not name or name in constants for name in node.input)]
    assert left == []


def test_shape_rules_of_tensorrt(plain):
    """As far as a machine without its GPU can tell: operators, ranks, and strict types and shapes."""
    proto = onnx.load(plain.path)
    assert {node.op_type for node in proto.graph.node} <= TENSORRT
    assert {node.domain for node in proto.graph.node} == {''}
    assert [entry.version for entry in proto.opset_import] == [18]
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True).graph
    known = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    for node in inferred.node:
        for name in node.output:
            assert known[name].HasField('shape'), f'{node.op_type} gives {name} of unknown rank'
            assert known[name].elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    # an engine has one profile for the batch: nothing else may be free
    free = [d for value in known.values() for d in value.shape.dim if not d.HasField('dim_value')]
    assert all('batch' in d.dim_param for d in free if d.dim_param)
