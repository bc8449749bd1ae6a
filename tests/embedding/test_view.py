"""Views: they compute what a copy in evaluation mode computes, and what happens to one is seen by the other or not."""

import copy
import types

import pytest
import timm
import torch
from torch import nn

from tests.support.models import lively
from timm_dpa.embedding.view import evaluation_view, uncompiled


class Odd(nn.Module):
    """All that a network may keep outside of its children, parameters and buffers."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Dropout(0.5)
        self.again = self.shared
        self.steps = [nn.Dropout(0.5)]  # not registered
        self.cache = {}
        self.forward = types.MethodType(Odd.other_forward, self)

    def other_forward(self, x):
        self.cache['seen'] = self.training
        return self.again(self.shared(x)), self.training


@pytest.mark.parametrize('name', ['dpa_resnet18', 'test_vit', 'levit_128s', 'test_efficientnet', 'test_convnext2'])
def test_as_a_copy_in_evaluation_mode(name):
    torch.manual_seed(0)
    model = lively(timm.create_model(name, num_classes=3, drop_rate=0.5)).train()
    images = torch.randn(2, *model.pretrained_cfg['input_size'])
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(images)
        torch.testing.assert_close(evaluation_view(model)(images), expected, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


def test_tensors_and_hooks_are_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    view = evaluation_view(model)
    assert [id(tensor) for tensor in view.state_dict(keep_vars=True).values()] == [
        id(tensor) for tensor in model.state_dict(keep_vars=True).values()
    ]
    calls = []
    model[1].register_forward_hook(lambda module, *_: calls.append(module.training))
    view(torch.zeros(2, 3))
    model.double()  # replaces the buffers
    assert view(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    model(torch.randn(2, 3, dtype=torch.float64))
    assert calls == [False, False, True]


def test_modes_are_not_shared():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    view = evaluation_view(model)
    view.train()
    model.eval()
    assert all(module.training for module in view.modules())
    assert not any(module.training for module in evaluation_view(model).modules())


def test_what_is_kept_outside_of_the_children():
    model = Odd().train()
    view = evaluation_view(model)
    x = torch.ones(1000)
    out, training = view(x)
    assert torch.equal(out, x)
    assert not training
    assert view.again is view.shared
    assert view.shared is not model.shared
    assert model.cache == {}
    assert model(x)[1]


def test_a_cache_of_evaluation_is_not_kept_for_other_weights():
    """LeViT keeps what it computes of its weights in evaluation mode, until it is trained."""
    torch.manual_seed(0)
    model = timm.create_model('levit_128s', num_classes=3).train()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        first = evaluation_view(model)(images)
        for name, parameter in model.named_parameters():
            if name.endswith('attention_biases'):
                parameter.normal_()
        second = evaluation_view(model)(images)
        expected = copy.deepcopy(model).eval()(images)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, expected, rtol=0, atol=0)


def test_torchscript_in_training_mode_is_refused():
    scripted = torch.jit.script(nn.Dropout(0.5))
    with pytest.raises(ValueError, match='TorchScript module in training mode'):
        evaluation_view(nn.Sequential(scripted))
    x = torch.ones(100)
    assert torch.equal(evaluation_view(nn.Sequential(scripted.eval()))(x), x)


def test_uncompiled():
    model = nn.Linear(2, 2)
    assert uncompiled(model) is model
    assert uncompiled(torch.compile(model, backend='eager')) is model
