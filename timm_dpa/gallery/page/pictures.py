"""Pictures for the page: small JPEG files inside of it, so that no file of the machine is ever served."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from ...embedding.boxes import crop_boxes
from ...embedding.images import Decoding, ImageError, ImageItem, load_rgb
from ..rows import GalleryRow

__all__ = ['data_uri', 'preview', 'row_picture']


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as an address that holds it."""
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode()


def preview(image: Image.Image, side: int, quality: int = 85) -> bytes:
    """A JPEG file of an RGB image, whose longer side has `side` pixels at the most."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=quality)
    return buffer.getvalue()


def row_picture(row: GalleryRow, decoding: Decoding | None = None) -> Image.Image | None:
    """The vehicle of a row: cut out of its image where that is still there, else its thumbnail, else None."""
    try:
        if row.image and Path(row.image).is_file():
            image = load_rgb(ImageItem(row.image, row.image), decoding)
            if row.box is None:
                return image
            crops, _ = crop_boxes(image, [row.box])
            return Image.fromarray(crops[0]) if crops else image
    except (ImageError, OSError):  # a video, or what has been damaged since
        pass
    if row.thumbnail:
        try:
            return load_rgb(ImageItem(io.BytesIO(row.thumbnail), row.key))
        except ImageError:
            return None
    return None
