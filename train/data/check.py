"""A report of what a data set holds and what is wrong with it, to read before a training."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub.utils import tqdm

from timm_dpa.embedding.images import ImageError, ImageItem, load_rgb
from timm_dpa.tables import format_table

from .datasets import ReIDData, Split
from .query_gallery import QueryGallery, check_evaluable, pick_query_gallery, warn_about

__all__ = ['DataReport', 'SplitReport', 'check_data']

_SHOWN = 5  # names of each kind in the text


@dataclass
class SplitReport:
    """Numbers of one part; the triples are smallest, median and largest.

    Attributes:
        images, identities: how many.
        cameras: how many; 0 where they are not known.
        images_per_identity: None without images.
        widths, heights: pixels of the readable images; None without any, and after a quick check.
    """

    images: int
    identities: int
    cameras: int
    images_per_identity: tuple[int, float, int] | None = None
    widths: tuple[int, float, int] | None = None
    heights: tuple[int, float, int] | None = None


@dataclass
class DataReport:
    """What `check_data` found; `str` of it is for reading, `as_dict` for JSON.

    Attributes:
        root, layout, protocol: what was read, how, and how query and gallery came about.
        same_camera_rule: whether images of a query's vehicle by its own camera are left out.
        parts: `train`, `test`, `query` and `gallery`; the latter two are the first draw of an evaluation where they are
            picked at random.
        decoded: False after a quick check: `unreadable`, `identical` and `conflicting` are unknown.
        unreadable: one line for each image that cannot be read, which names it.
        shared_identities: names of the vehicles that are in train and test.
        identical: pairs of a training file and a test file with the same bytes.
        conflicting: pairs of files with the same bytes and different identities.
        without_positive: queries without an image to find in the gallery; metrics leave them out.
        not_evaluable: why an evaluation could not give a score; empty where it can, or where there are no test images.
        warnings: what makes its scores mean less than they seem to, see `warn_about`.
        notes: what was left out and what is doubtful about the reading, see `ReIDData`.
    """

    root: str
    layout: str
    protocol: str
    same_camera_rule: bool
    parts: dict[str, SplitReport]
    decoded: bool
    unreadable: list[str] = field(default_factory=list)
    shared_identities: list[str] = field(default_factory=list)
    identical: list[tuple[str, str]] = field(default_factory=list)
    conflicting: list[tuple[str, str]] = field(default_factory=list)
    without_positive: list[str] = field(default_factory=list)
    not_evaluable: str = ''
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether training, or evaluation where there is no training part, can start with these data."""
        return not self.problems()

    def problems(self) -> list[str]:
        """What has to be corrected first, a line each."""
        found = []
        if self.parts['train'].images == self.parts['query'].images == 0:
            found.append('neither training nor test images')
        if self.parts['train'].identities == 1:
            found.append('training images of one identity only')
        if self.unreadable:
            found.append(f'{_count(self.unreadable, "image", "images")} cannot be read')
        if self.shared_identities:
            found.append(f'{_count(self.shared_identities, "identity", "identities")} in train and in test')
        if self.identical:
            found.append(f'{_count(self.identical, "test image", "test images")} identical to a training image')
        if self.not_evaluable:
            found.append(f'no evaluation: {self.not_evaluable}')
        return found

    def remarks(self) -> list[str]:
        """What the reader should know although it does not prevent training, a line each."""
        found = [*self.notes, *self.warnings]
        if self.conflicting:
            found.append(f'{_count(self.conflicting, "image", "images")} identical to one of another identity')
        if self.parts['query'].images == 0:
            found.append('no test images: training cannot be evaluated')
        elif 0 < len(self.without_positive) < self.parts['query'].images:
            found.append('queries with nothing to find do not count')
        per_identity = self.parts['train'].images_per_identity
        if per_identity and per_identity[0] == 1:
            found.append('some training identities have a single image: it is repeated in a batch')
        if not self.decoded:
            found.append('quick check: no image was opened')
        return found

    def as_dict(self) -> dict[str, Any]:
        """The report as numbers, strings, lists and dictionaries, ready for JSON."""
        return {'ready': self.ready, 'problems': self.problems(), 'remarks': self.remarks(), **asdict(self)}

    def __str__(self) -> str:
        rule = 'with' if self.same_camera_rule else 'without'
        rows: list[tuple[str, ...]] = [('', 'images', 'identities', 'cameras', 'per identity', 'width', 'height')]
        for name, part in self.parts.items():
            triples = (part.images_per_identity, part.widths, part.heights)
            cameras = f'{part.cameras}' if part.cameras else '-'
            rows.append((name, f'{part.images}', f'{part.identities}', cameras, *map(_triple, triples)))
        lines = [
            self.root,
            f'layout {self.layout}, protocol {self.protocol} {rule} same-camera rule',
            '',
            format_table(rows, numeric=range(len(rows[0]))),
            '(per identity, width and height: smallest / median / largest)',
        ]
        pairs = [f'{test} = {train}' for train, test in self.identical]
        conflicts = [f'{path} = {other}' for path, other in self.conflicting]
        for title, names in (
            ('unreadable', self.unreadable),
            ('in train and test', self.shared_identities),
            ('identical in train and test', pairs),
            ('identical under two identities', conflicts),
            ('queries with nothing to find', self.without_positive),
        ):
            if names:
                lines += ['', f'{title}: {len(names)}', *(f'  {name}' for name in names[:_SHOWN])]
                lines += [f'  ... and {len(names) - _SHOWN} more'] * (len(names) > _SHOWN)
        lines += ['', *(f'note: {remark}' for remark in self.remarks())]
        if self.problems():
            lines.append(f'not ready: {"; ".join(self.problems())}')
        elif self.parts['train'].images:
            lines.append('ready for training')
        else:
            lines.append('ready for evaluation only: no training images')
        return '\n'.join(lines)


