"""Small models with numbers that look trained."""

import timm
import torch
from torch import nn

import timm_dpa  # noqa: F401  registers the models

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
