"""Exact search of many queries at once: one pass over all vectors of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .filters import Filter
from .rows import Columns

if TYPE_CHECKING:
    from .store import Store

__all__ = ['stream_search']

_QUERIES = 1024  # in one pass; their products with a batch are the memory that it takes
_KEYS = 2000  # asked for at once


def stream_search(
    store: Store, vectors: np.ndarray, top: int, columns: Sequence[str], where: Filter | None = None
) -> list[Columns]:
    """What `store.search(vectors, top, where, columns, exact=True)` gives, by `store.scan` and products of numpy."""
    results: list[Columns] = []
    for start in range(0, len(vectors), _QUERIES):
        keys, similarities = _best(store, vectors[start : start + _QUERIES], top, where or Filter())
        rows = _fetch(store, {key for found in keys for key in found}, columns)
        for found, values in zip(keys, similarities, strict=True):
            there = [(rows[key], value) for key, value in zip(found, values, strict=True) if key in rows]
            part: Columns = {name: [row[place] for row, _ in there] for place, name in enumerate(columns)}
            if 'vector' in part:
                part['vector'] = np.asarray(part['vector'], np.float32).reshape(-1, store.width)
            results.append({**part, 'similarity': [float(value) for _, value in there]})
    return results


def _best(store: Store, vectors: np.ndarray, top: int, where: Filter) -> tuple[list[list[str]], list[list[float]]]:
    """Keys and cosines of the `top` most similar rows, best first; equal ones by key."""
    best = np.empty((len(vectors), 0), np.float32)
    keys = np.empty((len(vectors), 0), object)
    for batch in store.scan(where, ('key', 'vector'), 8192):
        values = vectors @ batch['vector'].T
        names = np.array(batch['key'], object)
        place = _largest(values, top)
        best = np.concatenate([best, np.take_along_axis(values, place, 1)], axis=1)
        keys = np.concatenate([keys, names[place]], axis=1)
        place = _largest(best, top)
        best, keys = np.take_along_axis(best, place, 1), np.take_along_axis(keys, place, 1)
    ranked = [
        sorted(zip(row.tolist(), names.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
        for row, names in zip(best, keys, strict=True)
    ]
    return [[key for _, key in row] for row in ranked], [[value for value, _ in row] for row in ranked]


def _largest(values: np.ndarray, top: int) -> np.ndarray:
    if values.shape[1] <= top:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, values.shape[1] - top, axis=1)[:, -top:]


def _fetch(store: Store, keys: set[str], columns: Sequence[str]) -> dict[str, tuple]:
    names = [*columns] if 'key' in columns else ['key', *columns]
    rows: dict[str, tuple] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _KEYS):
        for batch in store.scan(Filter(keys=ordered[start : start + _KEYS]), names):
            values = zip(*(batch[name] for name in columns), strict=True)
            rows.update(zip(batch['key'], values, strict=True))
    return rows
