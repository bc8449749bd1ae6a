"""Runtimes of the extractor, compared with PyTorch in float32; those of OpenVINO are in test_openvino.py."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models import tiny
from tests.support.runtimes import odd_crops, thin_run
from timm_dpa import FeatureExtractor
from timm_dpa.cli.main import main
from timm_dpa.embedding import runtimes
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.runtime_cache import cache_folder
from timm_dpa.embedding.runtimes import choose_runtimes

CPU = torch.device('cpu')


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TIMM_DPA_CACHE', str(folder))
        yield folder


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
    return FeatureExtractor(source, runtime='onnxruntime', batch_size=2)


def near(vectors, expected):
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


def in_child(extractor, crops, queue):
    queue.put(extractor(crops))


class TestOnnxRuntime:
    def test_same_embeddings_in_any_number(self, extractor, crops, expected):
        assert extractor.runtime == 'onnxruntime'
        near(extractor(crops), expected)  # batches of 2, 2 and 1
        near(extractor(crops[:1]), expected[:1])
        assert extractor([]).shape == (0, 128)

    def test_embeddings_stay_comparable(self, extractor, source):
        assert extractor.describe() == FeatureExtractor(source).describe()

    def test_mirror_images(self, source, crops):
        both = [
            FeatureExtractor(source, runtime=name, precision='fp32', flip=True) for name in ('onnxruntime', 'torch')
        ]
        near(both[0](crops), both[1](crops))

    def test_threads(self, extractor, crops, expected):
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(extractor, [crops] * 8):
                near(vectors, expected)

    def test_closed_copied_and_forked(self, extractor, crops, expected):
        extractor.close()
        near(extractor(crops), expected)
        near(pickle.loads(pickle.dumps(extractor))(crops), expected)
        context = multiprocessing.get_context('fork')
        queue = context.Queue()
        child = context.Process(target=in_child, args=(extractor, crops, queue))
        child.start()
        near(queue.get(timeout=100), expected)
        child.join()
        assert child.exitcode == 0

    def test_other_sizes_are_refused(self, extractor):
        with pytest.raises(ValueError, match=r'the graph takes images of 64 x 96 pixels, not \(64, 64\)'):
            extractor.embed_pixels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    def test_command_line(self, source, crops, expected, tmp_path, capsys):
        from PIL import Image

        for k, crop in enumerate(crops):
            Image.fromarray(crop).save(tmp_path / f'{k}.png')
        out = tmp_path / 'a.safetensors'
        words = ['embed', str(tmp_path), '--model', str(source), '--precision', 'fp32', '--out', str(out)]
        assert main([*words, '--runtime', 'auto']) == 0
        assert capsys.readouterr().err == 'timm-dpa: runtime onnxruntime\n'
        near(load_embeddings(out).vectors, expected)
        assert main(words) == 0  # torch adds to the same file
        assert '5 known from an earlier run' in capsys.readouterr().out


class TestCache:
    def test_one_graph_for_the_same_model(self, extractor, source, cache):
        (graph,) = (cache / 'graphs').glob('*.onnx')
        before = graph.stat().st_mtime_ns
        FeatureExtractor(source, runtime='onnxruntime', precision='fp32', batch_size=1)
        assert graph.stat().st_mtime_ns == before
        (about,) = [path for path in (cache / 'graphs').glob('*.json') if 'onnxruntime-auto' in path.name]
        found = json.loads(about.read_text())
        assert found['precision'] == 'fp32'
        assert found['cosine'] > 0.99999

    @pytest.mark.slow
    def test_processes_that_want_the_same_wait_for_one(self, source, tmp_path):
        code = (
            'import sys; from timm_dpa import FeatureExtractor\n'
            "FeatureExtractor(sys.argv[1], runtime='onnxruntime', image_size=32)"
        )
        environment = {**os.environ, 'TIMM_DPA_CACHE': str(tmp_path), 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, '-c', code, str(source)]
        children = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
        for child in children:
            assert child.communicate(timeout=300)[1] == b''
            assert child.returncode == 0
        assert len(list((tmp_path / 'graphs').glob('*.onnx'))) == 1
        assert not list((tmp_path / 'graphs').glob('.*'))

    def test_where_it_is(self, monkeypatch, tmp_path, caplog):
        monkeypatch.setenv('TIMM_DPA_CACHE', str(tmp_path / 'a'))
        assert cache_folder() == tmp_path / 'a'
        monkeypatch.delenv('TIMM_DPA_CACHE')
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'b'))
        assert cache_folder() == tmp_path / 'b/timm_dpa'
        (tmp_path / 'file').touch()
        monkeypatch.setenv('TIMM_DPA_CACHE', str(tmp_path / 'file/below'))
        folder = cache_folder()
        assert folder == cache_folder()
        assert folder.is_dir()
        assert f'{tmp_path}/file/below cannot be written' in caplog.text

    def test_a_graph_that_is_gone(self, source, crops, monkeypatch, tmp_path):
        extractor = FeatureExtractor(source, runtime='onnxruntime')
        extractor._graph.path = tmp_path / 'gone.onnx'
        extractor.close()
        with pytest.raises(FileNotFoundError, match='gone from the cache'):
            extractor(crops)

    def test_a_runtime_that_computes_something_else_is_refused(self, extractor, source, monkeypatch):
        monkeypatch.setattr(runtimes, 'MAX_DIFFERENCE', 0)
        with pytest.raises(RuntimeError, match=r"onnxruntime in fp32 does not give the embeddings .* runtime='torch'"):
            FeatureExtractor(source, runtime='onnxruntime')


class TestChoice:
    def test_wrong_use(self, source, monkeypatch):
        with pytest.raises(ValueError, match="unknown runtime 'tvm'; choose one of torch, onnxruntime, openvino, auto"):
            FeatureExtractor(source, runtime='tvm')
        with pytest.raises(ValueError, match='those of a module may change; give the model by name'):
            FeatureExtractor(tiny('dpa'), runtime='onnxruntime')
        with pytest.raises(ValueError, match="'onnxruntime' has no precision 'bf16'; choose auto, fp32"):
            FeatureExtractor(source, runtime='onnxruntime', precision='bf16')
        with pytest.raises(ValueError, match="for the CPU, not for cuda; take device='cpu'"):
            choose_runtimes('onnxruntime', 'auto', torch.device('cuda'), True)
        monkeypatch.setitem(sys.modules, 'openvino', None)
        with pytest.raises(ImportError, match=r"pip install 'timm-dpa\[openvino\]'"):
            FeatureExtractor(source, runtime='openvino')

    @pytest.mark.parametrize(
        ('installed', 'precision', 'bf16', 'chosen'),
        [
            (('openvino', 'onnxruntime'), 'auto', False, ('openvino', 'onnxruntime', 'torch')),
            (('openvino', 'onnxruntime'), 'auto', True, ('openvino', 'torch')),
            (('openvino', 'onnxruntime'), 'fp32', True, ('onnxruntime', 'openvino', 'torch')),
            (('openvino', 'onnxruntime'), 'fp16', False, ('torch',)),
            (('onnxruntime',), 'auto', False, ('onnxruntime', 'torch')),
            (('onnxruntime',), 'auto', True, ('torch',)),
            (('onnxruntime',), 'bf16', False, ('torch',)),
            ((), 'auto', False, ('torch',)),
        ],
    )
    def test_auto(self, monkeypatch, installed, precision, bf16, chosen):
        monkeypatch.setattr(runtimes, '_is_installed', lambda name: name in installed)
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'amx_bf16': bf16}, raising=False)
        assert choose_runtimes('auto', precision, CPU, True) == chosen
        assert choose_runtimes('auto', precision, CPU, False) == ('torch',)  # a module
        assert choose_runtimes('auto', precision, torch.device('cuda'), True) == ('torch',)

    def test_auto_leaves_out_what_computes_something_else(self, source, crops, expected, monkeypatch, caplog):
        monkeypatch.setattr(runtimes, 'MAX_DIFFERENCE', 0)
        monkeypatch.setattr(runtimes, '_is_installed', lambda name: name == 'onnxruntime')
        extractor = FeatureExtractor(source, runtime='auto', precision='fp32')
        assert extractor.runtime == 'torch'
        assert 'onnxruntime in fp32 does not give the embeddings of this model' in caplog.text
        near(extractor(crops), expected)

    def test_modules_compute_in_torch(self, crops):
        assert FeatureExtractor(tiny('dpa'), runtime='auto', image_size=64).runtime == 'torch'
