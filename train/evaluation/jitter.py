"""Loose boxes: crops as a detector that is less exact would have cut them."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator

from timm_dpa.embedding.images import Decoding, ImageError, ImageItem, load_rgb

from ..data.appearance import RandomBox

__all__ = ['check_jitter', 'jittered']


def check_jitter(jitter: float) -> None:
    """ValueError unless the sides of a box may move by this share of its width and height."""
    if not 0 <= jitter <= 0.4:
        raise ValueError(f'jitter must be in 0..0.4 of the width and height, not {jitter}')


def jittered(
    paths: Iterable[str], jitter: float, seed: int = 0, decoding: Decoding | None = None
) -> Iterator[ImageItem]:
    """The images of files with their boxes shifted and scaled, under their paths.

    Each side moves by itself by a uniform share `-jitter..jitter` of the width or height, as in training with
    `augment.box`: inward it cuts the image, outward it repeats the border, as the frame around the crop is not known.
    The noise of an image depends on the seed, the last folder and the name of the file, not on the other images.

    Args:
        paths: of image files. One that cannot be read is passed on as it is, to fail where it is decoded.
        jitter: 0 to 0.4.
        seed: of the noise.
        decoding: what files may be.
    """
    check_jitter(jitter)
    change = RandomBox(jitter)
    for path in paths:
        item = ImageItem(path, path)
        try:
            image = load_rgb(item, decoding)
        except ImageError:
            yield item
            continue
        place = '/'.join(os.path.normpath(path).split(os.sep)[-2:])
        digest = hashlib.sha256(os.fsencode(f'{seed}/{place}')).digest()
        before = random.getstate()
        random.seed(digest)
        try:
            image = change(image)
        finally:
            random.setstate(before)
        yield ImageItem(image, path)
