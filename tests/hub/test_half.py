"""Weights in float16: what is stored, what is refused, and that the results stay."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa import FeatureExtractor, init_backbone, load_weights
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.golden import check_golden
from timm_dpa.hub.half import store_half
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.evaluation.evaluate import evaluate_model
from timm_dpa.train.run.trainer import train


@pytest.fixture(scope='module')
def halved(trained, tmp_path_factory) -> Path:
    """The folder of the trained run, in float16."""
    out = tmp_path_factory.mktemp('half') / 'model'
    build_folder(trained, out, 'somebody/half', half=True)
    return out


class TestStored:
    def test_matrices_are_rounded_by_numpys_rule_and_all_else_is_kept(self, trained, halved):
        before, after = trained / 'model' / 'model.safetensors', halved / 'model.safetensors'
        weights, stored = load_file(before), load_file(after)
        assert weights.keys() == stored.keys()
        for name, value in weights.items():
            if value.ndim > 1:
                np.testing.assert_array_equal(stored[name].numpy(), value.numpy().astype(np.float16))
            else:
                assert torch.equal(stored[name], value)
                assert stored[name].dtype == value.dtype
        assert {value.dtype for value in stored.values()} == {torch.float16, torch.float32, torch.int64}
        with safe_open(before, 'pt') as one, safe_open(after, 'pt') as other:
            assert one.metadata() == other.metadata()
        assert after.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize(
        ('value', 'message'),
        [(70000.0, r'a\.weight has a value of 7e\+04, which is beyond float16'), (math.nan, 'train it again')],
    )
    def test_what_float16_cannot_hold_is_refused(self, tmp_path, value, message):
        save_file({'a.weight': torch.tensor([[1.0, value]]), 'b': torch.ones(2)}, tmp_path / 'in.safetensors')
        with pytest.raises(ValueError, match=message):
            store_half(tmp_path / 'in.safetensors', tmp_path / 'out.safetensors')
        assert not (tmp_path / 'out.safetensors').exists()

    def test_a_released_model_has_half_the_bytes(self, tmp_path):
        save_file(timm.create_model('dpa_resnet50').state_dict(), tmp_path / 'in.safetensors')
        store_half(tmp_path / 'in.safetensors', tmp_path / 'out.safetensors')
        assert (tmp_path / 'out.safetensors').stat().st_size < 55e6

    def test_largest_and_smallest_values(self, tmp_path):
        values = torch.tensor([[65504.0, -65504.0], [2.0**-24, 1e-9]])
        save_file({'a': values}, tmp_path / 'in.safetensors')
        store_half(tmp_path / 'in.safetensors', tmp_path / 'out.safetensors')
        assert load_file(tmp_path / 'out.safetensors')['a'].tolist() == [[65504.0, -65504.0], [2.0**-24, 0.0]]


class TestUsed:
    def test_models_compute_in_float32(self, trained, halved):
        model = timm.create_model(f'local-dir:{halved}', pretrained=True)
        others = [timm.create_model(f'local-dir:{trained / "model"}') for _ in range(2)]
        load_weights(others[0], halved / 'model.safetensors')
        init_backbone(others[1], halved / 'model.safetensors')
        for other in (model, *others):
            assert {value.dtype for value in other.parameters()} == {torch.float32}
            assert torch.equal(other.layer4[0].conv1.weight, model.layer4[0].conv1.weight)
        assert check_golden(halved) <= 1e-5

    @pytest.mark.slow
    def test_no_metric_changes_by_more_than_a_thousandth(self, tmp_path):
        data = write_vehicles(tmp_path / 'train', identities=90, images=8, seed=3)
        train(quick('schedule.epochs=6', 'run.evaluate_every=0'), data, tmp_path / 'run')
        whole, half = tmp_path / 'run' / 'model', tmp_path / 'half'
        half.mkdir()
        shutil.copy(whole / 'config.json', half)
        store_half(whole / 'model.safetensors', half / 'model.safetensors')
        test = load_data(write_vehicles(tmp_path / 'test', identities=180, images=6, seed=6))
        extractors = [FeatureExtractor(f'local-dir:{f}', device='cpu', precision='fp32') for f in (whole, half)]
        expected, found = (extractor(test.query.paths) for extractor in extractors)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
        expected, found = (evaluate_model(extractor, test).metrics for extractor in extractors)
        assert expected['valid_queries'] == 120
        assert 0.3 < expected['mAP'] < 0.9  # neither chance nor saturated
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-3), name

    def test_card_says_so(self, trained, halved, tmp_path):
        text = (halved / 'README.md').read_text()
        assert 'stored as float16 and loaded as float32' in text
        assert "model='somebody/half', pool=True, dtype='float32')" in text
        build_folder(trained, tmp_path / 'whole', 'somebody/whole')
        assert 'float16' not in (tmp_path / 'whole' / 'README.md').read_text()
