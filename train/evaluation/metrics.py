"""Ranking metrics of re-identification: CMC (rank-k), mAP and mINP, from embeddings or from distances.

Only the positives of a query, its gallery images of the same identity, need a rank:

    rank of the k-th nearest positive = k + number of negatives that are as near as it or nearer

so a negative at the same distance counts as nearer, whatever the order of the gallery: a model that gives every image
the same embedding gets the worst score there is, not the score of a lucky order. Positives tied with each other take
consecutive ranks. Float32 products of equal vectors differ in their last digits by where they stand in a matrix, so
`evaluate` takes cosines that differ by up to 5e-7 as equal, and distances likewise; `evaluate_distances` compares as
given.

Per query with n positives at ranks r(1) < ... < r(n): average precision AP = mean of k / r(k), inverse negative penalty
INP = n / r(n) (Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021), and a hit
within rank k if r(1) <= k. Queries without a positive do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .candidates import Candidates
from .counting import count_reaching
from .inputs import as_features, as_labels, check_length, checked_norms, full_precision

__all__ = ['DrawMetrics', 'RankingMetrics', 'draw_gallery', 'evaluate', 'evaluate_distances', 'evaluate_draws']

_TIE = 5e-7


@dataclass(frozen=True, eq=False)
class RankingMetrics:
    """Metrics of a ranking; all in 0..1.

    Attributes:
        cmc: `(max_rank,)` float64, share of the valid queries with a positive among the k nearest, k = 1..max_rank.
        mAP: mean average precision over the valid queries.
        mINP: mean inverse negative penalty over the valid queries.
        ap: `(Q,)` float64, average precision of each query; NaN without a positive.
        inp: `(Q,)` float64, inverse negative penalty of each query; NaN without a positive.
        first_match: `(Q,)` int64, rank (from 1) of the nearest positive of each query; 0 without one.
    """

    cmc: np.ndarray
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    ap: np.ndarray
    inp: np.ndarray
    first_match: np.ndarray

    @property
    def queries(self) -> int:
        return len(self.ap)

    @property
    def valid_queries(self) -> int:
        """Queries with at least one positive."""
        return int(np.count_nonzero(self.first_match))

    def rank(self, k: int) -> float:
        """CMC at rank k, from 1."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f'k must be 1..{len(self.cmc)}, not {k}; evaluate with a greater max_rank')
        return float(self.cmc[k - 1])

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers: mAP, mINP, rank1, rank5, rank10, rank20, rank50 (up to max_rank), valid_queries, queries."""
        ranks = {f'rank{k}': self.rank(k) for k in (1, 5, 10, 20, 50) if k <= len(self.cmc)}
        counts = {'valid_queries': self.valid_queries, 'queries': self.queries}
        return {'mAP': self.mAP, 'mINP': self.mINP, **ranks, **counts}


@dataclass(frozen=True, eq=False)
class DrawMetrics:
    """Metrics of several random galleries.

    Attributes:
        mean: the mean over the draws of each number of `RankingMetrics.as_dict`.
        std: their sample standard deviation; 0 of a single draw.
        draws: the metrics of each draw.
    """

    mean: dict[str, float]
    std: dict[str, float]
    draws: list[RankingMetrics]

    @classmethod
    def of(cls, draws: list[RankingMetrics]) -> DrawMetrics:
        table = [draw.as_dict() for draw in draws]
        columns = {name: [row[name] for row in table] for name in table[0]}
        return cls(
            mean={name: float(np.mean(column)) for name, column in columns.items()},
            std={name: float(np.std(column, ddof=1)) if len(draws) > 1 else 0.0 for name, column in columns.items()},
            draws=draws,
        )

    @property
    def cmc(self) -> np.ndarray:
        """`(max_rank,)` float64, the mean CMC curve."""
        return np.mean([draw.cmc for draw in self.draws], axis=0)


def evaluate(
    query: Any,
    gallery: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any = None,
    gallery_camids: Any = None,
    *,
    metric: str = 'cosine',
    exclude_same_camera: bool | None = None,
    query_files: Any = None,
    gallery_files: Any = None,
    junk_pids: Sequence[int] = (-1,),
    max_rank: int = 50,
    device: torch.device | str | None = None,
    chunk_bytes: int = 64 << 20,
    distributed: bool = False,
) -> RankingMetrics:
    """Rank the gallery for each query by their embeddings, and score the ranking.

    Computed in float32, whatever the precision of the embeddings, by chunks of queries.

    Args:
        query: `(Q, D)` floating-point tensor or array; memory-mapped is fine.
        gallery: `(G, D)`.
        query_pids: `(Q,)` whole numbers, the identities.
        gallery_pids: `(G,)`.
        query_camids: `(Q,)` whole numbers, the cameras; None if unknown.
        gallery_camids: `(G,)`.
        metric: 'cosine', or 'euclidean' of the embeddings as they are.
        exclude_same_camera: leave out gallery images of the query's identity AND camera, neither positives nor
            negatives. None does so if cameras are given.
        query_files: `(Q,)` whole numbers, see `file_numbers`: a gallery image with the number of the query is the very
            same file and left out, whatever its identity. None if unknown.
        gallery_files: `(G,)`.
        junk_pids: identities that are left out of the gallery and are no queries.
        max_rank: length of the CMC curve.
        device: where to compute; None for the gallery's.
        chunk_bytes: memory for similarities at a time; a chunk has 8 queries at least.
        distributed: each process of the default group, all called with the same data, ranks its share of the queries;
            all get the metrics of the whole. Off, a process computes alone, even in a group.

    Raises:
        ValueError: embeddings with NaN or infinite numbers, lengths or widths that differ, or no query with a positive.
        TypeError: embeddings that are not floating-point, identities or cameras that are not whole numbers.
    """
    query, gallery = as_features(query, 'query'), as_features(gallery, 'gallery')
    return _evaluate(
        query,
        None,
        gallery,
        Candidates(
            (len(query), len(gallery)),
            (query_pids, gallery_pids),
            (query_camids, gallery_camids),
            (query_files, gallery_files),
            exclude_same_camera,
            junk_pids,
            gallery.device if device is None else torch.device(device),
        ),
        metric,
        max_rank,
        chunk_bytes,
        distributed,
    )


def evaluate_distances(
    distances: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_camids: Any = None,
    gallery_camids: Any = None,
    *,
    exclude_same_camera: bool | None = None,
    query_files: Any = None,
    gallery_files: Any = None,
    junk_pids: Sequence[int] = (-1,),
    max_rank: int = 50,
    chunk_bytes: int = 64 << 20,
) -> RankingMetrics:
    """Score the ranking of a distance matrix; otherwise as `evaluate`.

    Args:
        distances: `(Q, G)` finite floating-point tensor or array, smaller is nearer; memory-mapped is fine, as it is
            read by chunks. float64 is compared as such, other precisions as float32.

    Raises:
        ValueError: distances with NaN or infinite numbers, lengths that differ, or no query with a positive.
        TypeError: distances that are not floating-point, identities or cameras that are not whole numbers.
    """
    distances = as_features(distances, 'distances')
    candidates = Candidates(
        tuple(distances.shape),
        (query_pids, gallery_pids),
        (query_camids, gallery_camids),
        (query_files, gallery_files),
        exclude_same_camera,
        junk_pids,
        distances.device,
    )
    dtype = torch.float64 if distances.dtype == torch.float64 else torch.float32

    def similarities(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        chunk = distances[start:stop].to(dtype).neg()
        finite = chunk.isfinite().all(dim=1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            raise ValueError(f'distances of query {row} have NaN or infinite numbers')
        return chunk, chunk.new_zeros(len(chunk))

    return _score(similarities, candidates, max_rank, chunk_bytes * 4 // dtype.itemsize, distributed=False)


def draw_gallery(pids: Any, seed: int | Sequence[int] = 0) -> tuple[np.ndarray, np.ndarray]:
    """The VRU protocol: one random image of each vehicle is the gallery, all the others are queries.

    Args:
        pids: `(N,)` whole numbers, the identities.
        seed: of the draw.

    Returns:
        Query rows and gallery rows, int64 in ascending order.
    """
    pids = as_labels(pids, 'pids')
    shuffled = np.random.default_rng(seed).permutation(len(pids))
    gallery = np.sort(shuffled[np.unique(pids[shuffled], return_index=True)[1]])
    return np.delete(np.arange(len(pids)), gallery), gallery


def evaluate_draws(
    embeddings: Any,
    pids: Any,
    draws: int = 10,
    seed: int = 0,
    *,
    files: Any = None,
    metric: str = 'cosine',
    max_rank: int = 50,
    device: torch.device | str | None = None,
    chunk_bytes: int = 64 << 20,
    distributed: bool = False,
) -> DrawMetrics:
    """Metrics of `draws` random galleries of `draw_gallery`, whose seeds are `(seed, 0)`, `(seed, 1)`, ...

    No camera plays a part and no identity is junk. With one positive a query, mINP equals mAP.

    Args:
        embeddings: `(N, D)` floating-point tensor or array.
        pids: `(N,)` whole numbers, the identities.
        draws: how many galleries.
        seed: of the draws.
        files: `(N,)` whole numbers, see `evaluate`; None if unknown.
        metric, max_rank, device, chunk_bytes, distributed: as `evaluate`.

    Raises:
        ValueError, TypeError: as `evaluate`; also for `draws` below 1.
    """
    if draws < 1:
        raise ValueError(f'draws must be at least 1, not {draws}')
    embeddings, pids = as_features(embeddings, 'embeddings'), as_labels(pids, 'pids')
    device = embeddings.device if device is None else torch.device(device)
    check_length(pids, len(embeddings), 'pids')
    files = None if files is None else as_labels(files, 'files')
    results = []
    for draw in range(draws):
        queries, gallery = draw_gallery(pids, (seed, draw))
        candidates = Candidates(
            (len(queries), len(gallery)),
            (pids[queries], pids[gallery]),
            (None, None),
            (None, None) if files is None else (files[queries], files[gallery]),
            None,
            (),
            device,
        )
        asking, given = (torch.from_numpy(rows).to(embeddings.device) for rows in (queries, gallery))
        results.append(
            _evaluate(embeddings, asking, embeddings[given], candidates, metric, max_rank, chunk_bytes, distributed)
        )
    return DrawMetrics.of(results)


def _evaluate(
    embeddings: torch.Tensor,
    rows: torch.Tensor | None,
    gallery: torch.Tensor,
    candidates: Candidates,
    metric: str,
    max_rank: int,
    chunk_bytes: int,
    distributed: bool,
) -> RankingMetrics:
    """`evaluate` with the embeddings of queries (all, or these rows) still where and what they were."""
    if metric not in ('cosine', 'euclidean'):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', not {metric!r}")
    if embeddings.shape[1] != gallery.shape[1]:
        raise ValueError(
            f'query embeddings have {embeddings.shape[1]} numbers, gallery embeddings {gallery.shape[1]}: not of one '
            'model'
        )
    device = candidates.device
    with torch.no_grad(), full_precision(device.type):
        gallery = gallery.to(device, torch.float32)
        norms = checked_norms(gallery, 'gallery')
        query_norms = checked_norms(embeddings, 'query').to(device)
        # what all have in common would only cost digits
        center = gallery.mean(dim=0) if metric == 'euclidean' and len(gallery) else None
        if center is not None:
            gallery = gallery - center
            norms = torch.linalg.vector_norm(gallery, dim=1)
            query_norms = torch.cat(
                [
                    torch.linalg.vector_norm(part.to(device).float() - center, dim=1)
                    for part in embeddings.split(1 << 13)
                ]
            )
        if rows is not None:
            query_norms = query_norms[rows.to(device)]
        # a scale and an offset of the columns, as the query's norm changes nothing about its ranking
        scale = 1 / norms.clamp(min=1e-12)
        offset = norms.square() / 2
        largest = norms.max() if len(norms) else norms.new_zeros(())
        buffer = gallery.new_empty(0)

        def similarities(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal buffer
            chunk = embeddings[start:stop] if rows is None else embeddings[rows[start:stop]]
            size = (stop - start) * len(gallery)
            if len(buffer) < size:  # once: fresh memory costs more than the arithmetic on it
                buffer = gallery.new_empty(size)
            out = buffer[:size].view(stop - start, len(gallery))
            chunk = chunk.to(device, torch.float32)
            torch.mm(chunk if center is None else chunk - center, gallery.T, out=out)
            tie = query_norms[start:stop] * _TIE
            if metric == 'cosine':
                return out.mul_(scale), tie
            return out.sub_(offset), (tie + largest * (_TIE / 2)) * largest

        return _score(similarities, candidates, max_rank, chunk_bytes, distributed)


def _score(
    similarities: Callable[[int, int], tuple[torch.Tensor, torch.Tensor]],
    candidates: Candidates,
    max_rank: int,
    chunk_bytes: int,
    distributed: bool,
) -> RankingMetrics:
    """Metrics of `similarities(start, stop)`: `(stop - start, G)`, its own to change, and what of each row is a tie."""
    if max_rank < 1:
        raise ValueError(f'max_rank must be at least 1, not {max_rank}')
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    start, end = (candidates.queries * share // world for share in (rank, rank + 1))
    results = np.zeros((3, end - start))  # AP, INP and first match; 0 without a positive
    step = max(8, chunk_bytes // max(4 * candidates.gallery + 64 * candidates.most, 1))
    step = math.ceil((end - start) / max(math.ceil((end - start) / step), 1))  # equal chunks
    for left in range(start, end, max(step, 1)):
        right = min(left + step, end)
        rows, columns, positive = candidates.pairs(left, right)
        scores = _score_chunk(*similarities(left, right), rows, columns, positive, candidates.junk)
        results[:, left - start : right - start] = scores.cpu()
    if distributed:
        shares: list[Any] = [None] * world
        dist.all_gather_object(shares, results)
        results = np.concatenate(shares, axis=1)
    ap, inp, first = results
    valid = first > 0
    if not valid.any():
        raise ValueError(
            f'none of the {len(valid)} queries has a positive among the {candidates.gallery} gallery images; check the '
            'identities and cameras'
        )
    hits = np.bincount(first[valid].astype(np.int64).clip(max=max_rank + 1), minlength=max_rank + 2)
    return RankingMetrics(
        cmc=hits[1 : max_rank + 1].cumsum() / valid.sum(),
        mAP=float(ap[valid].mean()),
        mINP=float(inp[valid].mean()),
        ap=np.where(valid, ap, np.nan),
        inp=np.where(valid, inp, np.nan),
        first_match=first.astype(np.int64),
    )


def _score_chunk(
    similarity: torch.Tensor,
    tie: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    is_positive: torch.Tensor | None,
    junk: torch.Tensor,
) -> torch.Tensor:
    """`(3, queries)` float64: AP, INP and first match of each row; changes `similarity`."""
    values = similarity[rows, columns]
    similarity[rows, columns] = -torch.inf  # what is left are negatives
    similarity.index_fill_(1, junk, -torch.inf)
    if is_positive is not None:
        rows, values = rows[is_positive], values[is_positive]
    count = torch.bincount(rows, minlength=len(similarity))
    width = int(count.max()) if len(count) else 0
    if not width:
        return torch.zeros(3, len(similarity), dtype=torch.float64)
    slot = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
    positives = similarity.new_full((len(similarity), width), -torch.inf)
    positives[rows, slot] = values
    nearest_first = positives.sort(dim=1, descending=True).values
    found = torch.arange(1, width + 1, device=rows.device)
    used = found <= count[:, None]
    thresholds = nearest_first - tie[:, None]
    lowest = thresholds.masked_fill(~used, torch.inf).amin(dim=1)
    reached = count_reaching(similarity, thresholds, lowest)
    # little is left, and Apple's GPUs have no float64
    found, used, count = found.cpu(), used.cpu(), count.cpu()
    ranks = found + reached.cpu().double()
    ap = (found / ranks * used).sum(dim=1) / count.clamp(min=1)
    last = ranks.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
    return torch.stack([ap, count / last, ranks[:, 0] * (count > 0)])
