"""Batch norm of one vector per image, and instance-batch norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['InstanceBatchNorm2d', 'VectorBatchNorm']


@torch.fx.wrap
def _batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    batches: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
) -> torch.Tensor:
    """A leaf for torch.fx, which cannot trace the tests."""
    training = training and x.shape[0] > 1
    factor = 0.0 if momentum is None else momentum
    if training:
        batches.add_(1)
        if momentum is None:  # the mean over all batches so far
            factor = 1.0 / float(batches)
    return F.batch_norm(x, running_mean, running_var, weight, bias, training, factor, eps)


class VectorBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` on `(B, C)` that also trains on a batch of one.

    One value per channel has no variance, so torch refuses such a batch. Here it is normalized with the running
    statistics instead, which stay as they are, and so does the number of batches that they count.

    Args:
        channels: number C of channels.
        bias: learn an offset.
    """

    def __init__(
        self,
        channels: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, device=device, dtype=dtype)
        if not bias:  # torch has this argument only since a later version than the oldest one that we support
            self.register_parameter('bias', None)

    if TYPE_CHECKING:
        running_mean: torch.Tensor
        running_var: torch.Tensor
        num_batches_tracked: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


class InstanceBatchNorm2d(nn.Module):
    """Instance norm of the first half of the channels and batch norm of the others (IBN; Pan et al., ECCV 2018).

    The two parts have the names that the IBN authors' checkpoints use, `IN` and `BN`.

    Args:
        channels: number C of channels of the map `(B, C, H, W)`; the first `C // 2` are the first half.
    """

    def __init__(
        self, channels: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.split_at = channels // 2
        self.IN = nn.InstanceNorm2d(self.split_at, affine=True, device=device, dtype=dtype)
        self.BN = nn.BatchNorm2d(channels - self.split_at, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.IN(x[:, : self.split_at]), self.BN(x[:, self.split_at :])], dim=1)
