"""OpenVINO: as a runtime of the extractor, and as a program that reads exported files."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import tiny
from tests.support.runtimes import odd_crops, thin_run
from timm_dpa import FeatureExtractor
from timm_dpa.embedding.export import export_model

pytestmark = pytest.mark.integrations
openvino = pytest.importorskip('openvino')


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TIMM_DPA_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    return thin_run(tmp_path_factory.mktemp('runs') / 'dpa')


@pytest.fixture(scope='module')
def crops():
    return odd_crops()


@pytest.fixture(scope='module')
def expected(source, crops):
    return FeatureExtractor(source, precision='fp32')(crops)


@pytest.fixture(scope='module')
def extractor(source):
    return FeatureExtractor(source, runtime='openvino', precision='fp32', batch_size=2)


def in_child(extractor, crops, queue):
    queue.put(extractor(crops))


def test_float32_gives_the_same(extractor, crops, expected):
    assert extractor.runtime == 'openvino'
    np.testing.assert_allclose(extractor(crops), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(extractor(crops[:1]), expected[:1], rtol=0, atol=1e-5)
    assert extractor([]).shape == (0, 128)


@pytest.mark.parametrize('precision', ['auto', 'bf16'])
def test_bf16_and_its_own_choice_keep_the_cosine(source, crops, expected, precision):
    vectors = FeatureExtractor(source, runtime='openvino', precision=precision)(crops)
    assert (vectors * expected).sum(1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_auto_takes_it(source):
    assert FeatureExtractor(source, runtime='auto').runtime == 'openvino'


def test_threads_copies_and_forks(extractor, crops, expected):
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(extractor, [crops] * 8):
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    extractor.close()
    np.testing.assert_allclose(pickle.loads(pickle.dumps(extractor))(crops), expected, rtol=0, atol=1e-5)
    extractor(crops)
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    child = context.Process(target=in_child, args=(extractor, crops, queue))
    child.start()
    np.testing.assert_allclose(queue.get(timeout=100), expected, rtol=0, atol=1e-5)
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize('precision', ['float32', 'half'])
def test_a_file_for_openvino_takes_frames_of_opencv(crops, tmp_path, precision):
    """It drops the metadata of a file; bytes of BGR need none."""
    import cv2

    model = tiny('dpa')
    report = export_model(
        model, tmp_path / 'a.onnx', image_size=64, consumer='openvino', precision=precision, dynamic_size=False
    )
    compiled = openvino.Core().compile_model(report.path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    frames = np.stack([cv2.resize(crop[..., ::-1], (64, 64)) for crop in crops])  # BGR
    vectors = compiled(frames)[0]
    expected = FeatureExtractor(model, precision='fp32', image_size=64)(crops)
    assert (vectors * expected).sum(1).min() > 0.99
