"""Query and gallery of a protocol, and whether an evaluation with them can say anything."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .datasets import ReIDData, Split, rows_by_key
from .moments import GAP, STRIDE, least_gap, pairs_after
from .protocols import DRAWN_PROTOCOLS, PROTOCOLS, default_draws

__all__ = ['QueryGallery', 'check_evaluable', 'pick_query_gallery', 'resolve_protocol', 'warn_about']

_logger = logging.getLogger(__name__)


class QueryGallery(NamedTuple):
    """Query and gallery of an evaluation, and whether images of a query's vehicle by its own camera are left out."""

    query: Split
    gallery: Split
    exclude_same_camera: bool

    def matches(self, files: dict[str, int] | None = None) -> np.ndarray:
        """`(Q,)` int64: how many gallery images there are to find for each query.

        Args:
            files: number of each path, see `file_numbers`; a query never finds its own file. None compares paths.
        """
        found = self._count((0,), files) - self._count((0, 2), files)
        if self.exclude_same_camera:  # those of the query's file are not taken off twice
            found += self._count((0, 1, 2), files) - self._count((0, 1), files)
        return found

    def own_files(self, files: dict[str, int] | None = None) -> np.ndarray:
        """`(Q,)` int64: how many gallery images are the query's own file and not left out for its camera anyway."""
        found = self._count((2,), files)
        return found - self._count((0, 1, 2), files) if self.exclude_same_camera else found

    def negatives(self) -> np.ndarray:
        """`(Q,)` int64: how many gallery images show another vehicle than the query."""
        return self._count((), None) - self._count((0,), None)

    def _count(self, columns: tuple[int, ...], files: dict[str, int] | None) -> np.ndarray:
        """Gallery images that agree with each query in vehicle (0), camera (1) or file (2)."""
        sides = []
        for split in (self.query, self.gallery):
            names = split.paths if files is None else [files[path] for path in split.paths]
            labels = (split.pids.tolist(), split.camids.tolist(), names)
            group = [0] * len(split) if split.groups is None else split.groups.tolist()
            sides.append(list(zip(group, *(labels[k] for k in columns), strict=True)))
        counts = Counter(sides[1])
        return np.array([counts[key] for key in sides[0]], np.int64)

    def has_match(self, files: dict[str, int] | None = None) -> np.ndarray:
        """`(Q,)` bool: whether there is an image to find for each query, see `matches`."""
        return self.matches(files) > 0


def resolve_protocol(data: ReIDData, protocol: str | None = None, draws: int | None = None) -> tuple[str, int]:
    """The protocol of an evaluation and its number of draws: what is given, else the data's own and its default.

    Raises:
        ValueError: an unknown protocol, or draws below 1 or of a protocol that picks nothing at random.
    """
    protocol = protocol or data.protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f'unknown protocol {protocol!r}; choose {", ".join(PROTOCOLS)}')
    draws = default_draws(protocol) if draws is None else draws
    if draws < 1:
        raise ValueError(f'draws must be at least 1, not {draws}')
    if draws > 1 and protocol not in DRAWN_PROTOCOLS:
        raise ValueError(
            f'draws={draws}: the protocol {protocol} picks nothing at random; draws are for '
            f'{", ".join(DRAWN_PROTOCOLS)}'
        )
    return protocol, draws


def check_evaluable(
    data: ReIDData,
    protocol: str | None = None,
    draws: int | None = None,
    exclude_same_camera: bool | None = None,
    seed: int = 0,
    gap: int = GAP,
    stride: int = STRIDE,
) -> QueryGallery:
    """Check that an evaluation of these data can give a score, before any model runs.

    Args:
        data, protocol, draws, exclude_same_camera, seed, gap, stride: as of `evaluate_model`.

    Returns:
        The first draw.

    Raises:
        ValueError: what `resolve_protocol` and `pick_query_gallery` raise; no query with an image to find; or a gallery
            of one vehicle, in which any model finds the right one. The message names what helps.
    """
    protocol, _ = resolve_protocol(data, protocol, draws)
    parts = pick_query_gallery(data, protocol, (seed, 0), exclude_same_camera, gap, stride)
    where = f'{data.root}, protocol {protocol}'
    vehicles = np.unique(parts.gallery.pids)
    if len(vehicles) == 1:
        raise ValueError(
            f'{where}: all {len(parts.gallery)} gallery images show one vehicle, {data.identities[vehicles[0]]!r}, so '
            'that any model finds it; give a test part of several vehicles'
        )
    if not parts.has_match(data.files).any():
        rule = ' by another camera' * parts.exclude_same_camera
        raise ValueError(
            f'{where}: none of the {len(parts.query)} queries has an image of its vehicle{rule} to find in the gallery'
            + _remedy(data, protocol)
        )
    return parts


