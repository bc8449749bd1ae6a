"""Heat maps by Grad-CAM++ (fig. 4 of the paper): where on an image several models find what they know it by.

Chattopadhay et al., "Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional Networks",
WACV 2018, explain the score of a class; an embedding has none. What is explained here is the length of the embedding
along its own direction: its inner product with itself held fixed and scaled to unit length. That is the numerator of
the cosine to a perfect match, and after the batch-norm neck, which takes the average vehicle off, it is large by what
sets this vehicle apart. The cosine itself would explain nothing: at its maximum, 1, the gradient is zero.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from timm.data import create_transform
from torch import nn

from timm_dpa.dpa_resnet import ReIDResNet
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.images import ImageItem, load_rgb

from .canvas import DPI, check_figure_path, new_canvas, new_figure, plain_text, save_figure, shortened

__all__ = ['heat_map', 'heat_map_figure']

_COLORS = 'RdYlBu_r'  # blue to red, as in the paper, and told apart with any color vision
_OPACITY = 0.5
_MOST = 50  # images of a figure
_TILE, _GAP, _LINE = 1.6, 0.1, 0.17  # inches: width of an image, space, line of text


def heat_map_figure(
    models: Sequence[tuple[str, nn.Module]],
    images: Sequence[Path],
    out: Path,
    *,
    layer: str | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Path:
    """Draw `heat_map` over the images: a row for each image, as it is and then by each model.

    Red is where the map of this image and this model is highest, blue where it is lowest: colors compare places of
    one picture, not models. Images keep their proportions.

    Args:
        models: name, as it is to be called, and model of each; they are left as they were.
        images: files.
        out: `.png`, `.svg` or `.pdf`.
        layer, image_size: as `heat_map`, for all models.

    Returns:
        `out`.

    Raises:
        ValueError: no model, no image, more than 50 images, another suffix, or as `heat_map`.
        ImportError: matplotlib or grad-cam is missing.
        OSError: the figure cannot be written.
    """
    out = check_figure_path(out)
    if not models or not images:
        raise ValueError(f'{"models" if not models else "images"} is empty; give at least one')
    if len(images) > _MOST:
        raise ValueError(f'{len(images)} images are no figure to look at; give at most {_MOST}')
    new_figure(1, 1)  # what is missing shows before the work
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    colors = colormaps[_COLORS]
    rows = [_pictures(load_rgb(ImageItem(path, str(path)))) for path in images]
    for _, model in models:
        explain = _Explainer(model, layer, image_size)
        for row in rows:
            height, width = row[0].shape[:2]
            heat = explain(row[-1])
            heat = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
            painted = colors(heat)[..., :3] * 255
            row.insert(-1, np.uint8(np.rint((1 - _OPACITY) * row[0] + _OPACITY * painted)))

    titles = [['image'], *(textwrap.wrap(plain_text(name), 20)[:3] or [''] for name, _ in models)]
    head = _GAP + _LINE * max(map(len, titles)) + 0.04
    heights = [row[0].shape[0] / DPI for row in rows]
    bar = 0.75
    content = sum(heights) + len(rows) * (_LINE + _GAP)
    figure, axes = new_canvas(_GAP + len(titles) * (_TILE + _GAP) + bar, max(head + content, head + 1.2))
    for c, lines in enumerate(titles):
        x = _GAP + c * (_TILE + _GAP) + _TILE / 2
        axes.text(x, head - 0.06, '\n'.join(lines), ha='center', va='bottom', fontsize=9, parse_math=False)
    top = head
    for path, row, height in zip(images, rows, heights, strict=True):
        width = row[0].shape[1] / DPI
        for c, picture in enumerate(row[:-1]):
            x = _GAP + c * (_TILE + _GAP) + (_TILE - width) / 2
            axes.imshow(picture, extent=(x, x + width, top + height, top), aspect='auto')
        name = shortened(Path(path).name, 28)
        axes.text(_GAP, top + height + 0.03, name, va='top', fontsize=7, color='#555555', parse_math=False)
        top += height + _LINE + _GAP

    total_width, total_height = figure.get_size_inches()
    tall = min(2.5, total_height - head - _LINE - 0.1)
    place = (1 - (bar - 0.1) / total_width, 1 - (head + tall) / total_height, 0.14 / total_width, tall / total_height)
    scale = figure.colorbar(ScalarMappable(cmap=colors), cax=figure.add_axes(place), ticks=(0, 1))
    scale.ax.set_yticklabels(('low', 'high'), fontsize=8)
    scale.outline.set_visible(False)
    return save_figure(figure, out)


def _pictures(image: Image.Image) -> list[Any]:
    """The pictures of a row: what is shown, `(H, W, 3)` uint8, and last the image itself."""
    width = round(_TILE * DPI)
    return [np.asarray(ImageOps.contain(image, (width, round(1.4 * width)), Image.Resampling.BICUBIC)), image]


def heat_map(
    model: nn.Module,
    image: Image.Image,
    *,
    layer: str | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> np.ndarray:
    """Where on an image its embedding comes from, by Grad-CAM++; see the module.

    Computed in float32 on the device of the model, which is left as it was. The model gets the whole image, squashed
    to its input size (a backbone of timm by itself, too, that would cut the border off), so that a pixel of the map
    belongs to the same place of the image.

    Args:
        model: an embedding model of `timm.create_model`.
        image: RGB.
        layer: name of the module whose map is looked at. None: of a `ReIDResNet` `layer3`, stage 3 with its attention
            and the last before the attention's effect is mixed with others; of any other model, the map that
            `forward_features` gives, the last before the pooling.
        image_size: see `FeatureExtractor`.

    Returns:
        `(height, width)` float32 of the model's input size, 0 where it is lowest and 1 where it is highest; all 0 where
        it is the same everywhere.

    Raises:
        ValueError: no such layer, one that gives no map `(B, C, H, W)`, such as a transformer's, or that plays no part
            in the embedding.
        RuntimeError: the gradients are not finite.
        ImportError: grad-cam is missing.
    """
    return _Explainer(model, layer, image_size)(image)


class _Explainer:
    """`heat_map` of one model."""

    def __init__(self, model: nn.Module, layer: str | None, image_size: int | tuple[int, int] | None) -> None:
        try:
            from pytorch_grad_cam import GradCAMPlusPlus
        except ImportError as error:
            raise ImportError("heat maps need grad-cam: pip install 'timm-dpa[train]'") from error
        extractor = FeatureExtractor(model, image_size=image_size)
        self.mean, self.std = extractor.mean, extractor.std
        whole = {'crop_mode': 'squash', 'crop_pct': 1.0, 'use_prefetcher': True}
        self.transform = create_transform(**{**extractor.data_config, **whole})
        # a copy: modes, gradients and hooks of the model are changed; without gradients of weights, which nobody needs
        self.network = _Embedder(copy.deepcopy(model).float().eval().requires_grad_(False), layer)
        self.cam = GradCAMPlusPlus(self.network, [self.network.target], reshape_transform=self.network.as_map)

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = self.transform(image)[None].to(self.mean.device, torch.float32)
        x = ((pixels - self.mean) / self.std).requires_grad_()
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            heat = self.cam(x, [_own_length])[0]
        if not np.isfinite(heat).all():
            raise RuntimeError('the heat map is not finite; the weights are damaged')
        return heat


def _own_length(embedding: torch.Tensor) -> torch.Tensor:
    return embedding @ F.normalize(embedding.detach(), dim=0)


class _Embedder(nn.Module):
    """Images in, embeddings out, by way of a module, `target`, whose output is the map to look at."""

    def __init__(self, model: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.model: Any = model
        self.features = _Features(model)
        self.layer = layer or ('layer3' if isinstance(model, ReIDResNet) else None)
        self.target: nn.Module = self.features
        if self.layer is not None:
            try:
                self.target = model.get_submodule(self.layer)
            except AttributeError as error:
                names = ', '.join(name for name, _ in model.named_children())
                raise ValueError(f'layer={layer}: the model has no such module; it has {names}') from error
        self.reached = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.reached = False
        x = self.model.forward_head(self.features(x), pre_logits=True)
        if not self.reached:
            raise ValueError(f'layer={self.layer} plays no part in the embedding')
        return x

    def as_map(self, output: torch.Tensor) -> torch.Tensor:
        """A map or its gradient, channels first."""
        self.reached = True
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            what = f'of shape {tuple(output.shape)}' if isinstance(output, torch.Tensor) else 'of several tensors'
            where = f'layer={self.layer}' if self.layer else f'{type(self.model).__name__} without layer='
            raise ValueError(f'{where} gives an output {what}, no map (B, C, H, W); name a layer that does')
        width = self.model.num_features
        if self.target is self.features and output.shape[1] != width and output.shape[3] == width:
            output = output.permute(0, 3, 1, 2)
        return output.clone()  # what comes next may work in place


class _Features(nn.Module):
    """`forward_features` as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(x)
