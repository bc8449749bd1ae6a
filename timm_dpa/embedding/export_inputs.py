"""What an exported file takes: normalized images, pixels in 0..1 or bytes, and which of them a program gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

__all__ = [
    'CONSUMERS',
    'INPUTS',
    'Consumer',
    'ExportInput',
    'UnitEmbedding',
    'check_consumer',
    'is_imagenet',
    'make_input',
    'sample_crops',
]


@dataclass(frozen=True)
class ExportInput:
    """One way to give pixels to a file.

    Attributes:
        dtype: of the numbers.
        white: the value of a white pixel before it is normalized, 1 or 255.
        normalizes: whether the graph normalizes, so that the file takes pixels as they are.
        layout: `'NCHW'` or `'NHWC'`.
        bgr: whether blue comes first.
    """

    dtype: torch.dtype = torch.float32
    white: float = 1
    normalizes: bool = True
    layout: str = 'NCHW'
    bgr: bool = False

    def shape(self, batch: int, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Shape of a batch."""
        return (batch, channels, *size) if self.layout == 'NCHW' else (batch, *size, channels)

    def axes(self, batch: bool, size: bool) -> dict[int, str]:
        """Index and name of the free axes."""
        height = self.layout.index('H')
        named = {height: 'height', height + 1: 'width'} if size else {}
        return {0: 'batch', **named} if batch else named

    def pixel_range(self, channels: int) -> str:
        """What pixels are before they are normalized, in words."""
        colors = '' if channels != 3 else ' BGR' if self.bgr else ' RGB'
        return f'0..{self.white:g}{colors}'

    def from_pixels(self, pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
        """What the file is given for `(N, C, H, W)` pixels in 0..1."""
        if not self.normalizes:
            return (pixels - _per_channel(mean)) / _per_channel(std)
        images = pixels * self.white
        if self.dtype == torch.uint8:
            images = images.round().to(torch.uint8)
        if self.bgr:
            images = images.flip(1)
        return images.permute(0, 2, 3, 1).contiguous() if self.layout == 'NHWC' else images


#: name -> what the file takes. Bytes of BGR are NHWC, which is how OpenCV, cameras and decoders hold them: a batch is
#: `np.stack(crops)`, without a transposition. `uint8-rgb` is what `FeatureExtractor` gives its own runtimes.
INPUTS = {
    'normalized': ExportInput(normalizes=False),
    'unit': ExportInput(),
    'uint8-bgr': ExportInput(torch.uint8, 255, layout='NHWC', bgr=True),
    'uint8-rgb': ExportInput(torch.uint8, 255),
}


def make_input(name: str, channels: int) -> ExportInput:
    """The input of that name.

    Raises:
        ValueError: no such input, or one of three colors for another number of channels.
    """
    if name not in INPUTS:
        raise ValueError(f'unknown input {name!r}; choose one of {", ".join(INPUTS)}')
    if channels != 3 and name.startswith('uint8'):
        raise ValueError(f'input {name!r} is of three colors, and the model takes {channels} channels')
    return INPUTS[name]


class UnitEmbedding(nn.Module):
    """The network that is exported: what `kind` gives in, embeddings of unit length out."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, kind: ExportInput, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.register_buffer('mean', _per_channel(mean) * kind.white, persistent=False)
        self.register_buffer('std', _per_channel(std) * kind.white, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind.layout == 'NHWC':
            images = images.permute(0, 3, 1, 2)
        if self.kind.bgr:
            images = images[:, [2, 1, 0]]  # a Gather, which more runtimes know than a Slice with a negative step
        if self.kind.normalizes:
            images = (images.float() - self.mean) / self.std
        return F.normalize(self.model(images), dim=1)


def _per_channel(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


@dataclass(frozen=True)
class Consumer:
    """A program that runs exported files with pixels that it prepares itself.

    Attributes:
        title: what it is called.
        input: the input that it gives, a name in `INPUTS`.
        imagenet: whether it normalizes with the mean and std of ImageNet, whatever the file says.
        own_size: what it does where a file leaves the size free.
    """

    title: str
    input: str
    imagenet: bool = False
    own_size: str = ''

    def prepare(self, crop: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """A crop `(H, W, 3)` uint8 RGB as the program resizes it, `(3, *size)` in 0..1: bilinear, no antialiasing."""
        pixels = torch.from_numpy(crop.astype(np.float32) / 255).permute(2, 0, 1)[None]
        resized: torch.Tensor = F.interpolate(pixels, size=size, mode='bilinear', align_corners=False)[0]
        return resized


#: name -> program; all three resize bilinearly, as OpenCV does
CONSUMERS = {
    'ultralytics': Consumer('Ultralytics', 'unit', own_size='it resizes to 224 x 224 then'),
    'boxmot': Consumer('BoxMOT', 'normalized', imagenet=True, own_size='releases before 25 resize to 256 x 128 then'),
    'openvino': Consumer('OpenVINO', 'uint8-bgr', own_size='resizing is up to you then'),
}


def check_consumer(name: str, input: str | None, data_config: dict[str, Any]) -> Consumer:
    """The program of that name, which gives what the model can take.

    Raises:
        ValueError: no such program, an `input` that it does not give, or a model that it cannot serve.
    """
    if name not in CONSUMERS:
        raise ValueError(f'unknown program {name!r}; choose one of {", ".join(CONSUMERS)}')
    consumer = CONSUMERS[name]
    if input not in (None, consumer.input):
        raise ValueError(f'{consumer.title} gives input {consumer.input!r}, not {input!r}; leave the input out')
    if data_config['input_size'][0] != 3:
        raise ValueError(f'{consumer.title} gives 3 channels, and the model takes {data_config["input_size"][0]}')
    if consumer.imagenet and not is_imagenet(data_config):
        raise ValueError(
            f'{consumer.title} normalizes with the mean and std of ImageNet, and the model wants '
            f'mean {tuple(data_config["mean"])}, std {tuple(data_config["std"])}'
        )
    return consumer


def is_imagenet(data_config: dict[str, Any]) -> bool:
    """Whether a model takes RGB normalized with the mean and std of ImageNet."""
    pairs = ((data_config['mean'], IMAGENET_DEFAULT_MEAN), (data_config['std'], IMAGENET_DEFAULT_STD))
    return all(len(ours) == 3 and np.allclose(ours, theirs, rtol=0, atol=1e-4) for ours, theirs in pairs)


def sample_crops(count: int = 8) -> list[Image.Image]:
    """Smooth random pictures of all shapes, the same at each call, for files that come without images."""
    generator = np.random.default_rng(0)
    crops = []
    for _ in range(count):
        height, width = generator.integers(40, 200, 2)
        colors = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        crops.append(Image.fromarray(colors).resize((int(width), int(height)), Image.Resampling.BICUBIC))
    return crops
