"""Pooling operators of the dual-pooling attention: average, minimum, generalized mean (GeM) and soft pooling.

Each one reduces a feature map `(B, C, H, W)` either over its positions, one value per channel `(B, C, 1, 1)`, or over
its channels, one value per position `(B, 1, H, W)`. Guo et al., "A novel dual-pooling attention module for UAV vehicle
re-identification", Scientific Reports 2024, eq. 1-4.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['AvgPool', 'GeMPool', 'MinPool', 'PoolingPair', 'SoftPool']


def _reduced_dims(over: str) -> tuple[int, int] | tuple[int]:
    if over == 'positions':
        return (2, 3)
    if over == 'channels':
        return (1,)
    raise ValueError(f"over must be 'positions' or 'channels', not {over!r}")


@torch.fx.wrap
def _first_min(x: torch.Tensor, over_channels: bool) -> torch.Tensor:
    """Minimum whose gradient goes to the first of equals. A leaf for torch.fx, which cannot trace the tests."""
    first = x.requires_grad  # `amin` is 10 to 60 times faster, and the same but for the gradient
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out the branch only if the test stands alone
        if torch.jit.is_tracing():  # a trace is the same with and without gradients
            first = False
    if not first:
        return x.amin(1, keepdim=True) if over_channels else x.amin((2, 3), keepdim=True)
    if over_channels:
        return x.min(1, keepdim=True).values
    return x.flatten(2).min(2).values[:, :, None, None]


class AvgPool(nn.Module):
    """Arithmetic mean (eq. 1).

    Args:
        over: `'positions'` gives `(B, C, 1, 1)`, `'channels'` gives `(B, 1, H, W)`.
    """

    def __init__(self, over: str = 'positions') -> None:
        super().__init__()
        self.over = over
        self.dims = _reduced_dims(over)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.dims, keepdim=True)

    def extra_repr(self) -> str:
        return f'over={self.over!r}'


class MinPool(nn.Module):
    """Minimum (eq. 2).

    Where several elements share the minimum, as the zeros of a ReLU do, the first one takes the whole gradient: so
    does the released implementation, while `amin` would split it.

    Args:
        over: `'positions'` gives `(B, C, 1, 1)`, `'channels'` gives `(B, 1, H, W)`.
    """

    def __init__(self, over: str = 'positions') -> None:
        super().__init__()
        self.over = over
        _reduced_dims(over)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _first_min(x, self.over == 'channels')

    def extra_repr(self) -> str:
        return f'over={self.over!r}'


class GeMPool(nn.Module):
    """Generalized mean `(mean(max(x, eps) ** p)) ** (1 / p)` (eq. 3; Radenovic et al., TPAMI 2019).

    Computed in float32 and in the log domain, so that neither a large `p` nor half precision overflows or underflows.

    Args:
        p: exponent > 0; 1 is the mean of the clamped input, large values approach the maximum.
        learnable: make `p` one trainable parameter of shape `(1,)`.
        eps: lower clamp > 0 of the input.
        over: `'positions'` gives `(B, C, 1, 1)`, `'channels'` gives `(B, 1, H, W)`.
        flatten: drop the reduced dimensions, `(B, C)` or `(B, H, W)`.
    """

    def __init__(
        self,
        p: float = 3.0,
        learnable: bool = False,
        eps: float = 1e-6,
        over: str = 'positions',
        flatten: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(p) and p > 0):
            raise ValueError(f'GeM exponent p must be a finite number above 0, not {p}')
        if not eps > 0:
            raise ValueError(f'GeM eps must be above 0, not {eps}')
        self.dims = _reduced_dims(over)
        self.over = over
        self.eps = eps
        self.keepdim = not flatten
        self.learnable = learnable
        self.p: nn.Parameter | float = float(p)
        if learnable:
            self.p = nn.Parameter(torch.full((1,), float(p), device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.learnable and self.p == 1.0:
            pooled = x.clamp(min=self.eps).mean(self.dims, keepdim=True)
            return pooled if self.keepdim else pooled.squeeze(self.dims)
        log_x = x.float().clamp(min=self.eps).log()
        # Scaling by the peak keeps every power in 0..1. It is a constant for the gradient: it cancels out.
        peak = log_x.detach().amax(self.dims, keepdim=True)
        powers = ((log_x - peak) * self.p).exp().mean(self.dims, keepdim=True)
        pooled = (peak + powers.log() / self.p).exp().to(x.dtype)
        return pooled if self.keepdim else pooled.squeeze(self.dims)

    def extra_repr(self) -> str:
        p = 'learnable' if self.learnable else self.p
        return f'p={p}, eps={self.eps}, over={self.over!r}'


class SoftPool(nn.Module):
    """Softmax-weighted mean (eq. 4; Stergiou et al., ICCV 2021).

    Args:
        kernel_size: `None` pools the whole of `over`. An odd number pools a square window at stride 1 around every
            position and keeps the map's size; positions outside of the map take no part. 1 is the identity, which is
            what the paper's released implementation computes.
        over: `'positions'` or `'channels'`; a window is always one of positions.
    """

    def __init__(self, kernel_size: int | None = None, over: str = 'positions') -> None:
        super().__init__()
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise ValueError(f'SoftPool kernel_size must be None or an odd number of at least 1, not {kernel_size}')
        if kernel_size is not None and over != 'positions':
            raise ValueError("SoftPool pools windows of positions only: use kernel_size=None with over='channels'")
        _reduced_dims(over)
        self.kernel_size = kernel_size
        self.over = over

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel_size == 1:
            return x
        if self.kernel_size is None:
            if self.over == 'channels':
                return (x.float().softmax(1) * x).sum(1, keepdim=True).to(x.dtype)
            flat = x.flatten(2).float()
            return (flat.softmax(2) * flat).sum(2).to(x.dtype)[:, :, None, None]
        # the softmax of each window, not a ratio of two average pools: exp(x) would overflow or vanish
        height, width = x.shape[2], x.shape[3]
        half = self.kernel_size // 2
        padded = F.pad(x.float(), (half, half, half, half), value=-1e30)
        taps = []
        for i in range(self.kernel_size):
            for j in range(self.kernel_size):
                taps.append(padded[:, :, i : i + height, j : j + width])
        windows = torch.stack(taps, dim=2)
        return (windows.softmax(2) * windows).sum(2).to(x.dtype)

    def extra_repr(self) -> str:
        return f'kernel_size={self.kernel_size}, over={self.over!r}'


class PoolingPair(nn.Module):
    """The pooled parts of eq. 5-6 and 9-10: the average, and the contrast GeM - minimum.

    Equal to `AvgPool`, `GeMPool` and `MinPool`. Where the exponent is 1, training builds one gradient map for the
    three instead of one each.

    Args:
        gem_p, gem_learnable: exponent of the generalized mean.
        over: `'positions'` gives two tensors `(B, C, 1, 1)`, `'channels'` gives two `(B, 1, H, W)`.
    """

    def __init__(
        self,
        gem_p: float = 1.0,
        gem_learnable: bool = False,
        over: str = 'positions',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.avg_pool = AvgPool(over)
        self.gem_pool = GeMPool(gem_p, learnable=gem_learnable, over=over, device=device, dtype=dtype)
        self.min_pool = MinPool(over)
        self.fusible = gem_p == 1 and not gem_learnable

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out the branch only if the test stands alone
            if self.fusible:
                return _mean_and_contrast(x, self.gem_pool.eps, self.gem_pool.over, self.training)
        return self.avg_pool(x), self.gem_pool(x) - self.min_pool(x)


@torch.fx.wrap
def _mean_and_contrast(x: torch.Tensor, eps: float, over: str, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if not torch.jit.is_scripting():  # noqa: SIM102 as above; torch.fx leaves a call of this, which may be scripted
        if training and x.requires_grad and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            return _MeanAndContrast.apply(x, eps, over)
    dims = [1] if over == 'channels' else [2, 3]
    contrast = x.clamp(min=eps).mean(dims, keepdim=True) - _first_min(x, over == 'channels')
    return x.mean(dims, keepdim=True), contrast


class _MeanAndContrast(torch.autograd.Function):
    """`mean(x)` and `mean(max(x, eps)) - min(x)`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float, over: str) -> tuple[torch.Tensor, torch.Tensor]:
        dims = _reduced_dims(over)
        if over == 'channels':
            low, first = x.min(1, keepdim=True)
        else:
            low, first = x.flatten(2).min(2, keepdim=True)
            low = low[..., None]
        ctx.save_for_backward(x, first)
        ctx.eps = eps
        ctx.over = over
        return x.mean(dims, keepdim=True), x.clamp(min=eps).mean(dims, keepdim=True) - low

    @staticmethod
    def backward(ctx: Any, grad_mean: torch.Tensor, grad_contrast: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, first = ctx.saved_tensors
        grad_mean, grad_contrast = grad_mean.to(x.dtype), grad_contrast.to(x.dtype)  # autocast may widen them
        count = x.shape[1] if ctx.over == 'channels' else x.shape[2] * x.shape[3]
        # a product with the mask: several times faster here than torch.where, which broadcasts element by element
        grad = (x >= ctx.eps).to(x.dtype).mul_(grad_contrast / count).add_(grad_mean / count)
        if ctx.over == 'channels':
            grad.scatter_add_(1, first, -grad_contrast)
        else:
            grad = grad.flatten(2).scatter_add_(2, first, -grad_contrast.flatten(2)).view(x.shape)
        return grad, None, None
