"""Images with identities: VeRi-UAV, VRU, VeRi-776, a CSV, folders of vehicles, and images for training."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from timm_dpa.embedding.images import ImageError, ImageItem, load_rgb

from .about import ABOUT_FILE, read_about
from .layouts import LAYOUTS, PARTS, VRU_TESTS, Row, read_layout

__all__ = [
    'LAYOUTS',
    'PROTOCOLS',
    'QueryGallery',
    'ReIDData',
    'Split',
    'TrainImages',
    'collate',
    'default_draws',
    'draw_protocol',
    'load_data',
    'train_labels',
]

PROTOCOLS = ('fixed', 'vru', 'first-last', 'cross-camera')
DRAWN_PROTOCOLS = ('vru', 'cross-camera')  # at random


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one part.

    Attributes:
        paths: N files, sorted.
        pids: `(N,)` int64, the identity of each, an index into `ReIDData.identities`.
        camids: `(N,)` int64, the camera of each; 0 where the layout knows none.
    """

    paths: list[str]
    pids: np.ndarray
    camids: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, which: np.ndarray | list[int]) -> Split:
        """The images at the indices `which`, in that order, or where the mask `which` is true."""
        which = np.asarray(which)
        rows = np.arange(len(self))[which if which.size else which.astype(np.int64)]
        return Split([self.paths[row] for row in rows], self.pids[rows], self.camids[rows])


@dataclass(frozen=True, eq=False)
class ReIDData:
    """What `load_data` found.

    Attributes:
        root: the folder (or CSV) that was read.
        layout: one of `LAYOUTS`.
        train: images for training.
        query, gallery: the given test parts; both empty where the protocol draws them from `test`.
        test: all test images; query and gallery together where these are given.
        identities: names on disk; a pid is an index into it, in all parts.
        has_cameras: whether there is more than one camera.
        protocol: one of `PROTOCOLS`: what `dataset.json` names, else the layout's own.
    """

    root: Path
    layout: str
    train: Split
    query: Split
    gallery: Split
    test: Split
    identities: list[str]
    has_cameras: bool
    protocol: str


class QueryGallery(NamedTuple):
    """Query and gallery of an evaluation, and whether images of a query's vehicle by its own camera are left out."""

    query: Split
    gallery: Split
    exclude_same_camera: bool

    def has_match(self) -> np.ndarray:
        """`(Q,)` bool, whether there is an image to find for each query."""
        cameras: dict[int, set[int]] = {}
        for pid, camid in zip(self.gallery.pids.tolist(), self.gallery.camids.tolist(), strict=True):
            cameras.setdefault(pid, set()).add(camid)
        own = self.query.camids.tolist() if self.exclude_same_camera else [None] * len(self.query)
        pairs = zip(self.query.pids.tolist(), own, strict=True)
        return np.array([bool(cameras.get(pid, set()) - {camid}) for pid, camid in pairs], bool)


def load_data(
    root: str | os.PathLike[str],
    layout: str = 'auto',
    *,
    test_fraction: float = 0.3,
    seed: int = 0,
    subset: str = 'small',
) -> ReIDData:
    """Find the images below `root`, and who is on them. No image is opened.

    Sets without a split of their own (`folders`, `flat` and `csv` may be such) are split by identity: the same ones
    for the same names and seed, wherever `root` is. An identity with a single image goes to the training part.

    Args:
        root: folder of the data set, or the folder that holds `VeRi-UAV/`, `VRU/` or `VeRi/`, or a CSV file.
        layout: one of `LAYOUTS`, or `'auto'`: by folders and names.
        test_fraction: identities for the test where the data do not say, 0 (none) to 1 (all).
        seed: of that split.
        subset: test part of VRU: `'small'`, `'medium'` or `'large'` (1200, 2400 and 8000 vehicles).

    Raises:
        FileNotFoundError: no such root, or an image that a list names is missing.
        ValueError: no known layout, or a name or a line that does not fit it; the message shows what would.
    """
    if layout != 'auto' and layout not in LAYOUTS:
        raise ValueError(f'unknown layout {layout!r}; choose auto, {", ".join(LAYOUTS)}')
    if not 0 <= test_fraction <= 1:
        raise ValueError(f'test_fraction must be in 0..1, not {test_fraction}')
    if subset not in VRU_TESTS:
        raise ValueError(f'unknown subset {subset!r} of VRU; choose {", ".join(VRU_TESTS)}')
    root = Path(os.path.abspath(root))
    if not root.exists():
        raise FileNotFoundError(f'{root}: no such file or folder')
    home, layout, rows = read_layout(root, layout, subset)
    return _assemble(home, layout, rows, test_fraction, seed)


