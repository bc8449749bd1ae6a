"""Ranking what a store finds: by image or by track, with k-reciprocal re-ranking, and the recall of an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .filters import Filter
from .rows import LIGHT, GalleryRow, to_rows
from .store import Store

__all__ = ['GalleryMatch', 'Reranker', 'Task', 'measure_recall']

#: queries `(Q, D)` and gallery `(G, D)` -> distances `(Q, G)`
Reranker = Callable[[np.ndarray, np.ndarray], Any]

_MOST = 16_384  # rows that are asked for to find enough tracks
_DIGITS = 6  # in which similarities are compared: those of equal vectors may differ in the seventh


@dataclass(frozen=True)
class GalleryMatch:
    """One place in a ranking.

    Attributes:
        rank: from 1.
        similarity: cosine, -1..1; of a track that of its best image.
        row: the image; it has no vector and no thumbnail, `Gallery.rows` reads them.
        images: of its track that `where` lets count; 1 by image.
        mean: of a track the mean cosine of these images; None by image.
    """

    rank: int
    similarity: float
    row: GalleryRow
    images: int = 1
    mean: float | None = None


@dataclass
class _Found:
    similarity: float
    row: GalleryRow


@dataclass(frozen=True)
class Task:
    """One search."""

    store: Store
    where: Filter
    exact: bool
    rerank: int
    reranker: Reranker | None

    def by_image(self, queries: np.ndarray, top: int, exclude: Sequence[frozenset[str]]) -> list[list[GalleryMatch]]:
        results = self._find(queries, max(top, self.rerank), exclude)
        return [
            [GalleryMatch(rank, found.similarity, _light(found.row)) for rank, found in enumerate(some[:top], 1)]
            for some in results
        ]

    def by_track(self, queries: np.ndarray, top: int, exclude: Sequence[frozenset[str]]) -> list[list[GalleryMatch]]:
        wanted = max(8 * top, 100, self.rerank)
        best: list[list[_Found]] = [[] for _ in queries]
        pending = list(range(len(queries)))
        while pending:
            some = self._find(queries[pending], wanted, [exclude[index] for index in pending])
            short = []
            for index, found in zip(pending, some, strict=True):
                firsts: dict[Any, _Found] = {}
                for entry in found:  # best first
                    firsts.setdefault(_group(entry.row), entry)
                best[index] = list(firsts.values())
                if len(best[index]) < top and len(found) >= wanted and wanted < _MOST:
                    short.append(index)
            pending, wanted = short, min(4 * wanted, _MOST)
        best = [found[:top] for found in best]
        vectors = self._tracks({entry.row.track for found in best for entry in found if entry.row.track})
        rankings = []
        for query, found, left_out in zip(queries, best, exclude, strict=True):
            ranked = []
            for rank, entry in enumerate(found, 1):
                cosines = [float(v @ query) for key, v in vectors.get(entry.row.track, ()) if key not in left_out]
                cosines = cosines or [entry.similarity]
                mean = float(np.mean(cosines))
                ranked.append(GalleryMatch(rank, entry.similarity, _light(entry.row), len(cosines), mean))
            rankings.append(ranked)
        return rankings

    def _find(self, queries: np.ndarray, wanted: int, exclude: Sequence[frozenset[str]]) -> list[list[_Found]]:
        more = max(map(len, exclude), default=0)
        columns = (*LIGHT, 'vector') if self.rerank else LIGHT
        results = []
        for query, left_out, part in zip(
            queries, exclude, self.store.search(queries, wanted + more, self.where, columns, self.exact), strict=True
        ):
            pairs = zip(part['similarity'], to_rows(part), strict=True)
            found = [_Found(min(1.0, max(-1.0, value)), row) for value, row in pairs if row.key not in left_out]
            found.sort(key=lambda entry: (-round(entry.similarity, _DIGITS), entry.row.key))
            results.append(self._reranked(query, found[:wanted]))
        return results

    def _reranked(self, query: np.ndarray, found: list[_Found]) -> list[_Found]:
        first = found[: self.rerank]
        if self.reranker is None or len(first) < 2:
            return found
        distances = np.asarray(self.reranker(query[None], np.stack([entry.row.vector for entry in first])))[0]
        return [first[place] for place in np.argsort(distances, kind='stable')] + found[self.rerank :]

    def _tracks(self, names: set[str]) -> dict[str, list[tuple[str, np.ndarray]]]:
        """Keys and vectors of the rows of tracks that count."""
        vectors: dict[str, list[tuple[str, np.ndarray]]] = {}
        ordered = sorted(names)
        for start in range(0, len(ordered), 500):
            some = ordered[start : start + 500]
            # the filter may name tracks itself, and those that were found are among them
            where = replace(self.where, tracks=some, exclude_tracks=())
            for batch in self.store.scan(where, ('key', 'track', 'vector')):
                for key, track, vector in zip(batch['key'], batch['track'], batch['vector'], strict=True):
                    vectors.setdefault(track, []).append((key, vector))
        return vectors


def _group(row: GalleryRow) -> tuple[str, str]:
    return ('track', row.track) if row.track else ('key', row.key)


def _light(row: GalleryRow) -> GalleryRow:
    row.vector = np.empty(0, np.float32)
    return row


def measure_recall(store: Store, queries: int, top: int = 10, seed: int = 0) -> tuple[float, int]:
    """Share of the exact `top` matches of rows, themselves left out, that the index finds; and of how many rows."""
    rng = np.random.default_rng(seed)
    sample: list[tuple[float, str]] = []
    for batch in store.scan(Filter(), ('key',)):
        sample += zip(rng.random(len(batch['key'])).tolist(), batch['key'], strict=True)
        sample = sorted(sample)[:queries]
    keys, vectors = [], []
    for batch in store.scan(Filter(keys=[key for _, key in sample]), ('key', 'vector')):
        keys += batch['key']
        vectors += list(batch['vector'])
    if not keys:
        return 1.0, 0
    wanted, found = (
        [
            set([name for name in part['key'] if name != key][:top])
            for key, part in zip(keys, store.search(np.stack(vectors), top + 1, Filter(), ('key',), exact), strict=True)
        ]
        for exact in (True, False)
    )
    total = sum(map(len, wanted))
    return sum(len(a & b) for a, b in zip(wanted, found, strict=True)) / max(1, total), len(keys)