def _remedy(data: ReIDData, protocol: str) -> str:
    """Other settings with which a query finds something, as recipes and as `timm-dpa eval` take them."""
    tried = ((protocol, False), ('cross-camera', None), ('vru', None))
    for other, rule in tried:
        try:
            parts = pick_query_gallery(data, other, (0, 0), rule)
        except ValueError:
            continue
        if len(np.unique(parts.gallery.pids)) > 1 and parts.has_match(data.files).any():
            if rule is False:
                return '; data.exclude_same_camera=false (eval: --same-camera keep) counts those by its own camera'
            return f'; data.protocol={other} (eval: --protocol {other}) works with these images'
    return '; give a test part with several different images of each vehicle'


def warn_about(data: ReIDData, parts: QueryGallery, log: bool = True) -> list[str]:
    """What makes the scores of an evaluation mean less than they seem to, a sentence each.

    Args:
        parts: of the evaluation, such as the first draw.
        log: log each as a warning too, once for these data, however many evaluations there are.
    """
    matches, own = parts.matches(data.files), parts.own_files(data.files)
    valid = matches > 0
    found = []
    apart = least_gap(parts.query.paths, parts.query.pids, parts.gallery.paths, parts.gallery.pids)
    if parts.query.groups is None and apart is not None and apart < GAP:
        found.append(
            f'half of the queries have an image of the same track at most {apart:g} frames away in the gallery: '
            'neighbors in time look alike, which makes the scores high; the protocol gap compares images further apart'
        )
    if data.shared_identities:
        names = data.shared_identities
        found.append(
            f'{len(names)} of {len(np.unique(data.test.pids))} test identities are in the training part too, such as '
            f'{", ".join(names[:3])}: the scores of a model trained on it are not those of unseen vehicles'
        )
    if own.any():
        found.append(
            f'{np.count_nonzero(own)} of {len(own)} queries are in the gallery as the same file or a copy of it, which '
            'is left out'
        )
    if valid.any():
        sure = parts.negatives()[valid].max()  # so many wrong images at the most come before the first right one
        ranks = [f'Rank-{k}' for k in (1, 5, 10) if sure < k]
        if ranks:
            scores = 'mAP, mINP and ' * (not sure) + ', '.join(ranks)
            found.append(
                f'{scores} cannot fall below 100 %, whatever the model: the gallery has at most {sure} images of other '
                'vehicles than a query'
            )
        if 2 * np.count_nonzero(valid) < len(valid):
            found.append(
                f'only {np.count_nonzero(valid)} of {len(valid)} queries have an image to find, and count in the scores'
            )
    for text in found:
        if log and text not in data.said:
            data.said.add(text)
            _logger.warning('%s: %s', data.root, text)
    return found


def pick_query_gallery(
    data: ReIDData,
    protocol: str | None = None,
    seed: int | Sequence[int] = 0,
    exclude_same_camera: bool | None = None,
    gap: int = GAP,
    stride: int = STRIDE,
) -> QueryGallery:
    """Query and gallery of a protocol.

    - `fixed`: the given parts; the same-camera rule where these have several cameras (VeRi-UAV, VeRi-776);
    - `vru`: one random image of each vehicle is the gallery, the others are queries; no camera rule;
    - `first-last`: the first image of each vehicle by name is a query, the last third of its images, rounded up, is
      gallery; a vehicle with one image is in the gallery only; no camera rule;
    - `cross-camera`: one random image of each vehicle by each camera is a query, all others are gallery; same-camera
      rule. A vehicle of which nothing would be left for the gallery leaves one of its images, by a random camera.

    - `one-query`: one random image of each vehicle is a query, its others are gallery; a vehicle with one image is
      left out; no camera rule. The draw is that of `reid.RetrievalProtocol` (roboflow `reid` 0.1) with the same seed;
    - `gap`: images of frames divisible by `stride` are queries; the candidates of each are the images of its sequence
      exactly `gap` frames later, two at least, among them its vehicle; no camera rule. As `reid.ReassociationProtocol`.

    All but `fixed` take the images from `data.test`; where all vehicles are for the test, `gap` also takes those with a
    single image, which the split leaves to training, as candidates.

    Args:
        protocol: one of `PROTOCOLS`, None for the data's own.
        seed: of the random images.
        exclude_same_camera: the same-camera rule, on or off; None for the protocol's own.
        gap, stride: frames, of the protocol `gap`.

    Raises:
        ValueError: unknown, or not possible with these data.
    """
    protocol, _ = resolve_protocol(data, protocol)
    parts = _pick_later(data, gap, stride) if protocol == 'gap' else _pick(data, protocol, seed)
    if exclude_same_camera is None:
        return parts
    if exclude_same_camera and not _several_cameras(parts.query, parts.gallery):
        raise ValueError(f'{data.root}: query and gallery know no cameras that a rule could exclude')
    return parts._replace(exclude_same_camera=exclude_same_camera)


