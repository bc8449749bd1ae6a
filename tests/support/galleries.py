"""Rows and galleries to try out."""

import numpy as np

from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.rows import GalleryRow

ORIGIN = {'model': 'dpa_resnet18', 'network_sha256': 'a' * 64, 'flip': 'false'}
HOUR = 3_600_000


def unit(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def gallery_rows(count: int = 60, width: int = 16, seed: int = 0) -> list[GalleryRow]:
    """Three cameras in turn, an hour between images, tracks of four images."""
    return [
        GalleryRow(
            f'{index:04d}.jpg',
            vector,
            image=f'{index:04d}.jpg',
            camera=f'camera {index % 3}',
            time=index * HOUR,
            track=f'track {index // 4}' if index % 10 else '',
            vehicle=index // 8 if index % 2 else None,
            box=(1.5, 2.0, 30.0, 40.25) if index % 5 else None,
            quality=0.25 + index % 3 / 4,
            thumbnail=bytes([index % 256]) * 20,
            size=100 + index,
            mtime_ns=10**18 + index,
        )
        for index, vector in enumerate(unit(count, width, seed))
    ]


def open_gallery(uri: object, rows: list[GalleryRow] | None = None, **options: object) -> Gallery:
    gallery = Gallery(str(uri), create=True, **{'origin': ORIGIN, **options})
    if rows:
        gallery.add(rows)
    return gallery
