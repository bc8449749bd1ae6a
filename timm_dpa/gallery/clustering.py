"""Which tracks show one vehicle: provisional vehicles by agglomeration, and how good they are.

Tracks are merged by average linkage, the most similar two groups first, until no two groups are as similar as a
threshold. The similarity of two groups is the mean of the cosines between the tracks of one and of the other, as in
scipy's `linkage(method='average', metric='cosine')`. Linkage of the libraries knows no constraints; here two tracks
that one camera saw at one time never come into one group, and neither do groups that contain them.

No matrix of all pairs is kept. A mean that reaches the threshold needs a pair that does, so that only these pairs are
candidates, and the mean itself comes from the sums of the unit vectors of the groups. Memory is that of the vectors and
4 bytes for each candidate and direction; time is that of one product of all vectors with all, block by block, and a few
products of a group with its candidates for each merge.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ['MOST_CANDIDATES', 'PairScores', 'cannot_link', 'cluster_tracks', 'pair_scores']

#: candidates, counted in both directions: 0.4 GB
MOST_CANDIDATES = 100_000_000
_BLOCK = 4_000_000  # numbers in a block of the product of all vectors with all


def cannot_link(
    track: np.ndarray, camera: Sequence[str | None] | np.ndarray, time: Sequence[int | None] | np.ndarray
) -> np.ndarray:
    """Pairs of tracks that one camera saw at one time, and that are two vehicles therefore.

    Args:
        track: `(N,)` integers, the track of each image.
        camera: N names; None or empty where it is unknown.
        time: N times, all in one unit; None where it is unknown. Images of one frame have one time.

    Returns:
        `(P, 2)` int64, ascending; each pair once, the smaller number first. Images of which the camera or the time is
        unknown forbid nothing.

    Raises:
        ValueError: numbers of images that differ.
    """
    track = np.asarray(track, np.int64)
    if not len(track) == len(camera) == len(time):
        raise ValueError(
            f'{len(track)} tracks, {len(camera)} cameras and {len(time)} times; each image has one of each'
        )
    known = np.array([bool(c) and t is not None for c, t in zip(camera, time, strict=True)], bool)
    if not known.any():
        return np.empty((0, 2), np.int64)
    cameras = np.unique([str(c) for c, k in zip(camera, known, strict=True) if k], return_inverse=True)[1]
    times = np.unique([int(t) for t, k in zip(time, known, strict=True) if k and t is not None], return_inverse=True)[1]
    rows = np.unique(np.stack([cameras * (times.max() + 1) + times, track[known]], 1), axis=0)
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    lengths = np.diff([*starts, len(rows)])
    pairs: set[int] = set()
    base = int(track.max()) + 1
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        together = rows[start : start + length, 1]
        first, second = np.triu_indices(length, 1)
        pairs.update((together[first] * base + together[second]).tolist())
    codes = np.array(sorted(pairs), np.int64)
    return np.stack([codes // base, codes % base], 1)


def cluster_tracks(vectors: np.ndarray, threshold: float, forbidden: np.ndarray | None = None) -> np.ndarray:
    """Groups of tracks that show one vehicle, by average linkage that some pairs are excluded from.

    Args:
        vectors: `(N, D)` of unit length, one for each track, see `timm_dpa.gallery.provisional.read_tracks`.
        threshold: cosine in -1..1 that the mean between two groups must reach; they are merged then.
        forbidden: `(P, 2)` rows of tracks that are two vehicles, see `cannot_link`.

    Returns:
        `(N,)` int64, the group of each track, numbered from 0 in the order of their first tracks.

    Raises:
        ValueError: vectors that are not finite or not of unit length, a threshold or rows out of range, or more than
            `MOST_CANDIDATES` pairs that reach the threshold, counted in both directions.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2:
        raise ValueError(f'vectors must be (N, D), not {vectors.shape}')
    if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3).all():
        raise ValueError('vectors must be finite and of unit length')
    if not -1 <= threshold <= 1:
        raise ValueError(f'the threshold must be a cosine in -1..1, not {threshold}')
    pairs = np.empty((0, 2), np.int64) if forbidden is None else np.asarray(forbidden, np.int64).reshape(-1, 2)
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(vectors)):
        raise ValueError(f'forbidden pairs must be of rows 0..{len(vectors) - 1}')
    return _Agglomeration(vectors, threshold, pairs).run()


