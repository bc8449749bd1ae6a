"""Extractors of a model by name."""

import logging
from pathlib import Path

import pytest
import timm
import torch

from tests.support.extractors import SIZE, assert_same, make_model
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.models import autocast_dtype, create_embedding_model
from timm_dpa.train.data.toy_vehicles import draw_vehicle


class TestByName:
    @pytest.fixture
    def weights(self, tmp_path):
        path = tmp_path / 'dpa_resnet18.pth'
        torch.save(make_model().state_dict(), path)
        return path

    def test_random_weights_are_the_same_in_every_run(self, images, caplog):
        state = torch.get_rng_state()
        with caplog.at_level(logging.WARNING):
            first = FeatureExtractor('cpa_resnet18', precision='fp32', image_size=SIZE)
        assert 'random weights' in caplog.text
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(99)
        second = FeatureExtractor('cpa_resnet18', pretrained=False, precision='fp32', image_size=SIZE)
        assert first.describe() == second.describe()
        assert_same(first(images[:2]), second(images[:2]), 1e-7)

    def test_a_checkpoint(self, weights, images, expected):
        extractor = FeatureExtractor('dpa_resnet18', pretrained=weights, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': 'dpa_resnet18', 'checkpoint': str(weights)}

    def test_only_released_weights_are_called_by_their_tag(self, weights):
        def names(*models, **options):
            return {FeatureExtractor(model, device='cpu', **options).describe()['model'] for model in models}

        name = 'dpa_resnet18.rendered_kit'
        assert names('dpa_resnet18', name, timm.create_model(name, pretrained=True)) == {name}
        assert names('dpa_resnet18', name, pretrained=False) == {'dpa_resnet18'}
        assert names('dpa_resnet18', name, pretrained=weights) == {'dpa_resnet18'}
        assert names(timm.create_model(name), make_model()) == {'dpa_resnet18'}
        assert names('resnet18.a1_in1k', pretrained=False) == {'resnet18'}
        # the configuration that timm registered still says what it is of
        assert timm.get_pretrained_cfg('dpa_resnet18').tag == 'rendered_kit'

    def test_a_model_folder(self, tmp_path, images, expected, monkeypatch):
        timm.models.save_for_hf(make_model(), tmp_path / 'mine', safe_serialization=True)
        monkeypatch.chdir(tmp_path)
        extractor = FeatureExtractor('local-dir:mine', precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': f'local-dir:{tmp_path / "mine"}'}

    @pytest.mark.parametrize('given', ['run', 'run/model', Path('run')])
    def test_a_run_folder(self, tmp_path, images, expected, monkeypatch, given):
        timm.models.save_for_hf(make_model(), tmp_path / 'run/model', safe_serialization=True)
        monkeypatch.chdir(tmp_path)
        extractor = FeatureExtractor(given, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': f'local-dir:{tmp_path / "run/model"}'}

    def test_folders_without_a_model(self, tmp_path, monkeypatch):
        (tmp_path / 'run').mkdir()
        (tmp_path / 'reid_resnet18').mkdir()
        monkeypatch.chdir(tmp_path)
        for given in ('run', Path('run'), Path('none')):
            with pytest.raises(FileNotFoundError, match='no model in this folder'):
                FeatureExtractor(given)
        assert FeatureExtractor('reid_resnet18', False).embedding_size == 512  # its name is that of a model

    @pytest.mark.parametrize(
        ('arguments', 'error', 'reason'),
        [
            ({'model': 'dpa_resnet19'}, ValueError, 'dpa_resnet19.*timm-dpa models'),
            ({'model': 'dpa_resnet18.none'}, ValueError, r'dpa_resnet18\.none'),
            ({'model': 'cpa_resnet18', 'pretrained': True}, ValueError, 'No pretrained weights'),
            ({'model': 'dpa_resnet18', 'pretrained': 'none.pth'}, FileNotFoundError, r'none\.pth'),
            ({'model': 'local-dir:/none'}, FileNotFoundError, '/none'),
            ({'model': 'dpa_resnet18', 'precision': 'fp8'}, ValueError, 'auto, fp32, bf16, fp16'),
            ({'batch_size': 0}, ValueError, 'batch_size'),
            ({'workers': 0}, ValueError, 'workers'),
            ({'model': 'dpa_resnet18', 'image_size': 0}, ValueError, 'image_size'),
            ({'model': 'dpa_resnet18', 'device': 'gpu'}, ValueError, 'device gpu'),
            ({'model': 'dpa_resnet18', 'device': 'cuda:77'}, ValueError, 'device cuda:77'),
        ],
    )
    def test_wrong_arguments(self, arguments, error, reason):
        with pytest.raises(error, match=reason):
            FeatureExtractor(**arguments)

    def test_an_unknown_name_is_not_taken_for_one_without_weights(self, caplog):
        with pytest.raises(ValueError, match='dpa_resnet19'):
            FeatureExtractor('dpa_resnet19')
        assert not caplog.text

    def test_a_checkpoint_of_another_architecture(self, weights):
        with pytest.raises(ValueError, match=r'dpa_resnet18\.pth: weights of another architecture'):
            FeatureExtractor('reid_resnet18', pretrained=weights)

    def test_pretrained_is_for_names(self, model):
        with pytest.raises(ValueError, match='pretrained'):
            FeatureExtractor(model, pretrained=True)

    def test_a_module_elsewhere(self, model):
        with pytest.raises(ValueError, match=r"the module is on cpu; move it with \.to\('meta'\)"):
            FeatureExtractor(model, device='meta')
        assert FeatureExtractor(model, device='cpu').device.type == 'cpu'

    def test_create_embedding_model(self):
        model = create_embedding_model('dpa_resnet18', False)
        assert model.num_classes == 0


@pytest.mark.parametrize(
    ('cpu', 'chosen'),
    [
        ({'amx_bf16': True, 'avx512_bf16': True, 'cpu_name': 'Intel(R) Xeon(R)'}, torch.bfloat16),
        ({'amx_bf16': False, 'avx512_bf16': True, 'cpu_name': 'AMD EPYC'}, torch.bfloat16),
        ({'amx_bf16': False, 'avx512_bf16': True, 'cpu_name': 'Intel(R) Xeon(R)'}, None),
        ({'amx_bf16': False, 'avx512_bf16': False, 'cpu_name': 'AMD EPYC'}, None),
        ({'amx_bf16': True}, torch.bfloat16),  # what older versions of torch know
        ({}, None),
    ],
)
def test_auto_computes_in_what_was_measured_to_be_fast(monkeypatch, cpu, chosen):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: cpu, raising=False)
    assert autocast_dtype('auto', torch.device('cpu')) == chosen
    assert autocast_dtype('fp32', torch.device('cpu')) is None


@pytest.mark.parametrize(
    ('cpu', 'precision', 'warned'),
    [
        ({'architecture': 'x86_64', 'avx2': True, 'avx512_bf16': False, 'amx_bf16': False}, 'bf16', True),
        ({'architecture': 'x86_64', 'avx2': True, 'avx512_bf16': False, 'amx_bf16': False}, 'fp32', False),
        ({'architecture': 'x86_64', 'avx512_bf16': True, 'amx_bf16': False}, 'bf16', False),
        ({'architecture': 'x86_64', 'avx512_bf16': True, 'avx512_fp16': False, 'amx_fp16': False}, 'fp16', True),
        ({'architecture': 'x86_64', 'avx512_bf16': False, 'amx_fp16': True}, 'fp16', False),
        ({'architecture': 'aarch64'}, 'bf16', False),  # named otherwise there
        ({}, 'bf16', False),  # older versions of torch know nothing
    ],
)
def test_a_precision_that_the_processor_only_emulates_is_warned_of(monkeypatch, caplog, cpu, precision, warned):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: cpu, raising=False)
    autocast_dtype(precision, torch.device('cpu'))
    assert ('no instructions' in caplog.text) == warned
    autocast_dtype(precision, torch.device('meta'))
    assert len(caplog.records) == warned


def test_released_weights_in_bf16_give_the_embeddings_of_float32():
    crops = [draw_vehicle(identity, 0) for identity in range(12)]
    exact, rounded = (FeatureExtractor('dpa_resnet18', precision=p)(crops) for p in ('fp32', 'bf16'))
    assert (exact * rounded).sum(1).min() > 0.999


class TestFilesInTheirPlace:
    @pytest.mark.parametrize('kind', [str, Path])
    def test_exported_models(self, tmp_path, kind):
        path = tmp_path / 'x.onnx'
        with pytest.raises(ValueError, match=r'x\.onnx: takes no exported model'):
            FeatureExtractor(kind(path))
        path.write_bytes(b'graph')
        with pytest.raises(ValueError, match=r'x\.onnx: takes no exported model'):
            FeatureExtractor(kind(path))

    @pytest.mark.parametrize('kind', [str, Path])
    def test_weights(self, tmp_path, kind):
        path = tmp_path / 'x.pth'
        torch.save(make_model().state_dict(), path)
        with pytest.raises(ValueError, match=r"give both: FeatureExtractor\('dpa_resnet50', pretrained='.*x\.pth'\)"):
            FeatureExtractor(kind(path))
