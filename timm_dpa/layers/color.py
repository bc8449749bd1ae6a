"""Color normalization of images in front of a network: haze, exposure and color cast change embeddings less."""

from __future__ import annotations

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

__all__ = ['ColorNorm']

#: usual mean of all three channels, and usual deviation from it, of pixels in 0..1
_MEAN, _DEVIATION = 112 / 255, 43 / 255


class ColorNorm(nn.Module):
    """Shifts and scales each image `(B, C, H, W)` of normalized pixels by its own statistics.

    The mean of each channel becomes the usual one, a gray: this takes away the light of the air and the color cast. The
    deviation s of all pixels from the means of their channels becomes `sqrt(s d)`, on a scale of logarithms halfway to
    the usual one d: this takes away half of what haze and gain did to the contrast.

    Attributes:
        mean: `(C,)` usual mean of normalized pixels. Buffers, so that weights say whether their network has this part.
        deviation: scalar, d.

    Args:
        in_chans: C. Channels of images that are not RGB get a mean of 0.
    """

    def __init__(self, in_chans: int = 3, device: torch.device | str | None = None) -> None:
        super().__init__()
        mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        gray = (_MEAN - mean) / std if in_chans == 3 else torch.zeros(in_chans)
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer('mean', gray.to(device))
        self.register_buffer('deviation', (_DEVIATION / std.mean()).to(device))
        self.least = 0.1  # an image of one color has nothing but noise to amplify

    @classmethod
    def of(cls, model: Any) -> ColorNorm:
        """One that fits a model."""
        return cls(model.in_chans)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(dim=(2, 3), keepdim=True)
        own = x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=self.least)
        return x * (self.deviation / own).sqrt().to(x.dtype) + self.mean.to(x.dtype).view(1, -1, 1, 1)
