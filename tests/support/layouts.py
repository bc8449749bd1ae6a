"""Small data sets on disk, in the layouts that `load_data` knows."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import sequences


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


def mot(root: Path, frames=range(1, 41), tracks=range(4), names=('north', 'south')) -> Path:
    """As MOTChallenge: `<sequence>/img1/`, `gt/gt.txt` with a person and a box to ignore, and `seqinfo.ini`."""
    for k, name in enumerate(names):
        mine = [track + 10 * k for track in tracks]
        sequences.write_frames(root / name / 'img1', frames, [track % 8 for track in mine])
        rows = [(*row[:1], row[1], *sequences.place(row[1] % 8, row[0]), *row[4:]) for row in
                sequences.boxes(frames, mine)]  # fmt: skip
        lines = [(*row, 1, 3, 0.75 if row[1] % 2 else 1.0) for row in rows]
        lines += [(frames[0], 99, 1, 1, 9, 9, 0, 3, 1.0)]
        sequences.write_rows(root / name / 'gt/gt.txt', lines)
        info = f'name={name}\nimDir=img1\nframeRate=10\nseqLength={len(frames)}\nimWidth=96\nimHeight=64\nimExt=.png\n'
        (root / name / 'seqinfo.ini').write_text(f'[Sequence]\n{info}')
    return root


def visdrone_mot(root: Path, frames=range(1, 21)) -> Path:
    """As VisDrone-MOT: two cars, a pedestrian, an ignored region."""
    for name in ('uav1_v', 'uav2_v'):
        sequences.write_frames(root / 'sequences' / name, frames, range(3), name='{:07d}.png')
        rows = sequences.boxes(frames, range(3))
        lines = [(*row, 1, 1 if row[1] == 2 else 4, 0, row[1]) for row in rows]
        lines += [(frame, 7, 0, 0, 20, 20, 0, 0, 0, 0) for frame in frames]
        sequences.write_rows(root / 'annotations' / f'{name}.txt', lines)
    return root


def uavdt(root: Path, frames=range(1, 21)) -> Path:
    """As UAVDT: frames in `UAV-benchmark-M`, boxes in `UAV-benchmark-MOTD_v1.0/GT`."""
    for name in ('M0101', 'M0202'):
        sequences.write_frames(root / 'UAV-benchmark-M' / name, frames, range(3), name='img{:06d}.png')
        lines = [(*row, 1, (1, 4, 2)[row[1]], 1) for row in sequences.boxes(frames, range(3))]
        sequences.write_rows(root / 'UAV-benchmark-MOTD_v1.0/GT' / f'{name}_gt_whole.txt', lines)
    return root
