"""Small data sets on disk, in the layouts that `load_data` knows."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, seed: int | None = None, size: tuple[int, int] = (12, 8)) -> Path:
    """A JPEG of noise, different for each path unless a seed is given."""
    seed = sum(ord(c) * 31**i for i, c in enumerate(path.name)) % 2**32 if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, 'JPEG')
    return path


def write_images(root: Path, names: list[str]) -> Path:
    for name in names:
        write_image(root / name)
    return root


def veri_uav(root: Path) -> Path:
    """Vehicles 0007 and 0010 to train, 0003 and 0005 to test, cameras 1 to 3."""
    return write_images(
        root,
        [
            *(f'image_train/{v}_{c}_{n}.jpg' for v in ('0007', '0010') for c in ('01', '02') for n in (1, 2)),
            *(f'image_query/{v}_{c}_1.jpg' for v in ('0003', '0005') for c in ('01', '03')),
            *(f'image_test/{v}_{c}_{n}.jpg' for v in ('0003', '0005') for c in ('01', '03') for n in (2, 3, 4)),
        ],
    )


def veri776(root: Path) -> Path:
    """As the original: name lists beside the folders, and the queries are in the gallery, too."""
    write_images(
        root,
        [
            *(f'image_train/{v}_c{c}_00016450_0.jpg' for v in ('0002', '0004') for c in ('001', '014')),
            *(f'image_query/{v}_c{c}_00030600_0.jpg' for v in ('0001', '0005') for c in ('001', '020')),
            *(f'image_test/{v}_c{c}_{f}_0.jpg' for v in ('0001', '0005') for c in ('001', '020')
              for f in ('00030600', '00030700')),
        ],
    )  # fmt: skip
    (root / 'name_train.txt').write_text('0002_c001_00016450_0.jpg\n')
    return root


def vru(root: Path) -> Path:
    """Two vehicles to train, three to test in the small list, four in the medium one."""
    lists = {
        'train_list': {'90': ['a1', 'a2'], '91': ['a3', 'a4', 'a5']},
        'test_list_1200': {'7': ['b1', 'b2'], '8': ['b3', 'b4', 'b5'], '12': ['b6', 'b7']},
        'test_list_2400': {'7': ['b1', 'b2'], '8': ['b3', 'b4'], '12': ['b6', 'b7'], '13': ['b8', 'b9']},
    }
    (root / 'train_test_split').mkdir(parents=True)
    for name, vehicles in lists.items():
        lines = [f'{image} {vehicle}\n' for vehicle, images in vehicles.items() for image in images]
        (root / f'train_test_split/{name}.txt').write_text(''.join(lines))
    return write_images(
        root, [f'Pic/{image}.jpg' for image in ('a1 a2 a3 a4 a5 ' + ' '.join(f'b{i}' for i in range(1, 10))).split()]
    )


def vehicle_folders(root: Path, counts: dict[str, int], flat: bool = False) -> Path:
    """`counts` images of each vehicle, a folder each or (flat) named after it."""
    between = '_' if flat else '/'
    for vehicle, count in counts.items():
        for n in range(count):
            name = f'{vehicle}{between}{n:03d}.jpg'
            write_image(root / name, seed=zlib.crc32(f'{root.name}/{name}'.encode()))
    return root
