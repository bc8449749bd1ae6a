"""Attention modules that refine the output of a whole ResNet stage: the paper's three and the four it compares with.

FastReID's non-local block joins them for converted checkpoints. All of them map `(B, C, H, W)` to `(B, C, H, W)`.
Guo et al., "A novel dual-pooling attention module for UAV vehicle re-identification", Scientific Reports 2024.
Parameters of the paper's modules carry the names of the authors' released checkpoints (`fc1`, `bn1`, `fc2`, `bn2` are
the two OBR blocks).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import NonLocalAttn, create_attn, to_2tuple
from torch import nn

from .layers.norm import VectorBatchNorm
from .layers.odconv import ODConv2d, product_over_channels
from .layers.pooling import PoolingPair, SoftPool

torch.fx.wrap('product_over_channels')  # a leaf here too

__all__ = [
    'ATTN_LAYERS',
    'ATTN_TEXTS',
    'ChannelPoolingAttention',
    'DotProductNonLocalAttn',
    'DualPoolingAttention',
    'SpatialPoolingAttention',
    'create_stage_attn',
]


class ChannelPoolingAttention(nn.Module):
    """Channel-pooling attention, CpA (eq. 5-8, fig. 3a): `x * gate(x)`.

    `gate(x) = sigmoid(OBR(OBR((avg + soft) * (gem - min))) + x)`, pooled over positions; OBR is a 3 x 3
    omni-dimensional dynamic convolution, batch norm and ReLU, with `C / reduction` channels in the middle.

    Args:
        channels: number C of channels.
        reduction: C is divided by it between the two OBR blocks (at least 1 channel is kept).
        kernel_num: candidate kernels of each dynamic convolution.
        gem_p: exponent of the generalized mean; the released code uses 1.
        gem_learnable: train that exponent.
        soft_kernel: window of the soft pooling. 1 is the identity, as in the released code; 3 pools 3 x 3 windows.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_num: int = 1,
        gem_p: float = 1.0,
        gem_learnable: bool = False,
        soft_kernel: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = _hidden_channels(channels, reduction)
        self.pool = PoolingPair(gem_p, gem_learnable, over='positions', **dd)
        self.soft_pool = SoftPool(soft_kernel)
        self.fc1 = ODConv2d(channels, hidden, 3, padding=1, kernel_num=kernel_num, **dd)
        self.bn1 = nn.BatchNorm2d(hidden, **dd)
        self.fc2 = ODConv2d(hidden, channels, 3, padding=1, kernel_num=kernel_num, **dd)
        self.bn2 = nn.BatchNorm2d(channels, **dd)
        self.relu = nn.ReLU(inplace=True)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """X' of eq. 8, the shape of `x`, in 0..1."""
        return (x + self.response(x)).sigmoid_()

    def response(self, x: torch.Tensor) -> torch.Tensor:
        """What eq. 8 adds to `x` before the sigmoid, `(B, C, H, W)`."""
        # eq. 5-7, (avg + soft) * (gem - min), are an affine map of each channel of soft: fc1 applies it
        avg, contrast = self.pool(x)
        avg, contrast = avg.flatten(1), contrast.flatten(1)
        soft = self.soft_pool(x)
        soft_mean = avg if self.soft_pool.kernel_size == 1 else soft.mean((2, 3))
        pooled = self.fc1.forward_affine(soft, soft_mean, scale=contrast, shift=avg * contrast)
        pooled = self.relu(self.bn1(pooled))
        return self.relu(self.bn2(self.fc2(pooled)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class SpatialPoolingAttention(nn.Module):
    """Spatial-pooling attention, SpA (eq. 9-12, fig. 3b): `x * gate(x)`.

    The map is pooled over channels to two descriptors per position, `conv2(avg + soft)` and `gem - min`. `conv1`
    weighs all of them (2HW values) into C channels, two OBR blocks on 1 x 1 maps follow, and
    `gate(x) = sigmoid(OBR(OBR(conv1(descriptors))) + x)`.

    A weight per position fixes the map's size. Here the weights live on a base grid, and the descriptors of a map of
    another size are resampled to it (bilinear), so that any image size works. A checkpoint of another grid is
    resampled on load, by the transpose of the same interpolation: the loaded module computes on maps of its own grid
    what the saved one computes on them.

    Args:
        channels: number C of channels.
        grid_size: height and width of the base grid; 16 for stage 3 of a ResNet at 256 x 256.
        reduction, kernel_num, gem_p, gem_learnable, soft_kernel: as in `ChannelPoolingAttention`.
    """

    def __init__(
        self,
        channels: int,
        grid_size: int | tuple[int, int] = 16,
        reduction: int = 16,
        kernel_num: int = 1,
        gem_p: float = 1.0,
        gem_learnable: bool = False,
        soft_kernel: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.grid_size: tuple[int, int] = to_2tuple(grid_size)
        if min(self.grid_size) < 1:
            raise ValueError(f'grid_size must be at least 1, not {grid_size}')
        hidden = _hidden_channels(channels, reduction)
        self.pool = PoolingPair(gem_p, gem_learnable, over='channels', **dd)
        self.soft_pool = SoftPool(soft_kernel)
        self.conv2 = nn.Conv2d(channels, 1, 1, bias=False, **dd)
        self.conv1 = nn.Conv2d(2 * self.grid_size[0] * self.grid_size[1], channels, 1, bias=False, **dd)
        # 3 x 3 kernels on 1 x 1 maps: only the center tap counts, the others are kept for the released checkpoints
        self.fc1 = ODConv2d(channels, hidden, 3, padding=1, kernel_num=kernel_num, **dd)
        self.bn1 = VectorBatchNorm(hidden, **dd)
        self.fc2 = ODConv2d(hidden, channels, 3, padding=1, kernel_num=kernel_num, **dd)
        self.bn2 = VectorBatchNorm(channels, **dd)
        self.relu = nn.ReLU(inplace=True)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """X'' of eq. 12, the shape of `x`, in 0..1."""
        return (x + self.response(x)[:, :, None, None]).sigmoid_()

    def response(self, x: torch.Tensor) -> torch.Tensor:
        """What eq. 12 adds to every position of `x` before the sigmoid, `(B, C)`."""
        # conv2 is linear: the average is the same in every channel and takes no pass over the map of its own
        weighed = product_over_channels(self.soft_pool(x), self.conv2.weight.flatten(1))
        avg, contrast = self.pool(x)
        descriptors = torch.cat([weighed + avg * self.conv2.weight.sum(), contrast], dim=1)
        # exact where the size is the grid's already; no test of the size, which tracing would freeze
        descriptors = F.interpolate(descriptors, size=self.grid_size, mode='bilinear', align_corners=False)
        pooled = F.linear(descriptors.flatten(1), self.conv1.weight.flatten(1))
        pooled = self.relu(self.bn1(self.fc1.forward_pooled(pooled)))
        return self.relu(self.bn2(self.fc2.forward_pooled(pooled)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        key = prefix + 'conv1.weight'
        if key in state_dict and state_dict[key].shape[1] != self.conv1.in_channels:
            state_dict[key] = _resample_position_weights(state_dict[key], self.grid_size, key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'grid_size={self.grid_size}'


class DualPoolingAttention(nn.Module):
    """Dual-pooling attention, DpA: channel and spatial pooling attention in parallel, `x * cpa.gate(x) * spa.gate(x)`.

    Args:
        channels: number C of channels.
        grid_size: base grid of `SpatialPoolingAttention`.
        reduction, kernel_num, gem_p, gem_learnable, soft_kernel: of both, as in `ChannelPoolingAttention`.
    """

    def __init__(
        self,
        channels: int,
        grid_size: int | tuple[int, int] = 16,
        reduction: int = 16,
        kernel_num: int = 1,
        gem_p: float = 1.0,
        gem_learnable: bool = False,
        soft_kernel: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {
            'reduction': reduction,
            'kernel_num': kernel_num,
            'gem_p': gem_p,
            'gem_learnable': gem_learnable,
            'soft_kernel': soft_kernel,
            'device': device,
            'dtype': dtype,
        }
        self.spa = SpatialPoolingAttention(channels, grid_size=grid_size, **shared)
        self.cpa = ChannelPoolingAttention(channels, **shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _gated(x, self.cpa.response(x), self.spa.response(x)[:, :, None, None], self.training)


@torch.fx.wrap
def _gated(x: torch.Tensor, channel: torch.Tensor, spatial: torch.Tensor, training: bool = True) -> torch.Tensor:
    """`x * sigmoid(x + channel) * sigmoid(x + spatial)`; a leaf for torch.fx, which TorchScript may compile later."""
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out the branch only if the test stands alone
        if training and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            return _Gated.apply(x, channel, spatial)
    return (x * (x + spatial).sigmoid_()).mul_((x + channel).sigmoid_())


class _Gated(torch.autograd.Function):
    """The same with a gradient that needs half of the maps that autograd would make."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, channel: torch.Tensor, spatial: torch.Tensor) -> torch.Tensor:
        channel_gate = (x + channel).sigmoid_()
        spatial_gate = (x + spatial).sigmoid_()
        ctx.save_for_backward(x, channel_gate, spatial_gate)
        return (x * spatial_gate).mul_(channel_gate)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, channel_gate, spatial_gate = ctx.saved_tensors
        factor = (grad * channel_gate).mul_(spatial_gate)
        common = factor * x
        through_spatial = torch.addcmul(common, common, spatial_gate, value=-1)
        through_channel = common.addcmul_(common, channel_gate, value=-1)
        grad_x = factor.add_(through_channel).add_(through_spatial)
        return grad_x, through_channel, through_spatial.sum((2, 3), keepdim=True)


class DotProductNonLocalAttn(NonLocalAttn):
    """Non-local block without a softmax (Wang et al., CVPR 2018, dot product version, eq. 4).

    `x + norm(z(y))` with `y_i = sum_j (t(x_i) . p(x_j)) g(x_j) / N` over the N positions j; `t` and `p` are the paper's
    theta and phi. The batch norm starts at weight 0, so that the block starts as the identity.

    Args:
        channels: number C of channels.
        rd_ratio, rd_divisor, rd_channels: inner channels C', C / 2 unless given, as in timm's `NonLocalAttn`.
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 2,
        rd_divisor: int = 1,
        rd_channels: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            channels,
            use_scale=False,
            rd_ratio=rd_ratio,
            rd_divisor=rd_divisor,
            rd_channels=rd_channels,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _mean_of_products(self.t(x).flatten(2), self.p(x).flatten(2), self.g(x).flatten(2))
        return x + self.norm(self.z(y.view(x.shape[0], -1, x.shape[2], x.shape[3])))


@torch.fx.wrap
def _mean_of_products(t: torch.Tensor, p: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """`g p^T t / N` of maps `(B, C', N)` in the cheaper order; a leaf for torch.fx, which cannot trace the test."""
    few_positions = p.shape[2] < p.shape[1]
    if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript leaves out the branch only if the test stands alone
        if torch.compiler.is_compiling():
            few_positions = False  # the test would freeze the size
    p = (p / p.shape[2]).transpose(1, 2)  # before the products, which half precision could not hold
    return g @ (p @ t) if few_positions else (g @ p) @ t


def _hidden_channels(channels: int, reduction: int) -> int:
    if reduction < 1:
        raise ValueError(f'reduction must be at least 1, not {reduction}')
    return max(channels // reduction, 1)


def _resample_position_weights(weight: torch.Tensor, grid: tuple[int, int], key: str) -> torch.Tensor:
    """`(C, 2 * h * w, 1, 1)` of another grid to that of `grid`, see `SpatialPoolingAttention`."""
    positions = weight.shape[1] // 2
    height = round((positions * grid[0] / grid[1]) ** 0.5)
    if height < 1 or 2 * height * (positions // height) != weight.shape[1]:
        raise ValueError(
            f'{key}: {weight.shape[1]} weights are not two per position of a grid shaped like {grid[0]} x {grid[1]}; '
            'give attn_args={"grid_size": (height, width)} of the checkpoint'
        )
    source = (height, positions // height)
    # one image per target position, all 0 but there: the columns of the interpolation target -> source
    basis = torch.eye(grid[0] * grid[1], dtype=torch.float32, device=weight.device).view(-1, 1, *grid)
    columns = F.interpolate(basis, size=source, mode='bilinear', align_corners=False).flatten(1)
    resampled = weight.float().view(weight.shape[0], 2, positions) @ columns.T
    return resampled.to(weight.dtype).view(weight.shape[0], -1, 1, 1)


def _non_local(
    channels: int,
    rd_ratio: float = 1 / 2,
    rd_divisor: int = 1,
    use_scale: bool = False,
    rd_channels: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """C/2 inner channels and unscaled products, as in the paper; timm has C/8, and products times C ** -0.5."""
    # no **kwargs: timm's module would ignore a misspelled option
    options = {'rd_ratio': rd_ratio, 'rd_divisor': rd_divisor, 'use_scale': use_scale, 'rd_channels': rd_channels}
    return NonLocalAttn(channels, **options, device=device, dtype=dtype)


#: name -> what builds the module from (channels, **options); `dpa` and `spa` take a grid_size as well
ATTN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    'dpa': DualPoolingAttention,
    'cpa': ChannelPoolingAttention,
    'spa': SpatialPoolingAttention,
    # Reduction 16 to the channel, where timm rounds to a multiple of 8. Both layers have biases, as in the SE authors'
    # code (the paper's eq. 3 writes none).
    'se': partial(create_attn, 'se', rd_ratio=1 / 16, rd_divisor=1),
    # Shared MLP without biases, mean and maximum, then a 7 x 7 convolution. A batch norm follows it, as in the CBAM
    # authors' code; the paper's eq. 3 has none.
    'cbam': partial(create_attn, 'cbam', rd_ratio=1 / 16),
    # Reduction 16, as in the comparison of the DpA paper: timm shrinks the ratio by 2/3 and rounds to a multiple of 8,
    # the CA paper itself uses 32. Its three convolutions have no bias, and h-swish follows the batch norm.
    'ca': partial(create_attn, 'coord', rd_ratio=1 / 16, rd_divisor=1, se_factor=1.0),
    # The batch norm after the last convolution starts at weight 0, so that the block starts as the identity.
    'nl': _non_local,
    'nl_dot': DotProductNonLocalAttn,
}


#: name -> what a card calls it, and the paper
ATTN_TEXTS = {
    'dpa': 'dual-pooling attention (Guo et al. 2024)',
    'cpa': 'channel-pooling attention (Guo et al. 2024)',
    'spa': 'spatial-pooling attention (Guo et al. 2024)',
    'se': 'squeeze-and-excitation (Hu et al. 2018)',
    'cbam': 'CBAM (Woo et al. 2018)',
    'ca': 'coordinate attention (Hou et al. 2021)',
    'nl': 'non-local blocks (Wang et al. 2018)',
    'nl_dot': 'non-local blocks without softmax (Wang et al. 2018)',
}


def create_stage_attn(
    attn_layer: str, channels: int, grid_size: int | tuple[int, int] = 16, **attn_args: Any
) -> nn.Module:
    """Build the attention module of a stage.

    | name | module | paper |
    |---|---|---|
    | `dpa` | `DualPoolingAttention` | Guo et al. 2024 |
    | `cpa` | `ChannelPoolingAttention` | Guo et al. 2024 |
    | `spa` | `SpatialPoolingAttention` | Guo et al. 2024 |
    | `se` | `timm.layers.SEModule`, reduction 16 | Hu et al. 2018 |
    | `cbam` | `timm.layers.CbamModule`, reduction 16 | Woo et al. 2018 |
    | `ca` | `timm.layers.CoordAttn`, reduction 16 | Hou et al. 2021 |
    | `nl` | `timm.layers.NonLocalAttn`, C/2 inner channels, no scaling | Wang et al. 2018 |
    | `nl_dot` | `DotProductNonLocalAttn`, C/2 inner channels, no softmax | Wang et al. 2018, eq. 4 |

    Args:
        attn_layer: one of the names above.
        channels: number of channels of the stage's output.
        grid_size: base grid of `dpa` and `spa`, see `SpatialPoolingAttention`; the others have none.
        attn_args: further options of the module's constructor, `device` and `dtype` included.

    Raises:
        ValueError: unknown `attn_layer`.
        TypeError: an option that the module does not have.
    """
    if attn_layer not in ATTN_LAYERS:
        raise ValueError(f'unknown attn_layer {attn_layer!r}; choose one of {", ".join(ATTN_LAYERS)}')
    if attn_layer in ('dpa', 'spa'):
        attn_args['grid_size'] = grid_size
    return ATTN_LAYERS[attn_layer](channels, **attn_args)
