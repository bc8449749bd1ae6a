"""What parts of a gallery cost: decoding once instead of twice, and `Gallery.info` of many rows.

    python benchmarks/gallery_parts.py [--images 64] [--rows 1000000]

Prints seconds, and ratios of times that were measured in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from timm_dpa.embedding.images import ImageItem, load_rgb
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.pictures import quality_of, thumbnail_of
from timm_dpa.gallery.rows import GalleryRow

_ORIGIN = {'model': 'none', 'network_sha256': '0' * 64}


def measure_decoding(folder: Path, images: int) -> None:
    """JPEG files of 600 x 400 pixels to thumbnail and quality, with and without decoding them for it."""
    rng = np.random.default_rng(0)
    paths = [folder / f'{index}.jpg' for index in range(images)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        small.resize((600, 400), Image.Resampling.BICUBIC).save(path)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for decodes, times in seconds.items():
            start = time.process_time()
            for path in paths:
                for _ in range(decodes):
                    image = load_rgb(ImageItem(path, str(path)))
                thumbnail_of(image)
                quality_of(image)
            times.append(time.process_time() - start)
    once, twice = median(seconds[1]), median(seconds[2])
    print(f'decoding once: {once / images * 1000:.2f} ms an image, twice: {twice / images * 1000:.2f} ms', end='')
    print(f'; ratio {twice / once:.2f}')


def measure_info(folder: Path, rows: int) -> None:
    """`Gallery.info` of rows with 8 numbers, 10 cameras and tracks of 10 images."""
    vector = np.eye(8, dtype=np.float32)[0]
    with Gallery(folder / 'gallery', origin=_ORIGIN, create=True, width=8) as gallery:
        gallery.add(
            GalleryRow(f'{k}', vector, camera=f'c{k % 10}', track=f't{k // 10}', vehicle=k // 20, time=k * 1000)
            for k in range(rows)
        )
        start = time.monotonic()
        info = gallery.info()
        print(f'info of {info["rows"]} rows: {time.monotonic() - start:.2f} s')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--rows', type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_decoding(Path(folder), args.images)
        measure_info(Path(folder), args.rows)


if __name__ == '__main__':
    main()
