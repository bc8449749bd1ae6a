"""Omni-dimensional dynamic convolution: a convolution whose kernel depends on the image.

Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022. Four attentions, computed from the globally pooled input,
scale the kernel along its input channels, its filters, its spatial taps and over a set of K candidate kernels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from torch import nn

from .norm import VectorBatchNorm

__all__ = ['ODConv2d', 'ODConvAttention']


@torch.fx.wrap
def product_over_channels(x: torch.Tensor, weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """A 1 x 1 convolution, `(B, G * I, H, W)` times `(G * O, I)` to `(B, G * O, H, W)`, in the memory format of `x`.

    A leaf for torch.fx, which cannot trace the tests. Either branch is one matrix product: a contiguous map is not
    copied to the blocked format of a convolution and back.
    """
    if groups > 1:
        return F.conv2d(x, weight[:, :, None, None], groups=groups)
    if x.is_contiguous(memory_format=torch.channels_last):
        return F.linear(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
    weight = weight.expand(x.shape[0], weight.shape[0], weight.shape[1])
    return torch.bmm(weight, x.flatten(2)).unflatten(2, (x.shape[2], x.shape[3]))


@torch.fx.wrap
def _scale(x: torch.Tensor, factor: torch.Tensor, training: bool) -> torch.Tensor:
    """`x * factor`, in place in evaluation: fresh memory costs more than the arithmetic. A leaf for torch.fx."""
    return x * factor if training else x.mul_(factor)


@torch.fx.wrap
def _fold_taps(
    x: torch.Tensor,
    channels: int,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """Shift the planes of each tap `(B, channels * taps, H, W)` into place and add them up to `(B, channels, H', W')`.

    A convolution with one-hot kernels does it, stride and dilation included. A leaf for torch.fx, as above.
    """
    batch, planes, height, width = x.shape
    taps = planes // channels
    one_hot = torch.eye(taps, device=x.device, dtype=x.dtype).view(1, taps, kernel_size[0], kernel_size[1])
    y = F.conv2d(x.reshape(batch * channels, taps, height, width), one_hot, None, stride, padding, dilation)
    y = y.view(batch, channels, y.shape[2], y.shape[3])
    return y if x.is_contiguous() else y.contiguous(memory_format=torch.channels_last)


class ODConvAttention(nn.Module):
    """The four attentions of an omni-dimensional dynamic convolution.

    Args:
        in_channels, out_channels, groups: those of the convolution.
        taps: spatial size kh * kw of its kernel; with 1 there is no spatial attention.
        kernel_num: number K of candidate kernels; with 1 there is no kernel attention.
        reduction: width of the squeezed descriptor = `in_channels * reduction`.
        min_channels: lower bound of that width.
        temperature: the logits of every attention are divided by it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        taps: int,
        groups: int = 1,
        kernel_num: int = 1,
        reduction: float = 1 / 16,
        min_channels: int = 16,
        temperature: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.temperature = temperature
        width = max(int(in_channels * reduction), min_channels)
        self.fc = nn.Linear(in_channels, width, bias=False, **dd)
        self.bn = VectorBatchNorm(width, **dd)
        self.relu = nn.ReLU(inplace=True)
        self.channel_fc = nn.Linear(width, in_channels, **dd)
        # in a depth-wise convolution a filter sees one channel, so that the two attentions would be the same
        depthwise = groups == in_channels == out_channels
        self.filter_fc = None if depthwise else nn.Linear(width, out_channels, **dd)
        self.spatial_fc = nn.Linear(width, taps, **dd) if taps > 1 else None
        self.kernel_fc = nn.Linear(width, kernel_num, **dd) if kernel_num > 1 else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """From the pooled input `(B, C_in)` the attentions of channels `(B, C_in)`, filters `(B, C_out)`, taps
        `(B, kh * kw)` and kernels `(B, K)`, None for those that the convolution has not.
        """
        squeezed = self.relu(self.bn(self.fc(pooled)))
        channel = torch.sigmoid(self.channel_fc(squeezed) / self.temperature)
        filters: torch.Tensor | None = None
        if self.filter_fc is not None:
            filters = torch.sigmoid(self.filter_fc(squeezed) / self.temperature)
        taps: torch.Tensor | None = None
        if self.spatial_fc is not None:
            taps = torch.sigmoid(self.spatial_fc(squeezed) / self.temperature)
        kernels: torch.Tensor | None = None
        if self.kernel_fc is not None:
            kernels = torch.softmax(self.kernel_fc(squeezed) / self.temperature, dim=1)
        return channel, filters, taps, kernels

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        for name in ('fc', 'channel_fc', 'filter_fc', 'spatial_fc', 'kernel_fc'):
            key = f'{prefix}{name}.weight'
            if key in state_dict and state_dict[key].dim() == 4:  # 1 x 1 convolutions in other implementations
                state_dict[key] = state_dict[key].flatten(1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ODConv2d(nn.Module):
    """2-D convolution with omni-dimensional dynamic kernels, without bias.

    The usual implementation builds one kernel per image and runs a grouped convolution with a group per image. Here
    the spatial attention is applied to the taps instead, one plane per tap, on whichever side of the product has fewer
    channels; what remains is an ordinary matrix product. With one kernel its weights are shared by the batch.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in `torch.nn.Conv2d`.
        kernel_num: number K >= 1 of candidate kernels.
        reduction, min_channels, temperature: of `ODConvAttention`.

    Shape: `(B, in_channels, H, W)` to `(B, out_channels, H', W')`, H' and W' as for `torch.nn.Conv2d`. The parameter
    `weight` is `(K * out_channels, in_channels / groups, kh, kw)`; `(K, out_channels, ...)` is loaded as well.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        kernel_num: int = 1,
        reduction: float = 1 / 16,
        min_channels: int = 16,
        temperature: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f'groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}')
        if kernel_num < 1:
            raise ValueError(f'kernel_num must be at least 1, not {kernel_num}')
        if not temperature > 0:
            raise ValueError(f'temperature must be above 0, not {temperature}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_h, self.kernel_w = to_2tuple(kernel_size)
        self.stride: tuple[int, int] = to_2tuple(stride)
        self.padding: tuple[int, int] = to_2tuple(padding)
        self.dilation: tuple[int, int] = to_2tuple(dilation)
        self.groups = groups
        self.kernel_num = kernel_num
        self.taps = self.kernel_h * self.kernel_w
        self.attention = ODConvAttention(
            in_channels,
            out_channels,
            self.taps,
            groups=groups,
            kernel_num=kernel_num,
            reduction=reduction,
            min_channels=min_channels,
            temperature=temperature,
            **dd,
        )
        # The candidates stand below each other: module.to(memory_format=channels_last) takes no 5-D weight.
        shape = (kernel_num * out_channels, in_channels // groups, self.kernel_h, self.kernel_w)
        self.weight = nn.Parameter(torch.empty(shape, **dd))
        for kernel in self.weight.chunk(kernel_num):
            nn.init.kaiming_normal_(kernel, mode='fan_out', nonlinearity='relu')
        # Unfolding costs in_channels planes per tap, and positions after the stride; projecting first costs
        # out_channels planes per tap at every position, and is the only way that groups allow.
        self.unfold_first = groups == 1 and (out_channels > in_channels or self.stride != (1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channel, filters, taps, kernels = self.attention(x.mean((2, 3)))
        return self._convolve(x * channel[:, :, None, None], filters, taps, kernels)

    def forward_affine(
        self, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """The same of `x * scale + shift`, where `mean` is that of `x` over positions; all three `(B, in_channels)`.

        Scaling, shifting and the channel attention together cost one pass over the map.
        """
        channel, filters, taps, kernels = self.attention(mean * scale + shift)
        x = torch.addcmul((shift * channel)[:, :, None, None], x, (scale * channel)[:, :, None, None])
        return self._convolve(x, filters, taps, kernels)

    def _convolve(
        self,
        x: torch.Tensor,
        filters: torch.Tensor | None,
        taps: torch.Tensor | None,
        kernels: torch.Tensor | None,
    ) -> torch.Tensor:
        torch._assert(
            x.shape[2] + 2 * self.padding[0] > self.dilation[0] * (self.kernel_h - 1),
            'ODConv2d: the map is lower than the kernel; use a larger image or more padding',
        )
        torch._assert(
            x.shape[3] + 2 * self.padding[1] > self.dilation[1] * (self.kernel_w - 1),
            'ODConv2d: the map is narrower than the kernel; use a larger image or more padding',
        )
        weight = self.weight.reshape(
            self.kernel_num, self.out_channels, -1, self.taps
        )  # (K, C_out, C_in / groups, taps)
        if taps is None:
            x = self._project(_pad_and_stride(x, self.padding, self.stride), weight.flatten(2), kernels)
        elif self.unfold_first:
            x = _scale(self._unfold(x), taps.repeat_interleave(self.in_channels, 1)[:, :, None, None], self.training)
            x = self._project(x, weight.transpose(2, 3).flatten(2), kernels)
        else:
            x = self._project(x, weight.transpose(2, 3).flatten(1, 2), kernels)
            x = _scale(x, taps.repeat(1, self.out_channels)[:, :, None, None], self.training)
            x = _fold_taps(
                x, self.out_channels, (self.kernel_h, self.kernel_w), self.stride, self.padding, self.dilation
            )
        if filters is not None:
            x = _scale(x, filters[:, :, None, None], self.training)
        return x

    def forward_pooled(self, x: torch.Tensor) -> torch.Tensor:
        """What `forward` of a "same"-padded convolution makes of 1 x 1 maps, as vectors `(B, in_channels)`.

        All taps but the center one meet padding there, so that nothing else is computed. Needs `groups=1`.
        """
        channel, filters, taps, kernels = self.attention(x)
        x = x * channel
        center = self.weight[:, :, self.kernel_h // 2, self.kernel_w // 2]
        if kernels is None:
            x = F.linear(x, center)
        else:
            candidates = F.linear(x, center).view(x.shape[0], self.kernel_num, self.out_channels)
            x = (candidates * kernels[:, :, None]).sum(1)
        if taps is not None:
            x = x * taps[:, self.taps // 2, None]
        if filters is not None:
            x = x * filters
        return x

    def _project(self, x: torch.Tensor, weight: torch.Tensor, kernels: torch.Tensor | None) -> torch.Tensor:
        """Product over channels, `x` `(B, G * I, H, W)` with `weight` `(K, G * O, I)` mixed by `kernels` `(B, K)`."""
        if kernels is None:
            return product_over_channels(x, weight[0], self.groups)
        batch, _, height, width = x.shape
        mixed = torch.matmul(kernels, weight.flatten(1)).view(batch, self.groups, -1, weight.shape[2])
        return torch.matmul(mixed, x.reshape(batch, self.groups, weight.shape[2], -1)).view(batch, -1, height, width)

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` to the shifted copies `(B, taps * C, H', W')` that each tap of the kernel meets."""
        pad_h, pad_w = self.padding
        x = F.pad(x, (pad_w, pad_w, pad_h, pad_h))
        span_h = x.shape[2] - self.dilation[0] * (self.kernel_h - 1)
        span_w = x.shape[3] - self.dilation[1] * (self.kernel_w - 1)
        shifted = []
        for i in range(self.kernel_h):
            for j in range(self.kernel_w):
                top, left = i * self.dilation[0], j * self.dilation[1]
                shifted.append(x[:, :, top : top + span_h : self.stride[0], left : left + span_w : self.stride[1]])
        return torch.cat(shifted, dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        key = prefix + 'weight'
        if key in state_dict and state_dict[key].dim() == 5:  # (K, C_out, ...), as other implementations store it
            state_dict[key] = state_dict[key].flatten(0, 1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={(self.kernel_h, self.kernel_w)}, '
            f'stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}, '
            f'kernel_num={self.kernel_num}'
        )


def _pad_and_stride(x: torch.Tensor, padding: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    """What a 1 x 1 kernel meets."""
    if padding[0] or padding[1]:
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    if stride[0] > 1 or stride[1] > 1:
        x = x[:, :, :: stride[0], :: stride[1]]
    return x
