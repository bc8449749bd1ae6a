"""Batch norm of one vector per image, and instance-batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['InstanceBatchNorm2d', 'VectorBatchNorm']


@torch.fx.wrap
def _batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """A leaf for torch.fx, which cannot trace the test."""
    training = training and x.shape[0] > 1
    return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


class VectorBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` on `(B, C)` that trains on a batch of one as well.

    One value per channel has no variance, which torch refuses. Such a batch is normalised with the running statistics
    instead, and leaves them as they are.

    Args:
        channels: C.
        bias: learn an offset.
    """

    def __init__(self, channels: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(channels, device=device, dtype=dtype)
        if not bias:  # the argument of torch's own is younger than our oldest torch
            self.register_parameter('bias', None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return _batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class InstanceBatchNorm2d(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the others (IBN; Pan et al., ECCV 2018).

    Its parts carry the names of the IBN authors' checkpoints, `IN` and `BN`.

    Args:
        channels: C of the map `(B, C, H, W)`; the first `C // 2` are the first half.
    """

    def __init__(self, channels: int, device=None, dtype=None) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True, device=device, dtype=dtype)
        self.BN = nn.BatchNorm2d(channels - self.half, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.IN(x[:, : self.half]), self.BN(x[:, self.half :])], dim=1)
