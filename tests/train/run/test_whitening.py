"""Whitening: the matrix against its formula, the module in every door through which weights go."""

import json

import numpy as np
import pytest
import timm
import torch
from torch import nn

from timm_dpa import FeatureExtractor, init_backbone, load_weights
from timm_dpa.layers.optional import add_parts, stored_parts
from timm_dpa.layers.whitening import Whitening
from timm_dpa.train.run.whitening import fit_whitening, whitening_matrix

RNG = np.random.default_rng(0)


def _vehicles(vehicles=30, images=8, width=12):
    """Vehicles that differ along all directions, images of one along the first three mostly."""
    spread = np.array([5.0, 4.0, 3.0] + [0.1] * (width - 3))
    centers = RNG.normal(0, 1, (vehicles, width))
    labels = np.repeat(np.arange(vehicles), images)
    return centers[labels] + RNG.normal(0, 1, (len(labels), width)) * spread, labels


class TestMatrix:
    def test_formula(self):
        x, labels = _vehicles()
        within = np.concatenate([x[labels == v] - x[labels == v].mean(axis=0) for v in range(30)])
        covariance = np.cov(within.T, bias=True)
        expected = np.linalg.inv(_root(covariance + 0.5 * np.trace(covariance) / 12 * np.eye(12)))
        expected *= 12 / np.trace(expected)
        np.testing.assert_allclose(whitening_matrix(x, labels, 0.5), expected, atol=1e-9)

    def test_variation_within_vehicles_becomes_even(self):
        x, labels = _vehicles()
        x = x @ whitening_matrix(x, labels, 1e-6)
        within = np.concatenate([x[labels == v] - x[labels == v].mean(axis=0) for v in range(30)])
        variances = np.linalg.eigvalsh(np.cov(within.T))
        assert variances.max() / variances.min() < 1.01

    def test_vehicles_are_told_apart_better(self):
        x, labels = _vehicles()
        assert _found(x @ whitening_matrix(x, labels, 0.1), labels) > _found(x, labels) + 0.2

    def test_much_shrinkage_changes_nothing(self):
        x, labels = _vehicles()
        np.testing.assert_allclose(whitening_matrix(x, labels, 1e9), np.eye(12), atol=1e-6)

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            ({'shrinkage': 0.0}, 'must be above 0'),
            ({'shrinkage': float('nan')}, 'must be above 0'),
            ({'labels': np.arange(240)}, 'two different images'),
            ({'embeddings': np.full((240, 12), np.nan)}, 'not finite'),
        ],
    )
    def test_wrong_input(self, change, message):
        x, labels = _vehicles()
        with pytest.raises(ValueError, match=message):
            whitening_matrix(**{'embeddings': x, 'labels': labels, 'shrinkage': 1.0, **change})


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values) @ vectors.T


def _found(x, labels):
    """Share of images whose nearest other image by cosine shows the same vehicle."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = x @ x.T - 2 * np.eye(len(x))
    return (labels[similarity.argmax(axis=1)] == labels).mean()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = timm.create_model('reid_resnet18').eval()
    with torch.no_grad():
        model.neck.running_var.uniform_(0.5, 2)
    return model


class TestModel:
    images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def test_a_new_one_changes_nothing(self, model):
        before = model(self.images)
        assert add_parts(model, ['whiten']) == ['whiten']
        assert add_parts(model, ['whiten']) == []  # once is enough
        assert isinstance(model.whiten, Whitening)
        assert torch.allclose(model(self.images), before, atol=1e-6)

    @pytest.mark.parametrize('name', ['reid_resnet18', 'reid_timm'])
    def test_embeddings_are_multiplied(self, name):
        model = timm.create_model(
            name, whiten=True, num_classes=5, **({'backbone': 'resnet18'} if 'timm' in name else {})
        )
        model.eval()
        maps = model.forward_features(self.images)
        plain = model.forward_head(maps, pre_logits=True)
        matrix = torch.randn(512, 512)
        model.whiten.matrix.copy_(matrix)
        expected = plain.double() @ matrix.double().T
        assert torch.allclose(model.forward_head(maps, pre_logits=True).double(), expected, atol=1e-4)
        assert torch.allclose(model(self.images), model.fc(expected.float()), atol=1e-4)

    def test_it_is_no_parameter(self):
        model = timm.create_model('reid_resnet18', whiten=True)
        assert not [name for name, _ in model.named_parameters() if name.startswith('whiten')]
        assert 'whiten.matrix' in model.state_dict()

    def test_pooling_that_goes_takes_it_along(self):
        model = timm.create_model('reid_resnet18', whiten=True)
        model.reset_classifier(0, '')
        assert isinstance(model.whiten, nn.Identity)
        model.reset_classifier(0, 'catavgmax')
        assert model.whiten.matrix.shape == (1024, 1024)

    def test_fitted_to_images(self, model):
        labels = torch.tensor([0, 0, 0, 1, 1, 1])
        with torch.no_grad():
            plain = model(self.images).numpy()
        model.train()
        statistics = {k: v.clone() for k, v in model.state_dict().items()}
        assert fit_whitening(model, [(self.images[:4], labels[:4]), (self.images[4:], labels[4:])], 2.0) == 6
        assert model.training
        assert all(torch.equal(model.state_dict()[key], value) for key, value in statistics.items())
        np.testing.assert_allclose(model.whiten.matrix, whitening_matrix(plain, labels, 2.0), atol=1e-4)
        with pytest.raises(ValueError, match='needs images'):
            fit_whitening(model, [], 2.0)


class TestFiles:
    @pytest.fixture
    def folder(self, model, tmp_path):
        from timm_dpa.train.recipes.recipe import ModelRecipe
        from timm_dpa.train.run.networks import save_model_folder

        add_parts(model, ['whiten'])
        model.whiten.matrix.copy_(torch.randn(512, 512))
        save_model_folder(ModelRecipe(name='reid_resnet18'), (64, 64), model.state_dict(), tmp_path / 'model')
        self.expected = model(TestModel.images).detach()
        return tmp_path / 'model'

    def test_a_folder_brings_it_along(self, folder):
        assert json.loads((folder / 'config.json').read_text())['model_args']['whiten'] is True
        loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        assert torch.allclose(loaded(TestModel.images), self.expected, atol=1e-5)
        assert FeatureExtractor(f'local-dir:{folder}')([np.zeros((20, 30, 3), np.uint8)]).shape == (1, 512)

    def test_weights_bring_it_along(self, folder, model):
        path = folder / 'model.safetensors'
        assert stored_parts(path) == ['whiten']
        plain = timm.create_model('reid_resnet18').eval()
        load_weights(plain, path)
        assert torch.allclose(plain(TestModel.images), self.expected, atol=1e-5)

    def test_another_network_takes_it_only_where_it_has_one(self, folder):
        other = timm.create_model('se_resnet18')
        assert 'whiten.matrix' in init_backbone(other, folder).ignored
        other = timm.create_model('se_resnet18', whiten=True)
        assert 'whiten.matrix' in init_backbone(other, folder).filled
