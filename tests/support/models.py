"""Small models with numbers that look trained, which of them a test takes, and how their results are compared."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import SEModule, get_attn
from torch import nn

from timm_dpa import ChannelPoolingAttention, DualPoolingAttention, SpatialPoolingAttention

ATTENTIONS = {
    'dpa': DualPoolingAttention,
    'cpa': ChannelPoolingAttention,
    'spa': SpatialPoolingAttention,
    'se': SEModule,
    'cbam': get_attn('cbam'),
    'ca': get_attn('coord'),
    'nl': get_attn('nl'),
}
ENTRY_POINTS = [f'{name}_resnet{depth}' for name in ('reid', *ATTENTIONS) for depth in (18, 50)]
every_attention = pytest.mark.parametrize('attn', ATTENTIONS)
every_model = pytest.mark.parametrize('attn', [None, *ATTENTIONS])
#: for what takes seconds: dpa is made of the parts of cpa and spa, and all contain the baseline
most_models = pytest.mark.parametrize(
    'attn', [pytest.param(a, marks=pytest.mark.slow if a in (None, 'cpa', 'spa') else ()) for a in (None, *ATTENTIONS)]
)
#: for what takes many: the others are timm's own modules
few_models = pytest.mark.parametrize(
    'attn', [pytest.param(a, marks=() if a in ('dpa', 'nl') else pytest.mark.slow) for a in (None, *ATTENTIONS)]
)

#: shallow and narrow, but with all parts of a ResNet-18
TINY = {'layers': (1, 1, 1, 1), 'channels': (16, 32, 64, 128)}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms away from 0 and 1: nothing is the identity, and no residual branch has its initial weight 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
            with torch.no_grad():
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                if module.bias is not None:
                    module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    return model


def create(name: str, seed: int = 0, **kwargs) -> nn.Module:
    """A lively model in eval mode, the same for the same seed."""
    torch.manual_seed(seed)
    return lively(timm.create_model(name, **kwargs), seed).eval()


def tiny(attn_layer: str | None, seed: int = 0, **kwargs) -> nn.Module:
    """An entry point at a fraction of its size."""
    return create(f'{attn_layer or "reid"}_resnet18', seed, **{**TINY, **kwargs})


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """All batch norms to eval mode."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()
    return model


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stages(model: nn.Module) -> dict[int, nn.Module]:
    return {i: getattr(model, f'layer{i}') for i in (1, 2, 3, 4)}


def attentions(model: nn.Module) -> dict[int, nn.Module]:
    return {i: stage.attn for i, stage in stages(model).items() if hasattr(stage, 'attn')}


def gradients(model: nn.Module, x: torch.Tensor, labels: torch.Tensor, run=None) -> dict[str, torch.Tensor]:
    model.zero_grad()
    F.cross_entropy((model if run is None else run)(x), labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(got: torch.Tensor, expected: torch.Tensor, attn: str | None = None) -> None:
    """To rounding, at the scale of the whole; the products in the softmax of `nl` are unscaled and magnify it."""
    tolerance = 1e-3 if attn == 'nl' else 1e-4
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def assert_same_gradients(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance=1e-4) -> None:
    """To the scale of each tensor: elements that cancel out are noise."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(
            got[name], value, rtol=tolerance, atol=tolerance * scale + 1e-7, msg=lambda m, n=name: f'{n}: {m}'
        )
