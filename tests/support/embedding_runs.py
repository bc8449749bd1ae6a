"""Runs of embed_to_file that are counted and interrupted."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from timm_dpa.embedding.extractor import FeatureExtractor

SIZE = 64


def make_extractor(seed: int = 1, **kwargs) -> FeatureExtractor:
    torch.manual_seed(seed)
    options = {'precision': 'fp32', 'batch_size': 4, 'image_size': SIZE, 'workers': 2, **kwargs}
    return FeatureExtractor(timm.create_model('dpa_resnet18'), **options)


def names_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


class Stop(BaseException):
    """As Ctrl-C, which no `except Exception` sees."""


def interrupt_after(extractor, monkeypatch, batches: int, error: type[BaseException] = Stop) -> None:
    inner, count = extractor.embed_pixels, iter(range(1000))

    def embed_pixels(pixels):
        if next(count) == batches:
            raise error
        return inner(pixels)

    monkeypatch.setattr(extractor, 'embed_pixels', embed_pixels)


def count_decoded(extractor, monkeypatch):
    """The extractor, which from now on lists the names of what it decodes in `decoded`."""
    decoded: list[str] = []
    inner = extractor._decode
    monkeypatch.setattr(extractor, '_decode', lambda item: decoded.append(item.name) or inner(item))
    extractor.decoded = decoded
    return extractor


def write_crops(folder: Path) -> Path:
    """Ten images of noise, in a new folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f'{index}.png')
    return folder
