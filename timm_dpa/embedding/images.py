"""Images in any of the forms that people keep them in, as 8-bit RGB."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ['IMAGE_SUFFIXES', 'ImageError', 'ImageItem', 'find_images', 'iter_images', 'load_rgb']

#: files that are taken from a folder; a file that is named itself may be called anything
IMAGE_SUFFIXES = ('.avif', '.bmp', '.gif', '.jp2', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


# two threads must not load the same lazily opened image
_pil_lock = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be used; the message names it."""


@dataclass
class ImageItem:
    """One image of a run: where it comes from, not yet decoded."""

    source: Any
    name: str
    from_folder: bool = False


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files below `folder`, sorted by path; hidden files and folders are left out, links are followed.

    Raises:
        ImageError: there is none.
        OSError: a folder that cannot be listed.
    """
    folder = Path(folder)
    found = []
    seen = set()  # links may lead round in circles
    for parent, children, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        children[:] = [] if real in seen else sorted(child for child in children if not child.startswith('.'))
        if real in seen:
            continue
        seen.add(real)
        found += [Path(parent, n) for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith('.')]
    if not found:
        raise ImageError(f'{folder}: no image in this folder (looked for {" ".join(IMAGE_SUFFIXES)})')
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def iter_images(images: Any) -> Iterator[ImageItem]:
    """Every single image in `images`, in order, see `FeatureExtractor.__call__` for what it may be.

    Raises:
        FileNotFoundError: a path that does not exist.
        ImageError: a folder without images.
        TypeError: something that holds no image.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in 'OUT':
        images = images.ravel().tolist()  # paths, such as a column of a table
    if _is_batch(images):
        images = iter(images)
    if _is_single(images):
        yield from _expand(images, 0)
        return
    if isinstance(images, (dict, bytes, bytearray, io.IOBase)) or not isinstance(images, Iterable):
        raise TypeError(
            f'images must be a path, a folder, a PIL image, a numpy array, a tensor, or several of them, not '
            f'{type(images).__name__}'
        )
    for index, image in enumerate(images):
        if not _is_single(image):
            raise TypeError(f'image {index} is a {type(image).__name__}; a list of lists is not supported')
        if _is_batch(image):
            yield from (ImageItem(single, f'image {index}[{k}]') for k, single in enumerate(image))
        else:
            yield from _expand(image, index)


def _is_batch(image: Any) -> bool:
    return isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4


def _is_single(image: Any) -> bool:
    return isinstance(image, (ImageItem, str, os.PathLike, Image.Image, np.ndarray, torch.Tensor))


def _expand(image: Any, index: int) -> Iterator[ImageItem]:
    if isinstance(image, ImageItem):
        yield image
    elif not isinstance(image, (str, os.PathLike)):
        yield ImageItem(image, f'image {index}')
    elif os.path.isdir(image):
        for path in find_images(image):
            yield ImageItem(path, str(path), from_folder=True)
    elif os.path.exists(image):
        yield ImageItem(image, os.fspath(image))
    else:
        raise FileNotFoundError(f'{os.fspath(image)}: no such file or folder')


def load_rgb(item: ImageItem) -> Image.Image:
    """Decode `item` to an upright 8-bit RGB image.

    EXIF rotation is applied, 16-bit values are scaled (not cut off), transparent parts become white, the first frame
    of an animation is taken. CMYK is converted without its colour profile.

    Raises:
        ImageError: not an image, damaged, or values out of range.
    """
    source = item.source
    try:
        if isinstance(source, torch.Tensor):
            return _from_array(_tensor_to_array(source))
        if isinstance(source, np.ndarray):
            return _from_array(source)
        if isinstance(source, Image.Image):
            with _pil_lock:
                return _to_rgb(source)
        with Image.open(source) as image:
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise ImageError(f'{item.name}: not an image that Pillow can read') from error
    except Exception as error:  # damaged files raise whatever their decoder met
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise ImageError(f'{item.name}: cannot be read as an image ({reason})') from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()  # damaged data shows here, before the file is closed
    if 0 in image.size:
        raise ValueError('it has no pixels')
    # an EXIF block that is damaged says nothing about the orientation
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
        return _from_array(_deep_grey(image))
    if image.has_transparency_data:
        rgba = image.convert('RGBA')
        white = Image.new('RGBA', rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert('RGB')
    return image.convert('RGB')


def _deep_grey(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == 'F':
        return values.astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f'values from {values.min()} to {values.max()} are not those of a 16-bit image')
    return values.astype(np.uint16)


def _tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """CHW (or HW) to HWC."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    if tensor.ndim == 3:
        if tensor.shape[0] not in (1, 3, 4):
            raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is not C x H x W with 1, 3 or 4 channels')
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        hint = '; channels come last' if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ''
        raise ValueError(f'an array of shape {array.shape} is not H x W or H x W x C with 1, 3 or 4 channels{hint}')
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError('it has values that are NaN or infinite')
        # a little over 1 is what resampling leaves behind
        if array.min() < -0.01 or array.max() > 1.01:
            raise ValueError(
                f'floating point values must be in 0..1, not {array.min():.3g}..{array.max():.3g}; pass 0..255 as uint8'
            )
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f'values must be uint8, uint16, bool or floating point, not {array.dtype}')
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)))
