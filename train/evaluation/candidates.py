"""Which gallery images count for which query of a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .inputs import as_labels, check_length

__all__ = ['Candidates']


class Candidates:
    """Which gallery images share an identity with which query, which of them count, and which are junk.

    Args:
        shape: numbers of queries and of gallery images.
        pids, camids, files: labels of both sides, see `evaluate`; None where they are unknown.
        exclude_same_camera, junk_pids: see `evaluate`.
        device: of what `pairs` returns.

    Raises:
        ValueError: labels of one side only, or of another length.
        TypeError: labels that are not whole numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        pids: tuple[Any, Any],
        camids: tuple[Any, Any],
        files: tuple[Any, Any],
        exclude_same_camera: bool | None,
        junk_pids: Sequence[int],
        device: torch.device,
    ) -> None:
        self.query_pids, self.gallery_pids = _checked('pids', pids, shape)
        cameras, self.files = _checked('camids', camids, shape), _checked('files', files, shape)
        one_side = [what for what, labels in (('cameras', cameras), ('files', self.files)) if _one_side(labels)]
        if 'files' in one_side or (one_side and exclude_same_camera is None):
            raise ValueError(f'{one_side[-1]} of queries and gallery are needed, not only one of them')
        if exclude_same_camera is None:
            exclude_same_camera = cameras[0] is not None
        if exclude_same_camera and any(labels is None for labels in cameras):
            raise ValueError('exclude_same_camera needs query_camids and gallery_camids')
        self.camids = cameras if exclude_same_camera else None

        # numpy: of arrays as small as these, threads would only wait for each other
        self.device, (self.queries, self.gallery) = device, shape
        self.junk = torch.from_numpy(np.flatnonzero(np.isin(self.gallery_pids, list(junk_pids)))).to(device)
        self.junk_queries = torch.from_numpy(np.isin(self.query_pids, list(junk_pids))).to(device)
        self._by_pid = _Join(self.query_pids, self.gallery_pids)
        self._by_pid.count[np.isin(self.query_pids, list(junk_pids))] = 0
        self._by_file = None if self.files[0] is None else _Join(*self.files)
        self.most = self._by_pid.most + (self._by_file.most if self._by_file else 0)

    def pairs(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The pairs that are no negatives: those of one identity, and those of one file.

        Returns:
            Rows (from 0 at `start`), in ascending order as far as they are positives, and columns of the pairs, and
            which of them are positives; None for all.
        """
        rows, columns = self._by_pid.pairs(start, stop)
        positive = None
        if self.camids is not None:
            positive = self.camids[0][start:stop][rows] != self.camids[1][columns]
        if self._by_file is not None:
            other = self.files[0][start:stop][rows] != self.files[1][columns]
            positive = other if positive is None else positive & other
            # of another identity, too: a label that is wrong
            same = self._by_file.pairs(start, stop)
            rows, columns = np.concatenate([rows, same[0]]), np.concatenate([columns, same[1]])
            positive = np.concatenate([positive, np.zeros(len(same[0]), bool)])
        result = [torch.from_numpy(x).to(self.device) for x in (rows, columns, positive) if x is not None]
        return result[0], result[1], result[2] if len(result) == 3 else None


def _one_side(labels: list[Any]) -> bool:
    return (labels[0] is None) != (labels[1] is None)


class _Join:
    """Pairs of queries and gallery images with equal labels."""

    def __init__(self, query: np.ndarray, gallery: np.ndarray) -> None:
        self.order = np.argsort(gallery, kind='stable')
        ordered = gallery[self.order]
        self.first = np.searchsorted(ordered, query)
        self.count = np.searchsorted(ordered, query, side='right') - self.first

    @property
    def most(self) -> int:
        """The most pairs of one query."""
        return int(self.count.max(initial=0))

    def pairs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (from 0 at `start`, ascending) and columns."""
        first, count = self.first[start:stop], self.count[start:stop]
        rows = np.repeat(np.arange(stop - start), count)
        return rows, self.order[np.arange(len(rows)) + np.repeat(first - (count.cumsum() - count), count)]


def _checked(name: str, pair: tuple[Any, Any], shape: tuple[int, ...]) -> list[Any]:
    """Labels of queries and gallery as `(N,)` int64; None stays."""
    labels = []
    for side, values, length in zip(('query', 'gallery'), pair, shape, strict=True):
        if values is not None:
            values = as_labels(values, f'{side}_{name}')
            check_length(values, length, f'{side}_{name}')
        labels.append(values)
    return labels
