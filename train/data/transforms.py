"""From an RGB image to a normalized tensor, with and without augmentation."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_interp_mode
from torchvision import transforms

from .appearance import RandomBox, RandomGlare, RandomShadow, RandomTone
from .sensor import degrade, draw_sensor

__all__ = ['RandomHeading', 'RandomSensor', 'eval_transform', 'train_transform']

_FEWEST_PIXELS = 28  # long side of a car from some 120 m

_Transform = Callable[[Image.Image], torch.Tensor]


def train_transform(
    data_config: dict[str, Any],
    *,
    pad: int = 10,
    flip: float = 0.5,
    rotation: float = 0.0,
    box: float = 0.0,
    shadow: float = 0.0,
    glare: float = 0.0,
    tone: float = 0.0,
    color_jitter: float = 0.0,
    autoaugment: float = 0.0,
    augmix: float = 0.0,
    sensor: float = 0.0,
    erasing: float = 0.5,
) -> _Transform:
    """Augmentation in this order: box, shadow, glare, tone, sensor, rotation, resize to the input size without keeping
    the aspect ratio, flip, padded crop, color jitter, AutoAugment, AugMix, normalization, random erasing.

    All random numbers come from `random`, numpy's and torch's global CPU generators, see `TrainImages`.

    Args:
        data_config: `input_size`, `interpolation`, `mean` and `std`, as of `timm.data.resolve_data_config`.
        pad: pixels of black that are added on each side of the resized image before a crop of the input size.
        flip: probability of a mirror image, left to right.
        rotation: degrees, 0 to 180; the angle is uniform in `-rotation..rotation`. 180 is for views from straight
            above. Colors turn to the image's own border, and nothing is cut off, see `RandomHeading`.
        box: each side of the crop moves by itself by uniform `-x..x` of the width or height, 0 to 0.4, as the boxes of
            detectors do; see `RandomBox`.
        shadow: probability of the shadow of a tree, a pole or a wall across the vehicle, see `RandomShadow`.
        glare: probability of reflections of sky and sun, see `RandomGlare`.
        tone: strength, 0 to 4, of exposure, tone curve, color cast and haze as two flights differ; see `RandomTone`.
        color_jitter: brightness, contrast and saturation are each multiplied by uniform `1 - x..1 + x`, 0 to 1. The
            hue stays: it tells vehicles apart.
        autoaugment: probability of a sub-policy of AutoAugment for ImageNet (Cubuk et al. 2019).
        augmix: probability of AugMix (Hendrycks et al. 2020), severity 3, three chains.
        sensor: strength, 0 to 4, of what a drone's camera and the air do to a clean image: haze, blur, motion, lower
            resolution, noise, color, sharpening, JPEG; see `RandomSensor`. 1 is for clean renders.
        erasing: probability that a box of 2 to 40 % of the area becomes the mean color (Zhong et al. 2020).

    Returns:
        Makes a `(3, H, W)` float32 tensor of a PIL image.

    Raises:
        ValueError: an option out of range, or an input size that is not RGB.
    """
    (height, width), mean, std, interpolation = _checked(data_config)
    chances = {'flip': flip, 'shadow': shadow, 'glare': glare, 'autoaugment': autoaugment, 'augmix': augmix}
    for name, value in {**chances, 'erasing': erasing}.items():
        if not 0 <= value <= 1:
            raise ValueError(f'{name} is a probability in 0..1, not {value}')
    if not 0 <= box <= 0.4:
        raise ValueError(f'box must be in 0..0.4 of the width and height, not {box}')
    if not 0 <= tone <= 4:
        raise ValueError(f'tone must be in 0..4, not {tone}')
    if not 0 <= color_jitter <= 1:
        raise ValueError(f'color_jitter must be in 0..1, not {color_jitter}')
    if not 0 <= rotation <= 180:
        raise ValueError(f'rotation must be in 0..180 degrees, not {rotation}')
    if not 0 <= sensor <= 4:
        raise ValueError(f'sensor must be in 0..4, not {sensor}')
    if pad < 0 or pad != int(pad):
        raise ValueError(f'pad must be a whole number of pixels from 0, not {pad}')

    # bilinear: half of AugMix's time goes into its rotations and shears
    looks = {'img_mean': tuple(round(255 * m) for m in mean), 'interpolation': Image.Resampling.BILINEAR}
    steps: list[Callable] = []
    if box:
        steps.append(RandomBox(box))
    if shadow:
        steps.append(RandomShadow(shadow))
    if glare:
        steps.append(RandomGlare(glare))
    if tone:
        steps.append(RandomTone(tone))
    if sensor:
        steps.append(RandomSensor(sensor, round(1.25 * max(height, width))))
    if rotation:
        steps.append(RandomHeading(rotation))
    steps.append(transforms.Resize((height, width), interpolation))
    if flip:
        steps.append(transforms.RandomHorizontalFlip(flip))
    if pad:
        steps.append(transforms.RandomCrop((height, width), padding=int(pad)))
    if color_jitter:
        steps.append(transforms.ColorJitter(color_jitter, color_jitter, color_jitter))
    if autoaugment:
        steps.append(transforms.RandomApply([auto_augment_transform('original', dict(looks))], autoaugment))
    if augmix:
        steps.append(transforms.RandomApply([augment_and_mix_transform('augmix-m3-w3-b1', dict(looks))], augmix))
    steps.append(_Normalize(mean, std))
    if erasing:
        steps.append(RandomErasing(erasing, max_area=0.4, device='cpu'))
    return transforms.Compose(steps)


def eval_transform(data_config: dict[str, Any]) -> _Transform:
    """The image resized to the input size without keeping the aspect ratio and without a crop, normalized.

    Args:
        data_config: as for `train_transform`.

    Returns:
        Makes a `(3, H, W)` float32 tensor of a PIL image.

    Raises:
        ValueError: an input size that is not RGB.
    """
    size, mean, std, _ = _checked(data_config)
    interpolation = data_config['interpolation']
    return create_transform(
        (3, *size), interpolation=interpolation, mean=mean, std=std, crop_pct=1.0, crop_mode='squash'
    )


def _checked(
    data_config: dict[str, Any],
) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...], transforms.InterpolationMode]:
    missing = [key for key in ('input_size', 'interpolation', 'mean', 'std') if key not in data_config]
    if missing:
        raise ValueError(f'data_config lacks {", ".join(missing)}; use timm.data.resolve_data_config')
    size = tuple(data_config['input_size'])
    if len(size) != 3 or size[0] != 3 or min(size) < 1:
        raise ValueError(f'input_size must be (3, height, width), not {size}')
    if len(data_config['mean']) != 3 or len(data_config['std']) != 3:
        raise ValueError('mean and std must have three values')
    try:
        interpolation = str_to_interp_mode(data_config['interpolation'])
    except KeyError as error:
        raise ValueError(f'unknown interpolation {data_config["interpolation"]!r}') from error
    return size[1:], tuple(data_config['mean']), tuple(data_config['std']), interpolation


class RandomHeading:
    """Turn the whole image by any angle up to `degrees`, as if the vehicle had another heading.

    It comes before the resize, where a pixel is still square, and the canvas grows, so that the vehicle keeps its shape
    and its ends. The corners get the median color of the image's border, which is mostly road: mirrored corners
    would show parts of the vehicle twice.
    """

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __call__(self, image: Image.Image) -> Image.Image:
        pixels = np.asarray(image)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        fill = tuple(int(value) for value in np.median(border, axis=0))
        angle = random.uniform(-self.degrees, self.degrees)
        return image.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=fill)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.degrees})'


class RandomSensor:
    """What height, air and a drone's camera make of a clean image: first fewer pixels, as if from higher up, then what
    `timm_dpa.train.data.sensor` describes, and JPEG.

    The long side becomes log-uniform between 28 pixels and its own, or `largest` where that is less. It comes before
    the resize to the input size, where a pixel is one of the camera's.

    Args:
        strength: see `draw_sensor`.
        largest: pixels; details that the network's input cannot show need not be computed.
    """

    def __init__(self, strength: float, largest: int = 256) -> None:
        self.strength, self.largest = strength, largest

    def __call__(self, image: Image.Image) -> Image.Image:
        rng = np.random.default_rng(random.getrandbits(64))
        side = max(image.size)
        high = min(side, self.largest)
        wanted = _FEWEST_PIXELS * (max(high, _FEWEST_PIXELS) / _FEWEST_PIXELS) ** rng.uniform()
        if wanted < side:
            size = tuple(max(8, round(v * wanted / side)) for v in image.size)
            image = image.resize(size, Image.Resampling.BOX)
        sensor = draw_sensor(rng, self.strength)
        file = io.BytesIO()
        Image.fromarray(degrade(np.asarray(image), sensor, rng)).save(file, 'JPEG', quality=sensor.quality)
        return Image.open(file).convert('RGB')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.strength}, {self.largest})'


class _Normalize:
    """ToTensor and Normalize in one, in half of the time."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = (torch.tensor(value).view(3, 1, 1) * 255 for value in (mean, std))

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).div_(self.std)
