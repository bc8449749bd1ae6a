"""What exported files take: pixels prepared here, as a program outside of this package prepares them."""

import ast
import json
import re

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import timm_dpa.embedding.export
from tests.support.exports import run, tiny
from tests.support.models import TINY, lively
from tests.support.models import tiny as tiny_model
from timm_dpa.cli.main import main
from timm_dpa.embedding.export import ExportError, export_model, read_metadata
from timm_dpa.embedding.export_metadata import write_sidecar
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder

SIZE = (64, 96)  # sides that differ cannot be confused
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def model() -> nn.Module:
    config = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225), 'crop_pct': 1.0, 'crop_mode': 'squash'}
    return lively(tiny(pretrained_cfg_overlay={**config, 'interpolation': 'bicubic'}))


@pytest.fixture(scope='module')
def crops() -> list[np.ndarray]:
    """RGB, of all shapes, at their own size."""
    return [np.asarray(draw_vehicle(k, k).resize((90 + 9 * k, 120 - 7 * k))) for k in range(6)]


@pytest.fixture(scope='module')
def expected(model, crops) -> np.ndarray:
    return FeatureExtractor(model, image_size=SIZE, precision='fp32')(crops)


@pytest.fixture(scope='module')
def exported(model, tmp_path_factory):
    """One file for each input and program."""
    folder = tmp_path_factory.mktemp('inputs')
    return {
        name: export_model(model, folder / f'{name}.onnx', image_size=SIZE, **options)
        for name, options in {
            'ultralytics': {'consumer': 'ultralytics'},
            'boxmot': {'consumer': 'boxmot'},
            'openvino': {'consumer': 'openvino'},
        }.items()
    }


