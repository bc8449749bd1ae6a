"""Images of known pixels, decoded and written."""

from pathlib import Path

import numpy as np
from PIL import Image

from timm_dpa.embedding.images import (
    ImageItem,
    load_rgb,
)

HEIGHT, WIDTH = 5, 7  # of the pictures, in pixels


def load(source) -> np.ndarray:
    image = load_rgb(ImageItem(source, str(source) if isinstance(source, (str, Path)) else 'image 3'))
    assert image.mode == 'RGB'
    return np.asarray(image)


def as_file(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    with Image.open(path) as written:
        assert written.mode == image.mode
    return path
