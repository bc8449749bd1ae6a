"""Adds rows to a gallery, updates and optimizes it, until it is killed; writes down what is safe.

    python -m tests.support.gallery_worker URI SEED PARTS LOG [STORAGE_OPTIONS]

Part k has the keys `<SEED>/<k>/<0..99>`, or, where SEED is `shared`, those of part 0; its camera is `<pid>/<k>`. Each
line of LOG is a part whose rows were acknowledged. After each third part the gallery is optimized.
"""

import json
import os
import sys

sys.argv[0] = 'timm-dpa'  # the command line's way not to import torch

from tests.support.galleries import ORIGIN, unit  # noqa: E402
from timm_dpa.gallery.gallery import Gallery  # noqa: E402
from timm_dpa.gallery.rows import GalleryRow  # noqa: E402

ROWS, WIDTH = 100, 64


def part(seed: str, number: int) -> list[GalleryRow]:
    """The rows of a part; the vector tells seed and number, so that a torn row shows."""
    vectors = unit(ROWS, WIDTH, seed=hash_of(seed, number))
    names = [f'{seed}/{0 if seed == "shared" else number}/{index}' for index in range(ROWS)]
    return [
        GalleryRow(name, vector, camera=f'{os.getpid()}/{number}', track=str(number))
        for name, vector in zip(names, vectors, strict=True)
    ]


def hash_of(seed: str, number: int) -> int:
    return number * 1000 + sum(map(ord, seed)) % 1000


def main() -> None:
    uri, seed, parts, log = sys.argv[1:5]
    options = json.loads(sys.argv[5]) if len(sys.argv) > 5 else None
    gallery = Gallery(uri, origin=ORIGIN, create=True, width=WIDTH, storage_options=options)
    with open(log, 'a', encoding='utf-8') as file:
        print('ready', flush=True)
        for number in range(int(parts)):
            gallery.add(part(seed, number))
            file.write(f'{number}\n')
            file.flush()
            os.fsync(file.fileno())
            if number % 3 == 2:
                gallery.optimize(measure=False)


if __name__ == '__main__':
    main()
