"""Modules with weights that make every part of them count."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and batch statistics, away from the special values 0 and 1 of a fresh module; eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(value: torch.Tensor, low: float, high: float) -> None:
        value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith('running_var'):
                draw(value, 0.5, 2.0)
            elif name.endswith('running_mean'):
                draw(value, -0.5, 0.5)
            elif value.is_floating_point() and value.dim() > 1:
                draw(value, -1.0, 1.0)
                value.mul_(2 / max(value[0].numel(), 1) ** 0.5)
            elif value.is_floating_point():
                draw(value, 0.2, 1.0)
    return module.eval()


def float64_state(module: nn.Module) -> dict[str, np.ndarray]:
    """The state of a module for the formulas in `reference`."""
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
