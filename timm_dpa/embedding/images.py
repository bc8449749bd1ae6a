"""Images in any of the forms that people keep them in, as 8-bit RGB."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from .advice import advice_for

__all__ = [
    'Decoding',
    'FolderContent',
    'ImageError',
    'ImageItem',
    'find_images',
    'image_suffixes',
    'iter_images',
    'load_rgb',
    'scan_folder',
]

_logger = logging.getLogger(__name__)

#: formats that Pillow names but opens only with other programs, or of which it reads the header alone
_NOT_IMAGES = ('EPS', 'IPTC', 'MPEG')
#: names of JPEG files that Pillow knows for writing only, or not at all
_MORE_JPEG = ('.mpo', '.pjp', '.pjpeg')
#: suffixes of what describes images
_TEXTS = ('.csv', '.html', '.json', '.log', '.md', '.tsv', '.txt', '.xml', '.yaml', '.yml')
#: folders that systems add to those of their users: thumbnails, resource forks, bins; in lower case
_SYSTEM_FOLDERS = ('@eadir', '__macosx', '@recycle', '#recycle', '$recycle.bin')

# two threads must not load the same lazily opened image, nor change Pillow's global limit
_pil_lock = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be used; the message names it."""


@dataclass(frozen=True)
class Decoding:
    """What image files may be.

    Attributes:
        max_pixels: largest width times height of a file, against files made to fill the memory. None for the limit of
            Pillow, twice `PIL.Image.MAX_IMAGE_PIXELS`, which is 179 million pixels.
        truncated: accept JPEG files whose end is missing, such as those of a broken download. Missing pixels are gray.
    """

    max_pixels: int | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ValueError(f'max_pixels must be at least 1, not {self.max_pixels}')


@dataclass
class ImageItem:
    """One image of a run: where it comes from, not yet decoded.

    Attributes:
        source: a path, or an image in memory.
        name: for messages and results.
        look: called by an extractor with the decoded RGB image, in the thread that decoded it, before it is embedded;
            for what else is wanted of the pixels, so that they need not be decoded again.
    """

    source: Any
    name: str
    look: Callable[[Image.Image], None] | None = None

    def show(self, image: Image.Image) -> None:
        """Call `look`, where there is one, with the decoded image."""
        if self.look:
            self.look(image)


@dataclass(frozen=True)
class FolderContent:
    """What is below a folder.

    Attributes:
        images: the image files, sorted by path.
        ignored: suffix in lower case, or file name where there is none -> number of files that Pillow cannot open.
        hidden: name -> number of hidden folders, and of those in which systems keep thumbnails.
    """

    images: list[Path]
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)

    def left_out(self, *, texts: bool = True) -> str:
        """What is not among the images, in words; empty where that is nothing. Tables and texts only with `texts`."""
        ignored = Counter({kind: count for kind, count in self.ignored.items() if texts or kind not in _TEXTS})
        files, folders = sum(ignored.values()), sum(self.hidden.values())
        parts = []
        if files:
            parts.append(f'{files} file{"s" * (files > 1)} that Pillow cannot open ({_listed(ignored)})')
        if folders:
            parts.append(f'{folders} hidden folder{"s" * (folders > 1)} ({_listed(self.hidden)})')
        hint = '; pip install pillow-heif to read .heic' if self.ignored.keys() & {'.heic', '.heif'} else ''
        return ' and '.join(parts) + hint


