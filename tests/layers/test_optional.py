"""Parts that weights bring along, through every door by which weights go."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.models import tiny
from timm_dpa import init_backbone, load_weights
from timm_dpa.layers.optional import OPTIONAL_PARTS, add_parts, held_parts, remove_parts, stored_parts
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder
from timm_dpa.weights.checkpoint import read_checkpoint
from timm_dpa.weights.fetch import MODELS

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.3 + 1


def test_names_of_tensors():
    assert held_parts(['conv1.weight', 'layer1.0.whiten']) == []
    assert held_parts(['net.backbone.whiten.matrix', 'color_norm.mean', 'color_norm.deviation']) == list(OPTIONAL_PARTS)


def test_files_that_hold_none(tmp_path):
    save_file({'a': torch.zeros(1)}, tmp_path / 'a.safetensors')
    torch.save({'whiten.matrix': torch.zeros(1)}, tmp_path / 'a.pt')
    assert stored_parts(tmp_path / 'a.safetensors') == stored_parts(tmp_path / 'a.pt') == []


def test_added_once_and_removed():
    model = tiny('dpa').half()
    assert add_parts(model, OPTIONAL_PARTS) == ['color_norm', 'whiten']
    assert add_parts(model, OPTIONAL_PARTS) == []
    assert {buffer.dtype for buffer in (*model.color_norm.buffers(), *model.whiten.buffers())} == {torch.float16}
    assert not any(module.training for module in (model.color_norm, model.whiten))
    remove_parts(model, OPTIONAL_PARTS)
    assert isinstance(model.color_norm, nn.Identity)
    assert isinstance(model.whiten, nn.Identity)
    model.reset_classifier(0, 'avg')
    assert isinstance(model.whiten, nn.Identity)


class TestColorNormOfWeights:
    @pytest.fixture
    def trained(self):
        model = timm.create_model('dpa_resnet18', color_norm=True).eval()
        model.color_norm.mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
        model.color_norm.deviation.fill_(0.5)
        return model

    @pytest.fixture
    def folder(self, trained, tmp_path):
        recipe = ModelRecipe(name='dpa_resnet18', args={'color_norm': True})
        save_model_folder(recipe, (64, 64), trained.state_dict(), tmp_path / 'model')
        return tmp_path / 'model'

    def test_a_folder(self, trained, folder):
        assert json.loads((folder / 'config.json').read_text())['model_args']['color_norm'] is True
        loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        torch.testing.assert_close(loaded(X), trained(X))

    def test_a_file(self, trained, folder, tmp_path):
        torch.save({'model': {f'module.{k}': v for k, v in trained.state_dict().items()}}, tmp_path / 'a.pth')
        for path in (folder / 'model.safetensors', tmp_path / 'a.pth'):
            model = timm.create_model('dpa_resnet18').eval()
            load_weights(model, path)
            torch.testing.assert_close(model(X), trained(X))
            overlay = {'file': str(path)}
            model = timm.create_model('dpa_resnet18', pretrained=True, pretrained_cfg_overlay=overlay).eval()
            torch.testing.assert_close(model(X), trained(X))

    def test_left_out(self, trained, folder):
        overlay = {'file': str(folder / 'model.safetensors')}
        options = {'pretrained': True, 'pretrained_cfg_overlay': overlay}
        model = timm.create_model('dpa_resnet18', color_norm=False, **options).eval()
        assert isinstance(model.color_norm, nn.Identity)
        torch.testing.assert_close(model(trained.color_norm(X)), trained(X))

    def test_weights_that_do_not_fit_add_none(self, trained, tmp_path):
        state = trained.state_dict()
        del state['bn1.weight']
        torch.save(state, tmp_path / 'w.pth')
        model = timm.create_model('dpa_resnet18')
        with pytest.raises(ValueError, match=r'bn1\.weight is missing'):
            load_weights(model, tmp_path / 'w.pth')
        assert isinstance(model.color_norm, nn.Identity)

    def test_the_trunk_for_another_network(self, trained, folder):
        plain = timm.create_model('se_resnet18')
        assert {'color_norm.mean', 'color_norm.deviation'} <= set(init_backbone(plain, folder).ignored)
        normalizing = timm.create_model('se_resnet18', color_norm=True)
        assert 'color_norm.mean' in init_backbone(normalizing, folder).filled
        assert torch.equal(normalizing.color_norm.mean, trained.color_norm.mean)
        spectral = timm.create_model('se_resnet18', color_norm=True, in_chans=4)
        assert 'color_norm.mean' in init_backbone(spectral, folder).not_filled

    def test_added_to_weights_without(self):
        plain = timm.create_model('dpa_resnet50.rendered', pretrained=True, color_norm=False).eval()
        model = timm.create_model('dpa_resnet50.rendered', pretrained=True, color_norm=True).eval()
        torch.testing.assert_close(model(X), plain(model.color_norm(X)))
        assert model.thresholds is None
        loaded = timm.create_model('dpa_resnet50', color_norm=True, whiten=False).eval()
        load_weights(loaded, MODELS / 'dpa_resnet50.rendered_kit' / 'model.safetensors')
        remove_parts(loaded, ['whiten'])
        torch.testing.assert_close(loaded(X), model(X))
        assert plain.state_dict().keys() == model.state_dict().keys() - {'color_norm.mean', 'color_norm.deviation'}


def test_prefixes_of_frameworks_are_read_by_name(tmp_path):
    state = {f'net.{name}': value for name, value in tiny('dpa', color_norm=True, whiten=True).state_dict().items()}
    save_file(state, tmp_path / 'a.safetensors')
    assert stored_parts(tmp_path / 'a.safetensors') == ['color_norm', 'whiten']
    assert held_parts(read_checkpoint(tmp_path / 'a.safetensors').weights) == ['color_norm', 'whiten']
