"""Images with identities from data sets on disk, and their items for training."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from timm_dpa.embedding.images import ImageError, ImageItem, load_rgb

from .copies import file_numbers
from .layouts import LAYOUTS, PARTS, SUBSETS, Row, read_layout
from .protocols import PROTOCOLS
from .provenance import ABOUT_FILE, read_about

if TYPE_CHECKING:
    from .readers import Reading

__all__ = ['ReIDData', 'Split', 'TrainImages', 'collate', 'load_data', 'rows_by_key', 'train_labels']

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one part.

    Attributes:
        paths: N files, sorted.
        pids: `(N,)` int64, the identity of each, an index into `ReIDData.identities`.
        camids: `(N,)` int64, the camera of each; 0 where the layout knows none.
        groups: `(N,)` int64 where the candidates of a query are the gallery images of its group; None where all are.
    """

    paths: list[str]
    pids: np.ndarray
    camids: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, which: np.ndarray | list[int]) -> Split:
        """The images at the indices `which`, in that order, or where the mask `which` is true."""
        which = np.asarray(which)
        rows = np.arange(len(self))[which if which.size else which.astype(np.int64)]
        groups = None if self.groups is None else self.groups[rows]
        return Split([self.paths[row] for row in rows], self.pids[rows], self.camids[rows], groups)


@dataclass(frozen=True, eq=False)
class ReIDData:
    """What `load_data` found.

    Attributes:
        root: the folder (or CSV) that was read.
        layout: one of `LAYOUTS`.
        train: images for training.
        query, gallery: the given test parts; both empty where the protocol picks them from `test`.
        test: all test images; query and gallery together where these are given.
        identities: names on disk; a pid is an index into it, in all parts.
        has_cameras: whether there is more than one camera.
        protocol: one of `PROTOCOLS`: what `dataset.json` names, else the layout's own.
        notes: what was left out and what is doubtful about the reading, a sentence each.
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
    notes: list[str] = field(default_factory=list)

    @cached_property
    def files(self) -> dict[str, int]:
        """Path -> number of each test image, equal for identical files, see `file_numbers`; computed once."""
        return file_numbers([*self.test.paths, *self.query.paths, *self.gallery.paths, *self.singles.paths])

    @cached_property
    def singles(self) -> Split:
        """Images of vehicles with a single one, where these are all that is left for training; else none."""
        alone = len(self.test) > 0 and len(self.train) == len(np.unique(self.train.pids))
        return self.train if alone else self.train.subset([])

    @cached_property
    def said(self) -> set[str]:
        """Warnings about these data that were logged already."""
        return set()

    @cached_property
    def shared_identities(self) -> list[str]:
        """Names of the identities that are in the training part and in the test part."""
        return [self.identities[pid] for pid in np.intersect1d(self.train.pids, self.test.pids)]


def load_data(
    root: str | os.PathLike[str],
    layout: str = 'auto',
    *,
    test_fraction: float = 0.3,
    seed: int = 0,
    subset: str = 'small',
    warn: bool = True,
) -> ReIDData:
    """Find the images below `root` and their identities. No image is opened, but for the layout `mot`,
    whose crops are made at the first time.

    Sets without a split of their own (`folders`, `flat` and `csv` may be such) are split by identity: the same ones
    for the same names and seed, wherever `root` is. An identity with a single image goes to the training part. Both
    parts have two identities at least; where that is not possible, all images are for training.

    What was left out, and what is doubtful about the reading, is logged as a warning and in `ReIDData.notes`.

    Args:
        root: folder of the data set, or the folder that holds that of a published one, or a CSV file.
        layout: one of `LAYOUTS`, or `'auto'`: by folders and names.
        test_fraction: identities for the test where the data do not say, 0 (none) to 1 (all).
        seed: of that split.
        subset: test part of VRU (`'small'`, `'medium'` or `'large'`: 1200, 2400 or 8000 vehicles), VehicleID (800, 1600
            or 2400) and VERI-Wild (3000, 5000 or 10000).
        warn: log the warnings; in one process of several only.

    Raises:
        FileNotFoundError: no such root, or an image that a list names is missing.
        ValueError: no known layout, or a name or a line that does not fit it; the message shows what would.
    """
    if layout != 'auto' and layout not in LAYOUTS:
        raise ValueError(f'unknown layout {layout!r}; choose auto, {", ".join(LAYOUTS)}')
    if not 0 <= test_fraction <= 1:
        raise ValueError(f'test_fraction must be in 0..1, not {test_fraction}')
    if subset not in SUBSETS:
        raise ValueError(f'unknown subset {subset!r}; choose {", ".join(SUBSETS)}')
    root = Path(os.path.abspath(root))
    if not root.exists():
        raise FileNotFoundError(f'{root}: no such file or folder')
    reading = read_layout(root, layout, subset)
    data = _assemble(reading, test_fraction, seed)
    if warn and os.environ.get('RANK', '0') == '0':
        for note in data.notes:
            _logger.warning('%s: %s', data.root, note)
    return data


def _assemble(reading: Reading, test_fraction: float, seed: int) -> ReIDData:
    home, layout, rows = reading.home, reading.layout, sorted(reading.rows)
    if not any(row.part for row in rows):
        tested = _pick_identities([row.vehicle for row in rows], test_fraction, seed)
        if test_fraction and not tested:
            reading.notes.append(
                'too few vehicles with several images for a test part of two beside a training part of two: all images '
                'are for training'
            )
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
    usual = 'fixed' if parts['query'] else 'cross-camera' if len({row.camera for row in test}) > 1 else 'vru'
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
        notes=reading.notes,
    )


def _pick_identities(vehicles: list[str], fraction: float, seed: int) -> set[str]:
    """The identities of the test part: two at least, and none where that leaves fewer than two for training."""
    counts = Counter(vehicles)
    names = [name for name, count in counts.items() if count > 1]
    picked = round(fraction * len(names))
    if 0 < fraction < 1:
        most = min(len(counts) - 2, len(names))
        picked = min(max(picked, 2), most) if most >= 2 else 0
    # by hash: a vehicle that is added later moves few others
    return set(sorted(names, key=lambda name: hashlib.sha256(os.fsencode(f'{seed}/{name}')).digest())[:picked])


# --- training ---------------------------------------------------------------------------------------------------------


def rows_by_key(keys: np.ndarray) -> list[np.ndarray]:
    """The rows of each key, by key, each in ascending order.

    Args:
        keys: `(N,)` integers.
    """
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
        An item is the tensor, the label, the row that was read, and a message: empty, or what was replaced by what
        and why.

    Raises:
        ImageError: no image of that vehicle can be read.
    """

    def __init__(self, split: Split, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths = split.paths
        self.labels, _ = train_labels(split)
        self.transform = transform
        self._rows = rows_by_key(self.labels) if len(split) else []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int, int, str]:
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
            return pixels, label, int(row), '; '.join([*failures, f'took {path} instead']) if failures else ''
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


def collate(
    items: list[tuple[torch.Tensor, int, int, str]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    """A batch of `TrainImages`: `(B, C, H, W)` tensor, `(B,)` int64 labels and rows, and the messages that are not
    empty."""
    pixels, labels, rows, messages = zip(*items, strict=True)
    said = [message for message in messages if message]
    return default_collate(list(pixels)), torch.tensor(labels), torch.tensor(rows), said