def _assemble(home: Path, layout: str, rows: list[Row], test_fraction: float, seed: int) -> ReIDData:
    rows = sorted(rows)
    if not any(row.part for row in rows):
        tested = _draw_identities([row.vehicle for row in rows], test_fraction, seed)
        rows = [row._replace(part='test' if row.vehicle in tested else 'train') for row in rows]
    identities = sorted({row.vehicle for row in rows})
    pid_of = {name: pid for pid, name in enumerate(identities)}

    def split(chosen: list[Row]) -> Split:
        pids = np.array([pid_of[row.vehicle] for row in chosen], np.int64)
        return Split([row.path for row in chosen], pids, np.array([row.camera for row in chosen], np.int64))

    parts = {part: [row for row in rows if row.part == part] for part in PARTS}
    # VeRi-776 keeps its queries in the gallery, too; a CSV may
    key = os.path.basename if layout in ('veri_uav', 'veri776') else str
    queries = {key(row.path) for row in parts['query']}
    fresh = [row for row in parts['gallery'] if key(row.path) not in queries]
    test = sorted(parts['test'] or parts['query'] + fresh)
    has_cameras = len({row.camera for row in rows}) > 1
    usual = 'fixed' if parts['query'] else 'cross-camera' if has_cameras else 'vru'
    protocol = read_about(home).get('protocol', usual)
    if protocol not in PROTOCOLS:
        raise ValueError(f'{home / ABOUT_FILE}: unknown protocol {protocol!r}; choose {", ".join(PROTOCOLS)}')
    return ReIDData(
        home,
        layout,
        train=split(parts['train']),
        query=split(parts['query']),
        gallery=split(parts['gallery']),
        test=split(test),
        identities=identities,
        has_cameras=has_cameras,
        protocol=protocol,
    )


def _draw_identities(vehicles: list[str], fraction: float, seed: int) -> set[str]:
    names = [name for name, count in Counter(vehicles).items() if count > 1]
    count = round(fraction * len(names))
    if 0 < fraction < 1 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    # by hash: a vehicle that is added later moves few others
    return set(sorted(names, key=lambda name: hashlib.sha256(os.fsencode(f'{seed}/{name}')).digest())[:count])


# --- evaluation and training ------------------------------------------------------------------------------------------


def default_draws(protocol: str) -> int:
    """Random galleries to average where nobody says how many: 10 for `vru`, as its authors do, else 1."""
    return 10 if protocol == 'vru' else 1


def draw_protocol(
    data: ReIDData,
    protocol: str | None = None,
    seed: int | Sequence[int] = 0,
    exclude_same_camera: bool | None = None,
) -> QueryGallery:
    """Query and gallery of a protocol.

    - `fixed`: the given parts; the same-camera rule where these have cameras (VeRi-UAV, VeRi-776);
    - `vru`: one random image of each vehicle is the gallery, the others are queries; no camera rule;
    - `first-last`: the first image of each vehicle by name is a query, the last third of its images, rounded up, is
      gallery; a vehicle with one image is in the gallery only; no camera rule;
    - `cross-camera`: one random image of each vehicle by each camera is a query, all others are gallery; same-camera
      rule.

    All but `fixed` take the images from `data.test`.

    Args:
        protocol: one of `PROTOCOLS`, None for the data's own.
        seed: of the random images.
        exclude_same_camera: the same-camera rule, on or off; None for the protocol's own.

    Raises:
        ValueError: unknown, or not possible with these data.
    """
    parts = _draw(data, protocol or data.protocol, seed)
    if exclude_same_camera is None:
        return parts
    if exclude_same_camera and not _several_cameras(parts.query, parts.gallery):
        raise ValueError(f'{data.root}: query and gallery know no cameras that a rule could exclude')
    return parts._replace(exclude_same_camera=exclude_same_camera)


