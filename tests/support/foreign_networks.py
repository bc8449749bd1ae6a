"""Networks of other packages in plain torch, with their names of weights: FastReID, g-re-id and torchreid.

Written from their description; nothing here uses the package. All take pixels `(B, 3, H, W)` in 0..255 and give the
embedding that their package compares, in evaluation mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Ibn(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.IN(first), self.BN(second)), dim=1)


class Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, ibn: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = Ibn(width) if ibn else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, 'downsample') else x)).relu()


class NonLocal(nn.Module):
    """Every position against every other, one image at a time."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.g, self.theta, self.phi = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = []
        for theta, phi, g in zip(self.theta(x), self.phi(x), self.g(x), strict=True):
            pairs = torch.einsum('chw,cij->hwij', theta, phi) / (x.shape[2] * x.shape[3])
            mixed.append(torch.einsum('hwij,cij->chw', pairs, g))
        return x + self.W(torch.stack(mixed))


class DynamicConv(nn.Module):
    """A 3 x 3 kernel weighed anew for each image."""

    class Attention(nn.Module):
        def __init__(self, channels: int, out_channels: int) -> None:
            super().__init__()
            hidden = max(channels // 16, 16)
            self.fc = nn.Conv2d(channels, hidden, 1, bias=False)
            self.bn = nn.BatchNorm2d(hidden)
            self.channel_fc = nn.Conv2d(hidden, channels, 1)
            self.filter_fc = nn.Conv2d(hidden, out_channels, 1)
            self.spatial_fc = nn.Conv2d(hidden, 9, 1)

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_channels, channels, 3, 3) * (2 / (9 * out_channels)) ** 0.5)
        self.attention = self.Attention(channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attention = self.attention
        hidden = attention.bn(attention.fc(x.mean((2, 3), keepdim=True))).relu()
        taps = attention.spatial_fc(hidden).sigmoid().view(-1, 1, 1, 3, 3)
        x = x * attention.channel_fc(hidden).sigmoid()
        y = torch.cat([F.conv2d(x[i : i + 1], self.weight[0] * taps[i], padding=1) for i in range(len(x))])
        return y * attention.filter_fc(hidden).sigmoid()


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = DynamicConv(channels, channels // 16)
        self.bn1 = nn.BatchNorm2d(channels // 16)
        self.fc2 = DynamicConv(channels // 16, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def gate(self, x: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.fc1(pooled)).relu()
        return (self.bn2(self.fc2(y)).relu() + x).sigmoid()


class ChannelGate(Gate):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        contrast = x.clamp(min=1e-6).mean((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)
        return self.gate(x, (x.mean((2, 3), keepdim=True) + x) * contrast)


class SpatialGate(Gate):
    """For maps of 16 x 16 only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv1 = nn.Conv2d(2 * 16 * 16, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.conv2(x.mean(1, keepdim=True) + x)
        contrast = x.clamp(min=1e-6).mean(1, keepdim=True) - x.amin(1, keepdim=True)
        positions = torch.cat((mixed.flatten(1), contrast.flatten(1)), dim=1)
        return self.gate(x, self.conv1(positions[:, :, None, None]))


class ResNet50(nn.Module):
    def __init__(self, last_stride: int, pool: nn.Module, ibn: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = pool
        channels = 64
        for stage, (blocks, stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, last_stride)), start=1):
            width = 32 * 2**stage
            made = []
            for i in range(blocks):
                made.append(Block(channels, width, stride if i == 0 else 1, ibn and stage < 4))
                channels = 4 * width
            self.add_module(f'layer{stage}', nn.Sequential(*made))

    def stage(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f'layer{number}')(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for number in range(1, 5):
            x = self.stage(number, x)
        return x


class FastReIDBackbone(ResNet50):
    """Non-local blocks after the last blocks of a stage; gates after stage 3."""

    def __init__(self, last_stride: int, ibn: bool, non_local: dict[int, int], inner: int | None, gates: str) -> None:
        super().__init__(last_stride, nn.MaxPool2d(3, 2, ceil_mode=True), ibn)
        for number, count in non_local.items():
            channels = 128 * 2**number
            blocks = [NonLocal(channels, inner or channels // 2) for _ in range(count)]
            self.add_module(f'NL_{number}', nn.ModuleList(blocks))
        if 's' in gates:
            self.mul1 = SpatialGate(1024)
        if 'c' in gates:
            self.mul2 = ChannelGate(1024)

    def stage(self, number: int, x: torch.Tensor) -> torch.Tensor:
        blocks = getattr(self, f'layer{number}')
        non_local = getattr(self, f'NL_{number}', ())
        for i, block in enumerate(blocks):
            x = block(x)
            rank = i - (len(blocks) - len(non_local))
            if rank >= 0:
                x = non_local[rank](x)
        if number == 3:
            gates = [getattr(self, name) for name in ('mul1', 'mul2') if hasattr(self, name)]
            factors = [gate(x) for gate in gates]
            for factor in factors:
                x = x * factor
        return x


class FastReIDHead(nn.Module):
    class Gem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.full((1,), 2.7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(min=1e-6).pow(self.p).mean((2, 3), keepdim=True).pow(1 / self.p)

    def __init__(self, gem: bool, identities: int) -> None:
        super().__init__()
        self.pool_layer = self.Gem() if gem else nn.AdaptiveAvgPool2d(1)
        self.bottleneck = nn.Sequential(nn.BatchNorm2d(2048))
        self.weight = nn.Parameter(0.01 * torch.randn(identities, 2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bottleneck(self.pool_layer(x)).flatten(1)


class FastReID(nn.Module):
    """FastReID's baseline with a ResNet-50, and with `gates` ('s' spatial, 'c' channel) the fork g-re-id.

    Args:
        ibn: instance norm in stages 1-3.
        non_local: number of non-local blocks by stage.
        inner: their inner channels; half of the channels unless given.
        gem: learnable GeM instead of the average.
    """

    def __init__(
        self,
        ibn: bool = False,
        non_local: dict[int, int] | None = None,
        inner: int | None = None,
        gem: bool = False,
        gates: str = '',
        last_stride: int = 1,
        identities: int = 7,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
    ) -> None:
        super().__init__()
        self.register_buffer('pixel_mean', 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer('pixel_std', 255 * torch.tensor(std).view(1, 3, 1, 1))
        self.backbone = FastReIDBackbone(last_stride, ibn, non_local or {}, inner, gates)
        self.heads = FastReIDHead(gem, identities)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.heads(self.backbone((pixels - self.pixel_mean) / self.pixel_std))


class TorchReID(ResNet50):
    """torchreid's resnet50."""

    def __init__(self, identities: int = 7) -> None:
        super().__init__(2, nn.MaxPool2d(3, 2, 1))
        self.classifier = nn.Linear(2048, identities)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return super().forward((pixels / 255 - mean) / std).mean((2, 3))


def calibrated(network: nn.Module, size: tuple[int, int] = (64, 64), seed: int = 0) -> nn.Module:
    """Numbers that look trained: random scales and offsets, the statistics of a batch, no offset in the neck."""
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d))]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))
            norm.momentum = 1.0
        if isinstance(network, FastReID):
            network.heads.bottleneck[0].bias.zero_()
        network.train()(255 * torch.rand(4, 3, *size, generator=generator))
    return network.eval()
