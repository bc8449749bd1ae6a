"""Verification: at which cosine two images are taken for one vehicle, how often wrongly, and how often missed.

A pair of a query and a gallery image is accepted if its cosine reaches a threshold. The false-match rate is the share
of the pairs of different vehicles that are accepted, the miss rate the share of the pairs of one vehicle that are not,
and the equal error rate both where they are equal (ISO/IEC 19795-1).

The cosines are counted in steps of 1e-5, from -1 to 1, so that memory does not grow with the pairs, and processes and
chunks add up. Thresholds are whole steps, and rates at them exact. As in `metrics`, 5e-7 below a step counts as the
step: float32 products of equal vectors differ by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from timm_dpa.tables import format_table

from .candidates import Candidates
from .inputs import as_features, checked_norms, full_precision

__all__ = ['FALSE_MATCH_RATES', 'Threshold', 'Verification', 'count_pairs', 'verification_table', 'verify']

#: rates for which thresholds are given
FALSE_MATCH_RATES = (0.001, 0.01, 0.05)

_STEPS = 100_000  # from cosine 0 to 1
_TIE = 5e-7
_BYTES = 24  # of memory for a pair in a chunk


@dataclass(frozen=True)
class Threshold:
    """A cosine from which on two images are taken for one vehicle.

    Attributes:
        false_match_rate: of the pairs of different vehicles, the share that may reach the cosine, in 0..1.
        cosine: the lowest such cosine, in steps of 1e-5; None where there is none, or there are too few pairs of
            different vehicles (less than one false match is allowed) to tell.
        miss_rate: of the pairs of one vehicle, the share below the cosine, in 0..1; None without one.
    """

    false_match_rate: float
    cosine: float | None
    miss_rate: float | None


@dataclass(frozen=True)
class Verification:
    """How well a cosine tells pairs of one vehicle from pairs of different ones.

    Attributes:
        same_pairs, different_pairs: numbers of pairs of one vehicle, and of different ones.
        equal_error_rate: in 0..1; mean of both rates where they are closest.
        equal_error_cosine: the middle of the cosines where they are.
        thresholds: for each of the rates.
    """

    same_pairs: int
    different_pairs: int
    equal_error_rate: float
    equal_error_cosine: float
    thresholds: tuple[Threshold, ...]

    @classmethod
    def of(
        cls, same: np.ndarray, different: np.ndarray, rates: Sequence[float] = FALSE_MATCH_RATES
    ) -> Verification | None:
        """From what `count_pairs` counts; None without pairs of either kind."""
        total_same, total_different = int(same.sum()), int(different.sum())
        if not (total_same and total_different):
            return None
        # entry k: the threshold is step k; the last is above all
        accepted = np.append(different[::-1].cumsum()[::-1], 0)
        missed = np.insert(same.cumsum(), 0, 0)
        gaps = np.abs(accepted / total_different - missed / total_same)
        closest = np.flatnonzero(gaps == gaps.min())
        middle = int(closest[len(closest) // 2])
        thresholds = []
        for rate in rates:
            allowed = rate * total_different * (1 + 1e-12)  # 0.07 * 100 is a little more than 7
            step = int(np.argmax(accepted <= allowed))
            known = allowed >= 1 and step < len(different)
            miss = float(missed[step] / total_same) if known else None
            thresholds.append(Threshold(rate, _cosine(step) if known else None, miss))
        return cls(
            total_same,
            total_different,
            float(accepted[middle] / total_different + missed[middle] / total_same) / 2,
            _cosine(middle),
            tuple(thresholds),
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), 'thresholds': [asdict(threshold) for threshold in self.thresholds]}


def _cosine(step: int) -> float:
    return (step - _STEPS) / _STEPS


def verify(
    query: Any,
    gallery: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any = None,
    gallery_camids: Any = None,
    *,
    exclude_same_camera: bool | None = None,
    query_files: Any = None,
    gallery_files: Any = None,
    junk_pids: Sequence[int] = (-1,),
    rates: Sequence[float] = FALSE_MATCH_RATES,
    device: torch.device | str | None = None,
    chunk_bytes: int = 64 << 20,
) -> Verification | None:
    """Verification over the pairs that count in a ranking; None if they are all of one kind.

    Args:
        query, gallery, query_pids, gallery_pids, query_camids, gallery_camids: see `metrics.evaluate`.
        exclude_same_camera, query_files, gallery_files, junk_pids, device, chunk_bytes: see `metrics.evaluate`.
        rates: false-match rates in 0..1.

    Raises:
        ValueError, TypeError: as `metrics.evaluate`, but no query needs a positive.
    """
    query, gallery = as_features(query, 'query'), as_features(gallery, 'gallery')
    candidates = Candidates(
        (len(query), len(gallery)),
        (query_pids, gallery_pids),
        (query_camids, gallery_camids),
        (query_files, gallery_files),
        exclude_same_camera,
        junk_pids,
        gallery.device if device is None else torch.device(device),
    )
    counted = count_pairs(query, np.arange(len(query)), gallery, candidates, chunk_bytes=chunk_bytes)
    return Verification.of(*counted, rates)


def count_pairs(
    embeddings: Any, queries: np.ndarray, gallery: Any, candidates: Candidates, *, chunk_bytes: int = 64 << 20
) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs of one vehicle, and of different ones, have which cosine.

    Args:
        embeddings: `(N, D)` floating-point tensor or array.
        queries: rows of the queries among them; rows of `candidates` in the same order.
        gallery: `(G, D)`.
        candidates: which pairs count.
        chunk_bytes: memory for pairs at a time; a chunk has one query at least.

    Returns:
        Two arrays `(200001,)` int64, for the cosines -1, -0.99999, ..., 1.

    Raises:
        ValueError: embeddings with NaN or infinite numbers.
    """
    embeddings, gallery = as_features(embeddings, 'query'), as_features(gallery, 'gallery')
    device, bins = candidates.device, 2 * _STEPS + 1
    same, different = (torch.zeros(bins, dtype=torch.int64) for _ in range(2))
    with torch.no_grad(), full_precision(device.type):
        checked_norms(embeddings, 'query')
        checked_norms(gallery, 'gallery')
        gallery = torch.nn.functional.normalize(gallery.to(device, torch.float32), dim=1)
        step = max(1, chunk_bytes // (_BYTES * max(1, len(gallery))))
        for start in range(0, len(queries), step):
            stop = min(start + step, len(queries))
            rows = torch.from_numpy(queries[start:stop]).to(embeddings.device)
            chunk = torch.nn.functional.normalize(embeddings[rows].to(device, torch.float32), dim=1)
            steps = (chunk @ gallery.T).add_(1 + _TIE).mul_(_STEPS).floor_().clamp_(0, bins - 1).to(torch.int64)
            counted = torch.ones_like(steps, dtype=torch.bool)
            rows, columns, positive = candidates.pairs(start, stop)
            counted[rows, columns] = False
            counted[:, candidates.junk] = False
            counted[candidates.junk_queries[start:stop]] = False
            if positive is not None:
                rows, columns = rows[positive], columns[positive]
            same += torch.bincount(steps[rows, columns], minlength=bins).cpu()
            different += torch.bincount(steps[counted], minlength=bins).cpu()
    return same.numpy(), different.numpy()


def verification_table(result: Verification, markdown: bool = False) -> str:
    """The rates in %, a row for each, below a line that says what they were measured on."""
    rows = [['False matches', 'Cosine', 'Misses']]
    for each in result.thresholds:
        cells = ['-', '-'] if each.cosine is None else [f'{each.cosine:.4f}', f'{100 * (each.miss_rate or 0):.2f} %']
        rows.append([f'{100 * each.false_match_rate:g} %', *cells])
    return (
        f'Same vehicle or not, by the cosine of {result.same_pairs:,} pairs of one vehicle and '
        f'{result.different_pairs:,} of different ones: equal error rate {100 * result.equal_error_rate:.2f} % at '
        f'{result.equal_error_cosine:.4f}\n\n' + format_table(rows, numeric=(0, 1, 2), markdown=markdown)
    )