def bilinear(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def given(program: str, crops: list[np.ndarray]) -> np.ndarray:
    """What a program gives: all of them resize bilinearly; two do not normalize."""
    resized = np.stack([bilinear(crop) for crop in crops])
    if program == 'openvino':
        return np.ascontiguousarray(resized[..., ::-1])  # a frame of OpenCV
    pixels = resized.astype(np.float32) / 255
    return (pixels if program == 'ultralytics' else (pixels - MEAN) / STD).transpose(0, 3, 1, 2)


@pytest.mark.parametrize('program', ['ultralytics', 'boxmot', 'openvino'])
def test_pixels_of_a_program_give_the_embeddings_of_the_extractor(exported, crops, expected, program):
    report = exported[program]
    embeddings = run(report.path, given(program, crops))
    cosines = (embeddings * expected).sum(1)
    assert cosines.min() > 0.99
    assert ((embeddings @ expected.T).argmax(1) == range(len(crops))).all()  # other crops would not do as well
    assert report.consumer_cosine >= 0.99
    assert report.max_difference <= report.tolerance


def test_all_inputs_of_the_same_pixels_give_the_same(exported, crops):
    first, *others = [run(exported[name].path, given(name, crops)) for name in ('boxmot', 'ultralytics', 'openvino')]
    for embeddings in others:
        np.testing.assert_allclose(embeddings, first, rtol=0, atol=2e-6)


def test_metadata_say_what_the_file_takes(exported):
    about = {name: read_metadata(report.path) for name, report in exported.items()}
    keys = ('input', 'input_type', 'layout', 'pixel_range', 'mean', 'std')
    none = ([0.0] * 3, [1.0] * 3)
    imagenet = (MEAN.astype(float).round(3).tolist(), STD.astype(float).round(3).tolist())
    assert {name: tuple(metadata[key] for key in keys) for name, metadata in about.items()} == {
        'boxmot': ('normalized', 'float32', 'NCHW', '0..1 RGB', *imagenet),
        'ultralytics': ('unit', 'float32', 'NCHW', '0..1 RGB', *none),
        'openvino': ('uint8-bgr', 'uint8', 'NHWC', '0..255 BGR', *none),
    }
    shapes = {
        name: [d.dim_param or d.dim_value for d in onnx.load(r.path).graph.input[0].type.tensor_type.shape.dim]
        for name, r in exported.items()
    }
    assert shapes['ultralytics'] == ['batch', 3, *SIZE]
    assert shapes['openvino'] == ['batch', *SIZE, 3]


def test_ultralytics_reads_that_the_batch_is_free(exported):
    """It reads a Python literal, others read JSON, and both have to find the same."""
    entries = {entry.key: entry.value for entry in onnx.load(exported['ultralytics'].path).metadata_props}
    assert ast.literal_eval(entries['args']) == json.loads(entries['args']) == {'dynamic': True}
    assert 'batch' not in entries


@pytest.mark.skipif(int(cv2.__version__.split('.')[0]) < 5, reason='OpenCV 4 lacks an operator of dpa_*')
def test_opencv_runs_pixels_in_0_to_1(exported, crops, expected):
    """As docs/applications.md has it."""
    net = cv2.dnn.readNetFromONNX(str(exported['ultralytics'].path))
    frames = [crop[..., ::-1] for crop in crops]
    net.setInput(cv2.dnn.blobFromImages(frames, 1 / 255, SIZE[::-1], swapRB=True))
    assert (net.forward() * expected).sum(1).min() > 0.99


@pytest.mark.slow
def test_free_sizes_of_bytes(model, crops, tmp_path):
    report = export_model(model, tmp_path / 'a.onnx', image_size=SIZE, dynamic_size=True, input='uint8-bgr')
    shape = onnx.load(report.path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ['batch', 'height', 'width', 3]
    larger = np.stack([cv2.resize(crop, (130, 77)) for crop in crops])
    extractor = FeatureExtractor(model, image_size=(77, 130), precision='fp32')
    right = extractor.embed_pixels(torch.from_numpy(larger).permute(0, 3, 1, 2)).numpy()
    embeddings = run(report.path, np.ascontiguousarray(larger[..., ::-1]))
    np.testing.assert_allclose(embeddings, right, rtol=0, atol=1e-5)


def test_torch_export_takes_the_same_inputs(exported, model, crops, tmp_path):
    report = export_model(model, tmp_path / 'a.pt2', 'torch-export', SIZE, input='unit')
    assert report.sidecar is None
    images = given('ultralytics', crops)
    np.testing.assert_allclose(run(report.path, images), run(exported['ultralytics'].path, images), rtol=0, atol=2e-6)


def test_sidecar_tells_boxmot_the_size_and_goes_with_other_pixels(exported, tmp_path):
    report = exported['boxmot']
    assert report.sidecar == report.path.with_name('boxmot.onnx.metadata.json')
    content = json.loads(report.sidecar.read_text())
    assert (content['schema_version'], content['model_kwargs_schema_version']) == (1, 1)
    assert content['model_kwargs'] == {'img_size': list(SIZE)}
    assert content['preprocess'] == 'resize'
    assert exported['openvino'].sidecar is None
    config = {'mean': MEAN.astype(float).round(3), 'std': STD.astype(float).round(3)}
    out, sidecar = tmp_path / 'a.onnx', tmp_path / 'a.onnx.metadata.json'
    assert write_sidecar(out, report.metadata, config) == sidecar
    assert sidecar.read_text() == report.sidecar.read_text()
    assert write_sidecar(out, exported['openvino'].metadata, config) is None
    assert not sidecar.exists()
    sidecar.write_text('{"schema_version": 1}')  # of somebody else
    assert write_sidecar(out, exported['openvino'].metadata, config) is None
    assert sidecar.read_text() == '{"schema_version": 1}'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'input': 'bytes'}, "unknown input 'bytes'; choose one of normalized, unit, uint8-bgr"),
        ({'consumer': 'tensorflow'}, "unknown program 'tensorflow'; choose one of ultralytics, boxmot, openvino"),
        ({'consumer': 'ultralytics', 'input': 'normalized'}, "Ultralytics gives input 'unit', not 'normalized'"),
    ],
)
def test_wrong_arguments(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        export_model(model, tmp_path / 'a.onnx', image_size=SIZE, **options)
    assert not list(tmp_path.iterdir())


def test_models_that_a_program_cannot_serve(tmp_path):
    gray = tiny(in_chans=1, pretrained_cfg_overlay={'mean': (0.5,), 'std': (0.25,)})
    with pytest.raises(ValueError, match='three colors, and the model takes 1 channels'):
        export_model(gray, tmp_path / 'a.onnx', image_size=SIZE, input='uint8-bgr')
    with pytest.raises(ValueError, match='gives 3 channels, and the model takes 1'):
        export_model(gray, tmp_path / 'a.onnx', image_size=SIZE, consumer='ultralytics')
    other = tiny(pretrained_cfg_overlay={'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)})
    with pytest.raises(ValueError, match='BoxMOT normalizes with the mean and std of ImageNet'):
        export_model(other, tmp_path / 'a.onnx', image_size=SIZE, consumer='boxmot')
    assert not list(tmp_path.iterdir())


def test_a_program_whose_pixels_give_other_embeddings_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(timm_dpa.embedding.export, 'CONSUMER_COSINE', 1.01)  # random weights see too little
    with pytest.raises(ExportError, match=r'Ultralytics would not get the embeddings of this model: .* 1\.01 is the'):
        export_model(model, tmp_path / 'a.onnx', image_size=SIZE, consumer='ultralytics')
    assert not list(tmp_path.iterdir())


def test_a_run_folder_on_the_command_line(tmp_path, capsys):
    recipe = ModelRecipe(name='dpa_resnet18', args={key: list(value) for key, value in TINY.items()})
    save_model_folder(recipe, SIZE, tiny_model('dpa').state_dict(), tmp_path / 'run/model')
    out = tmp_path / 'a.onnx'
    words = ['export', str(tmp_path / 'run'), '--dynamic-size', '--for', 'ultralytics', '--out', str(out)]
    assert main(words) == 0
    printed, errors = capsys.readouterr()
    assert 'input: float32 N x 3 x 64 x 96, pixels 0..1 RGB\n' in printed
    assert re.search(r'FeatureExtractor with the resizing of Ultralytics: at least (1\.0000|0\.99\d\d)\n', printed)
    assert '--dynamic-size leaves the size to Ultralytics: it resizes to 224 x 224 then' in errors
    crop = np.asarray(draw_vehicle(0, 0).resize(SIZE[::-1]))
    embedding = run(out, (crop.astype(np.float32) / 255).transpose(2, 0, 1)[None])
    expected = FeatureExtractor(tmp_path / 'run', precision='fp32')(crop)
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('--int8', '--int8 and --calibrate IMAGES belong together'),
        ('--calibrate crops', '--int8 and --calibrate IMAGES belong together'),
        ('--min-cosine 0.9', '--min-cosine is for --int8 and --half'),
        ('--half --format torch-export', "precision 'half' is of ONNX files"),
        ('--half --min-cosine 2', 'min_cosine must be a number from -1 to 1, not 2.0'),
    ],
)
def test_wrong_use(words, message, capsys, tmp_path):
    assert main(['export', 'dpa_resnet18', '--out', str(tmp_path / 'a.onnx'), *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