def check_data(
    data: ReIDData,
    workers: int | None = None,
    *,
    protocol: str | None = None,
    quick: bool = False,
    progress: bool | None = None,
) -> DataReport:
    """Decode every image of a data set, and report what the set holds and what is wrong with it.

    Args:
        data: of `load_data`.
        workers: threads that decode, None for one a core.
        protocol: of the evaluation, see `pick_query_gallery`; None for the layout's own.
        quick: count only, open no image.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        ValueError: workers below 1, or a protocol that is not possible with these data.
    """
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1, not {workers}')
    empty = data.train.subset([])
    parts, not_evaluable = QueryGallery(empty, empty, False), ''
    if len(data.test):
        parts = pick_query_gallery(data, protocol, (0, 0))
        try:
            check_evaluable(data, protocol)
        except ValueError as error:
            not_evaluable = str(error).removeprefix(str(data.root)).lstrip(', ')
    query, gallery, rule = parts
    splits = {'train': data.train, 'test': data.test, 'query': query, 'gallery': gallery}
    looks: dict[str, _Look] = {}
    if not quick:
        paths = list(dict.fromkeys([*data.train.paths, *data.test.paths, *query.paths, *gallery.paths]))
        looks = dict(zip(paths, _look_at_all(paths, workers or os.cpu_count() or 1, progress), strict=True))
    trained = {looks[path].digest: path for path in reversed(data.train.paths) if path in looks}
    pairs = [(trained.get(looks[path].digest, ''), path) for path in data.test.paths if path in looks]
    return DataReport(
        root=str(data.root),
        layout=data.layout,
        protocol=protocol or data.protocol,
        same_camera_rule=rule,
        parts={name: _count_split(split, data.has_cameras, looks) for name, split in splits.items()},
        decoded=not quick,
        unreadable=[look.error for look in looks.values() if look.error],
        shared_identities=data.shared_identities,
        identical=[pair for pair in pairs if pair[0]],
        conflicting=_conflicts(data, looks),
        without_positive=[query.paths[k] for k in np.flatnonzero(~parts.has_match(data.files))],
        not_evaluable=not_evaluable,
        warnings=warn_about(data, parts, log=False),
        notes=data.notes,
    )


class _Look(NamedTuple):
    """One image, decoded: its size, and the digest of its file; or why not."""

    size: tuple[int, int] | None
    digest: bytes | None
    error: str = ''


def _look(path: str) -> _Look:
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        return _Look(None, os.fsencode(path), f'{path}: cannot be read ({error.strerror})')
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        return _Look(load_rgb(ImageItem(io.BytesIO(content), path)).size, digest)
    except ImageError as error:
        return _Look(None, digest, str(error))


def _look_at_all(paths: list[str], workers: int, progress: bool | None) -> Iterator[_Look]:
    bar = tqdm(total=len(paths), unit='image', desc='checking', disable=None if progress is None else not progress)
    pool = ThreadPoolExecutor(workers, thread_name_prefix='check')
    waiting: deque[Future[_Look]] = deque()
    rest = iter(paths)
    try:
        with bar:
            # a few ahead: after Ctrl-C nothing but these is waited for
            waiting.extend(pool.submit(_look, path) for path in islice(rest, 4 * workers))
            while waiting:
                yield waiting.popleft().result()
                bar.update()
                waiting.extend(pool.submit(_look, path) for path in islice(rest, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _count_split(split: Split, has_cameras: bool, looks: dict[str, _Look]) -> SplitReport:
    _, counts = np.unique(split.pids, return_counts=True)
    sizes = [look.size for path in split.paths if (look := looks.get(path)) and look.size]
    return SplitReport(
        images=len(split),
        identities=len(counts),
        cameras=len(np.unique(split.camids)) if has_cameras else 0,
        images_per_identity=_spread(counts),
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
    )


def _spread(values: Sequence[int] | np.ndarray) -> tuple[int, float, int] | None:
    return (int(min(values)), float(np.median(values)), int(max(values))) if len(values) else None


def _conflicts(data: ReIDData, looks: dict[str, _Look]) -> list[tuple[str, str]]:
    """Pairs of a file and the first one with the same bytes, where their identities differ."""
    first: dict[bytes, tuple[str, int]] = {}
    found = []
    for split in (data.train, data.test):
        for path, pid in zip(split.paths, split.pids.tolist(), strict=True):
            look = looks.get(path)
            if look and look.size and look.digest is not None:  # what cannot be read is a problem of its own
                other, theirs = first.setdefault(look.digest, (path, pid))
                if theirs != pid:
                    found.append((path, other))
    return found


def _count(found: Sequence[object], one: str, several: str) -> str:
    return f'{len(found)} {one if len(found) == 1 else several}'


def _triple(values: tuple[int, float, int] | None) -> str:
    return ' / '.join(f'{value:g}' for value in values) if values else '-'