def _several_cameras(*splits: Split) -> bool:
    return len(np.unique(np.concatenate([split.camids for split in splits]))) > 1


def _pick(data: ReIDData, protocol: str, seed: int | Sequence[int]) -> QueryGallery:
    test = data.test
    if not len(test):
        raise ValueError(f'{data.root} has no test images; give test_fraction above 0, or data with a test part')
    if protocol == 'fixed':
        if not len(data.query):
            raise ValueError(f'{data.root} has no fixed query and gallery; use the protocol {data.protocol}')
        return QueryGallery(data.query, data.gallery, _several_cameras(data.query, data.gallery))
    if protocol == 'vru':
        from ..evaluation.metrics import draw_gallery

        query, gallery = draw_gallery(test.pids, seed)
        return QueryGallery(test.subset(query), test.subset(gallery), False)
    if protocol == 'one-query':
        groups = [rows for rows in rows_by_key(test.pids) if len(rows) > 1]
        order = _shuffled(groups, seed)
        if not order:
            raise ValueError(f'{data.root}: no vehicle has two images, of which one could be found')
        first, others = (np.concatenate([rows[part] for rows in order]) for part in (slice(1), slice(1, None)))
        return QueryGallery(test.subset(first), test.subset(others), False)
    if protocol == 'first-last':
        groups = rows_by_key(test.pids)
        query = np.array([rows[0] for rows in groups if len(rows) > 1], np.int64)
        gallery = np.concatenate([rows[-math.ceil(len(rows) / 3) :] for rows in groups])
        return QueryGallery(test.subset(np.sort(query)), test.subset(np.sort(gallery)), False)
    if not _several_cameras(test):
        raise ValueError(
            f'{data.root}: the test part knows {"one camera only" if data.has_cameras else "no cameras"}; use the '
            'protocol vru'
        )
    is_query = _one_by_each_camera(test, seed)
    return QueryGallery(test.subset(is_query), test.subset(~is_query), True)


def _shuffled(groups: list[np.ndarray], seed: int | Sequence[int]) -> list[np.ndarray]:
    """The rows of each vehicle in random order, by the generator that roboflow's reid takes."""
    numbers = [seed] if isinstance(seed, int) else list(seed)
    rng = random.Random(numbers[0] if numbers[1:] in ([], [0]) else '/'.join(map(str, numbers)))
    result = []
    for rows in groups:
        order = rows.tolist()
        rng.shuffle(order)
        result.append(np.array(order, np.int64))
    return result


def _pick_later(data: ReIDData, gap: int, stride: int) -> QueryGallery:
    """The protocol `gap`."""
    pool, single = data.test, data.singles
    if len(single):
        pool = Split(
            [*pool.paths, *single.paths],
            np.concatenate([pool.pids, single.pids]),
            np.concatenate([pool.camids, single.camids]),
        )
    if not len(pool):
        raise ValueError(f'{data.root} has no test images; give test_fraction above 0, or data with a test part')
    try:
        query, gallery, query_groups, gallery_groups = pairs_after(pool.paths, pool.pids, gap, stride)
    except ValueError as error:
        raise ValueError(f'{data.root}, protocol gap: {error}') from error
    parts = replace(pool.subset(query), groups=query_groups), replace(pool.subset(gallery), groups=gallery_groups)
    return QueryGallery(*parts, False)


def _one_by_each_camera(test: Split, seed: int | Sequence[int]) -> np.ndarray:
    """`(N,)` bool, the queries of `cross-camera`."""
    rng = np.random.default_rng(seed)
    _, pairs = np.unique(np.stack([test.pids, test.camids]), axis=1, return_inverse=True)
    is_query = np.zeros(len(test), bool)
    is_query[[rng.choice(rows) for rows in rows_by_key(pairs.ravel())]] = True
    for rows in rows_by_key(test.pids):
        if is_query[rows].all():
            is_query[rng.choice(rows)] = False
    return is_query