def _several_cameras(*splits: Split) -> bool:
    return len(np.unique(np.concatenate([split.camids for split in splits]))) > 1


def _draw(data: ReIDData, protocol: str, seed: int | Sequence[int]) -> QueryGallery:
    if protocol not in PROTOCOLS:
        raise ValueError(f'unknown protocol {protocol!r}; choose {", ".join(PROTOCOLS)}')
    if protocol == 'fixed':
        if not len(data.query):
            raise ValueError(f'{data.root} has no fixed query and gallery; use the protocol {data.protocol}')
        return QueryGallery(data.query, data.gallery, _several_cameras(data.query, data.gallery))
    test = data.test
    if not len(test):
        raise ValueError(f'{data.root} has no test images; give test_fraction above 0, or data with a test part')
    if protocol == 'vru':
        from ..evaluation.metrics import draw_gallery

        query, gallery = draw_gallery(test.pids, seed)
        return QueryGallery(test.subset(query), test.subset(gallery), False)
    if protocol == 'first-last':
        groups = _groups(test.pids)
        query = np.array([rows[0] for rows in groups if len(rows) > 1], np.int64)
        gallery = np.concatenate([rows[-math.ceil(len(rows) / 3) :] for rows in groups])
        return QueryGallery(test.subset(np.sort(query)), test.subset(np.sort(gallery)), False)
    if not _several_cameras(test):
        raise ValueError(f'{data.root} knows no cameras; use the protocol vru')
    rng = np.random.default_rng(seed)
    _, pairs = np.unique(np.stack([test.pids, test.camids]), axis=1, return_inverse=True)
    is_query = np.zeros(len(test), bool)
    is_query[[rng.choice(rows) for rows in _groups(pairs.ravel())]] = True
    return QueryGallery(test.subset(is_query), test.subset(~is_query), True)


def _groups(keys: np.ndarray) -> list[np.ndarray]:
    """Rows of each key, by key, each in their order."""
    order = np.argsort(keys, kind='stable')
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def train_labels(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Labels for a classifier.

    Returns:
        `(N,)` int64, 0 to C - 1 without gaps, and `(C,)` int64, the pid of each label.
    """
    pids, labels = np.unique(split.pids, return_inverse=True)
    return labels.astype(np.int64), pids


class TrainImages(Dataset):
    """Images of a split for training; an index is `(row of the split, seed)`.

    The seed (0 to 2**63 - 1) decides the augmentation: `random`, numpy's and torch's global CPU generators are seeded
    with it and get their states back, so an item is the same in every process and whatever came before.

    An image that cannot be read is replaced by the next readable one of the same vehicle.

    Args:
        split: what is loaded; labels as of `train_labels`.
        transform: makes a tensor of an RGB image, see `train_transform`.

    Returns:
        An item is the tensor, the label, and a message: empty, or what was replaced by what and why.

    Raises:
        ImageError: no image of that vehicle can be read.
    """

    def __init__(self, split: Split, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths = split.paths
        self.labels, _ = train_labels(split)
        self.transform = transform
        self._rows = _groups(self.labels) if len(split) else []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int, str]:
        index, seed = key
        label = int(self.labels[index])
        rows = self._rows[label]
        start = int(np.searchsorted(rows, index))
        failures = []
        for row in np.roll(rows, -start):
            path = self.paths[row]
            try:
                image = load_rgb(ImageItem(path, path))
            except ImageError as error:
                failures.append(str(error))
                continue
            with _seeded(int(seed)):
                pixels = self.transform(image)
            return pixels, label, '; '.join([*failures, f'took {path} instead']) if failures else ''
        raise ImageError(f'none of the {len(rows)} images of a vehicle can be read: {failures[0]}')


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def collate(items: list[tuple[torch.Tensor, int, str]]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """A batch of `TrainImages`: `(B, C, H, W)` tensor, `(B,)` int64 labels, and the messages that are not empty."""
    pixels, labels, messages = zip(*items, strict=True)
    return default_collate(list(pixels)), torch.tensor(labels), [message for message in messages if message]