def _listed(counts: Counter[str]) -> str:
    shown = [f'{count} {name}' for name, count in counts.most_common(8)]
    return ', '.join(shown + ['...'] * (len(counts) > 8))


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes, sorted and in lower case, of the files that this Pillow can open, with its plugins.

    A folder is searched for them; a file that is named itself may be called anything.
    """
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    found = set(_MORE_JPEG)
    for suffix, kind in Image.registered_extensions().items():
        factory = Image.OPEN[kind][0] if kind in Image.OPEN else None
        is_stub = isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
        if factory is not None and not is_stub and kind not in _NOT_IMAGES:
            found.add(suffix.lower())
    return tuple(sorted(found))


def scan_folder(folder: str | os.PathLike[str]) -> FolderContent:
    """All image files below `folder`, and what else is there. Links are followed.

    Hidden files and folders, and those in which systems keep thumbnails (`@eaDir`, `__MACOSX`), are left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    content = FolderContent([])
    seen = set()  # links may lead round in circles
    for parent, children, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        hidden = [child for child in children if child.startswith('.') or child.lower() in _SYSTEM_FOLDERS]
        content.hidden.update(hidden)
        children[:] = sorted(set(children) - set(hidden))
        for name in names:
            if name.startswith('.'):
                continue
            if name.lower().endswith(image_suffixes()):
                content.images.append(Path(parent, name))
            else:
                content.ignored[os.path.splitext(name)[1].lower() or name] += 1
    content.images.sort()
    return content


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of `scan_folder`.

    Raises:
        ImageError: there is none.
        OSError: a folder cannot be listed.
    """
    return _scan_images(folder).images


def _scan_images(folder: str | os.PathLike[str]) -> FolderContent:
    content = scan_folder(folder)
    if not content.images:
        left_out = content.left_out()
        raise ImageError(f'{os.fspath(folder)}: no image in this folder' + (f'; it has {left_out}' if left_out else ''))
    return content


def _raise(error: OSError) -> None:
    raise error


def check_on_error(on_error: str) -> None:
    """Raise ValueError unless `on_error` is a policy, see `FeatureExtractor.__call__`."""
    if on_error not in ('raise', 'report'):
        raise ValueError(f"on_error must be 'raise' or 'report', not {on_error!r}")


def iter_images(images: Any, *, on_error: str = 'raise') -> Iterator[ImageItem]:
    """Every single image in `images`, in order; what that may be, `FeatureExtractor.__call__` says.

    A warning is logged of the files and folders that are left out of a folder.

    Args:
        images: one image or several.
        on_error: `'report'` also gives paths that do not exist, for `load_rgb` to refuse.

    Raises:
        FileNotFoundError: a path does not exist, and `on_error` is `'raise'`.
        ImageError: a folder is without images.
        TypeError: something holds no image.
    """
    check_on_error(on_error)
    if isinstance(images, np.ndarray) and images.dtype.kind in 'OUT':
        images = images.ravel().tolist()  # paths, such as a column of a table
    if _is_batch(images):
        images = iter(images)
    if _is_single(images):
        yield from _expand(images, 0, on_error)
        return
    advice = advice_for(images)
    if advice or isinstance(images, (bytes, bytearray, io.IOBase)) or not isinstance(images, Iterable):
        raise TypeError(
            f'images must be a path, a folder, a PIL image, a numpy array, a tensor, or several of them, not '
            f'{type(images).__name__}{advice}'
        )
    for index, image in enumerate(images):
        if _is_batch(image):
            yield from (ImageItem(single, f'image {index}[{k}]') for k, single in enumerate(image))
        elif image is None or _is_single(image):  # None is what OpenCV gives for an unreadable image
            yield from _expand(image, index, on_error)
        else:
            raise TypeError(f'image {index} is of type {type(image).__name__}{advice_for(image, alone=False)}')


def _is_batch(image: Any) -> bool:
    return isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4


def _is_single(image: Any) -> bool:
    return isinstance(image, (ImageItem, str, os.PathLike, Image.Image, np.ndarray, torch.Tensor))


def _expand(image: Any, index: int, on_error: str) -> Iterator[ImageItem]:
    if isinstance(image, ImageItem):
        yield image
    elif not isinstance(image, (str, os.PathLike)):
        yield ImageItem(image, f'image {index}')
    elif os.path.isdir(image):
        content = _scan_images(image)
        if left_out := content.left_out():
            _logger.warning('%s: left out %s', os.fspath(image), left_out)
        yield from (ImageItem(path, str(path)) for path in content.images)
    elif on_error == 'report' or os.path.exists(image):
        yield ImageItem(image, str(os.fspath(image)))
    else:
        raise FileNotFoundError(f'{os.fspath(image)}: no such file or folder')


def load_rgb(item: ImageItem, decoding: Decoding | None = None) -> Image.Image:
    """Decode `item` to an upright 8-bit RGB image.

    EXIF rotation is applied, 16-bit values are scaled (not cut off), transparent parts become white, the first frame
    of an animation is taken. CMYK is converted without its color profile. Texts in PNG files are not read.

    Raises:
        ImageError: not an image, damaged, larger than `decoding` allows, without pixels, or values out of range.
    """
    source = item.source
    try:
        if source is None:
            raise ValueError('it is None')
        if isinstance(source, torch.Tensor):
            return _from_array(_tensor_to_array(source))
        if isinstance(source, np.ndarray):
            return _from_array(source)
        if isinstance(source, Image.Image):
            with _pil_lock:
                return _to_rgb(source)
        return _from_file(source, item.name, decoding or Decoding())
    except UnidentifiedImageError as error:
        raise ImageError(f'{item.name}: not an image that Pillow can read') from error
    except Exception as error:  # damaged files raise whatever their decoder met
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise ImageError(f'{item.name}: cannot be read as an image ({reason})') from error


def _from_file(source: Any, name: str, decoding: Decoding) -> Image.Image:
    try:
        with _open(source, decoding.max_pixels) as image:
            return _to_rgb(image)
    except Exception:
        repaired = _repaired(source, decoding)
        if repaired is None:
            raise
    with _open(io.BytesIO(repaired), decoding.max_pixels) as image:
        result = _to_rgb(image)
    if image.format != 'PNG':
        _logger.warning('%s: its end is missing; the pixels that are not there are gray', name)
    return result


def _repaired(source: Any, decoding: Decoding) -> bytes | None:
    """The bytes of a file without what Pillow refuses; None where this changes nothing."""
    with contextlib.nullcontext(source) if hasattr(source, 'read') else open(source, 'rb') as file:
        file.seek(0)
        head = file.read(8)
        if head.startswith(b'\xff\xd8') and decoding.truncated:
            return head + file.read() + b'\xff\xd9'  # the marker of the end: libjpeg fills in what is missing
        if head != b'\x89PNG\r\n\x1a\n':
            return None
        content = head + file.read()
    shorter = _without_text(content)  # Pillow refuses long texts, which have nothing to do with the pixels
    return shorter if shorter != content else None


def _open(source: Any, max_pixels: int | None) -> Image.Image:
    image_suffixes()  # registers the plugins
    try:
        image = Image.open(source)
    except Image.DecompressionBombError:
        if max_pixels is None:
            raise
        with _pil_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
            try:
                image = Image.open(source)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    if max_pixels is not None and image.width * image.height > max_pixels:
        image.close()
        raise ValueError(f'its {image.width} x {image.height} pixels are more than max_pixels={max_pixels}')
    return image


def _without_text(png: bytes) -> bytes:
    """A PNG file without its chunks of text and its color profile, which may be compressed to any length."""
    kept, start = [png[:8]], 8
    while start + 8 <= len(png):
        length, kind = struct.unpack('>I4s', png[start : start + 8])
        end = start + 12 + length
        if kind not in (b'tEXt', b'zTXt', b'iTXt', b'iCCP'):
            kept.append(png[start:end])
        start = end
    return b''.join(kept)


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()  # damaged data shows here, before the file is closed
    if 0 in image.size:
        raise ValueError('it has no pixels')
    # an EXIF block that is damaged says nothing about the orientation
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
        return _from_array(_deep_gray(image))
    if image.has_transparency_data:
        rgba = image.convert('RGBA')
        white = Image.new('RGBA', rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert('RGB')
    return image.convert('RGB')


def _deep_gray(image: Image.Image) -> np.ndarray:
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
    if array.ndim in (2, 3) and 0 in array.shape[:2]:
        raise ValueError(f'it has no pixels: its shape is {array.shape}')
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
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