class _Agglomeration:
    """Groups are known by the row of their first track.

    The heap has an entry for each group: its most similar other group when that was last looked for. What has been
    merged since can only be less similar to it, so that the top of the heap, where both groups are unchanged, is the
    most similar pair of all.
    """

    def __init__(self, vectors: np.ndarray, threshold: float, forbidden: np.ndarray) -> None:
        count = len(vectors)
        self.threshold = threshold
        self.sums = vectors.copy()
        self.sizes = np.ones(count, np.int64)
        self.versions = np.zeros(count, np.int64)
        self.parents = np.arange(count)
        both = np.concatenate([forbidden, forbidden[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        self.excluded = np.split(both[:, 1].astype(np.int32), np.searchsorted(both[:, 0], np.arange(1, count)))
        self.candidates: list[np.ndarray] = []
        self.heap: list[tuple[float, int, int, int, int]] = []
        for row, candidates, similarities in self._candidates(vectors):
            self.candidates.append(candidates)
            if len(candidates):
                best = int(similarities.argmax())
                self.heap.append((-float(similarities[best]), row, int(candidates[best]), 0, 0))
        heapq.heapify(self.heap)

    def _candidates(self, vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each row, those that reach the threshold with it and are not excluded, and their cosines."""
        total, step = 0, max(1, _BLOCK // max(1, len(vectors)))
        for start in range(0, len(vectors), step):
            block = vectors[start : start + step] @ vectors.T
            for row, cosines in enumerate(block, start=start):
                cosines[row] = -np.inf
                cosines[self.excluded[row]] = -np.inf
                reached = np.flatnonzero(cosines >= self.threshold).astype(np.int32)
                total += len(reached)
                if total > MOST_CANDIDATES:
                    raise ValueError(
                        f'more than {MOST_CANDIDATES // 2} pairs of the {len(vectors)} tracks reach the threshold '
                        f'{self.threshold:g}; raise it'
                    )
                yield row, reached, cosines[reached]

    def run(self) -> np.ndarray:
        while self.heap:
            _, first, second, *versions = heapq.heappop(self.heap)
            if self.parents[first] != first or self.versions[first] != versions[0]:
                continue  # merged since, and has an entry of its own
            if self.parents[second] == second and self.versions[second] == versions[1]:
                first = self._merge(min(first, second), max(first, second))
            self._look_for_best(first)
        roots = self._current(np.arange(len(self.parents)))
        return np.unique(roots, return_inverse=True)[1].astype(np.int64)

    def _merge(self, into: int, other: int) -> int:
        self.parents[other] = into
        self.sums[into] += self.sums[other]
        self.sizes[into] += self.sizes[other]
        self.versions[into] += 1
        for lists in (self.candidates, self.excluded):
            lists[into] = np.concatenate([lists[into], lists[other]])
            lists[other] = np.empty(0, np.int32)
        return into

    def _look_for_best(self, group: int) -> None:
        """Put the entry of a group on the heap, unless nothing is similar enough to it any more.

        What is not similar enough now cannot become so by merges of the other group, except with one that is itself,
        and that has this group among its own candidates.
        """
        excluded = self.excluded[group] = self._current(self.excluded[group], unique=True)
        others = self._current(self.candidates[group], unique=True)
        others = others[(others != group) & ~np.isin(others, excluded, assume_unique=True)]
        means = self.sums[others] @ self.sums[group] / (self.sizes[others] * self.sizes[group])
        near = means >= self.threshold
        self.candidates[group], means = others[near], means[near]
        if len(means):
            best = int(means.argmax())
            other = int(self.candidates[group][best])
            versions = int(self.versions[group]), int(self.versions[other])
            heapq.heappush(self.heap, (-float(means[best]), group, other, *versions))

    def _current(self, rows: np.ndarray, unique: bool = False) -> np.ndarray:
        """The groups that these tracks, or groups of earlier, belong to now."""
        while True:
            upper = self.parents[rows]
            if (upper == rows).all():
                return np.unique(rows).astype(np.int32) if unique else rows
            rows = upper


@dataclass(frozen=True)
class PairScores:
    """Of all pairs of tracks: how many that are said to be one vehicle are, and how many that are one are said to be.

    Attributes:
        precision: share in 0..1 of the pairs in one group that are of one vehicle; 1 where there are none.
        recall: share in 0..1 of the pairs of one vehicle that are in one group; 1 where there are none.
        f1: their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


def pair_scores(vehicles: Sequence[object] | np.ndarray, groups: Sequence[object] | np.ndarray) -> PairScores:
    """Pairwise precision, recall and F1 of groups, given the vehicles.

    Raises:
        ValueError: numbers of tracks that differ.
    """
    truth, found = (np.unique(np.asarray(each), return_inverse=True)[1].astype(np.int64) for each in (vehicles, groups))
    if len(truth) != len(found):
        raise ValueError(f'{len(truth)} vehicles for {len(found)} tracks in groups')

    def pairs(labels: np.ndarray) -> int:
        sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
        return int((sizes * (sizes - 1) // 2).sum())

    right = pairs(truth * (found.max(initial=0) + 1) + found)
    said, there = pairs(found), pairs(truth)
    return PairScores(
        right / said if said else 1.0,
        right / there if there else 1.0,
        2 * right / (said + there) if said + there else 1.0,
    )
