"""The head of re-identification on our models: neck, pooling, classifier."""

import copy
import itertools

import pytest
import torch
from torch import nn

from tests.support.models import (
    create,
    freeze_batch_norm,
    images,
    tiny,
)


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """In eval mode; tests that change it take a copy."""
    return create('dpa_resnet18', num_classes=5)


class TestHead:
    @pytest.mark.parametrize('global_pool', ['gem', 'avg', 'max', 'avgmax', 'catavgmax'])
    def test_embedding_is_pooling_and_neck_by_the_formula_and_logits_a_product(self, global_pool):
        model = tiny('se', global_pool=global_pool, num_classes=4)
        x = images(2, 3, 64, 80)
        with torch.no_grad():
            if global_pool == 'gem':
                assert model.global_pool.p.shape == (1,)
                assert model.global_pool.p.item() == 3
                model.global_pool.p.fill_(2.5)
            maps = model.forward_features(x).double()
            mean, peak = maps.mean((2, 3)), maps.amax((2, 3))
            pooled = {
                'gem': lambda: (maps.clamp(min=1e-6) ** 2.5).mean((2, 3)) ** (1 / 2.5),
                'avg': lambda: mean,
                'max': lambda: peak,
                'avgmax': lambda: (mean + peak) / 2,
                'catavgmax': lambda: torch.cat([mean, peak], 1),
            }[global_pool]()
            neck = model.neck
            assert neck.bias is None
            embedding = (pooled - neck.running_mean) / (neck.running_var.double() + 1e-5).sqrt() * neck.weight
            got = model.forward_head(maps.float(), pre_logits=True)
            torch.testing.assert_close(got.double(), embedding, rtol=1e-5, atol=1e-5)
            assert got.shape == (2, model.head_hidden_size)
            assert model.fc.bias is None
            torch.testing.assert_close(model(x).double(), embedding @ model.fc.weight.double().T, rtol=1e-5, atol=1e-5)

    def test_no_pooling_gives_the_map(self):
        model = tiny('dpa', global_pool='')
        x = images(2, 3, 64, 96)
        torch.testing.assert_close(model(x), model.forward_features(x), rtol=0, atol=0)
        assert model(x).shape == (2, 128, 4, 6)

    def test_dropout_acts_in_training_only(self):
        model = tiny(None, drop_rate=0.5)
        x = images(4, 3, 64, 64)
        assert torch.equal(model(x), model(x))
        freeze_batch_norm(model.train())
        zeros = (model(x) == 0).float().mean().item()
        assert 0.35 < zeros < 0.65

    def test_get_classifier_is_the_module_or_its_name(self, dpa):
        assert dpa.get_classifier() is dpa.fc
        assert dpa.get_classifier(name_only=True) == 'fc' == dpa.default_cfg['classifier']

    def test_reset_classifier_keeps_the_embedding(self, dpa):
        model = copy.deepcopy(dpa)
        x = images(2, 3, 64, 64)
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
        neck, pool = model.neck, model.global_pool
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        assert (model.num_classes, model.head_hidden_size) == (7, 512)
        assert model.neck is neck
        assert model.global_pool is pool
        model.reset_classifier(0)
        torch.testing.assert_close(model(x), embedding, rtol=0, atol=0)

    def test_reset_classifier_keeps_the_learned_neck_with_another_pooling_of_the_width(self):
        model = tiny('se')
        weight = model.neck.weight.clone()
        model.reset_classifier(0, 'avg')
        torch.testing.assert_close(model.neck.weight, weight, rtol=0, atol=0)
        x = images(2, 3, 64, 64)
        maps = model.forward_features(x)
        expected = (maps.mean((2, 3)) - model.neck.running_mean) / (model.neck.running_var + 1e-5).sqrt() * weight
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)

    def test_reset_classifier_follows_the_width_and_the_absence_of_pooling(self):
        model = tiny('se', num_classes=3)
        x = images(2, 3, 64, 64)
        model.reset_classifier(6, 'catavgmax')
        assert model.head_hidden_size == 256
        assert model(x).shape == (2, 6)
        model.reset_classifier(0, '')
        assert model(x).shape == (2, 128, 4, 4)
        assert not list(model.neck.parameters())
        model.reset_classifier(5, 'gem')
        assert model(x).shape == (2, 5)
        with pytest.raises(ValueError, match='num_classes=5 needs a global_pool'):
            model.reset_classifier(5, '')

    @pytest.mark.parametrize('whiten', [True, False])
    @pytest.mark.parametrize('training', [True, False])
    def test_reset_classifier_keeps_device_dtype_and_mode(self, training, whiten):
        model = tiny('se', whiten=whiten, device='meta', dtype=torch.bfloat16).train(training)
        for pool in ('catavgmax', '', 'gem', None):
            model.reset_classifier(0 if pool == '' else 6, pool)
            assert {m.training for m in model.modules()} == {training}
            parts = [model.global_pool, model.neck, model.whiten, model.fc]
            for tensor in itertools.chain(*(m.state_dict().values() for m in parts)):
                if tensor.is_floating_point():
                    assert (tensor.device.type, tensor.dtype) == ('meta', torch.bfloat16)

    def test_reset_classifier_of_a_frozen_model_leaves_only_the_classifier_to_train(self):
        model = tiny('se').requires_grad_(False)
        for pool in (None, 'avg', 'catavgmax', 'gem', 'catavgmax'):
            model.reset_classifier(6, pool)
            assert [name for name, p in model.named_parameters() if p.requires_grad] == ['fc.weight']

    def test_reset_classifier_of_a_training_model_freezes_nothing(self):
        model = tiny('se')
        for pool in (None, 'avg', 'catavgmax', '', 'gem'):
            model.reset_classifier(0, pool)
            assert all(p.requires_grad for p in model.parameters())

    def test_a_classifier_is_put_back_where_the_pooling_was_taken_off(self):
        """timm's own tests do so."""
        model = tiny('se', num_classes=3)
        model.reset_classifier(0, '')
        model.reset_classifier(2)
        assert (model.num_classes, model.fc.weight.shape, model.global_pool.pool_type) == (2, (2, 128), '')
