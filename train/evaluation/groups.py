"""Rankings in which each query has candidates of its own, such as the images of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.query_gallery import QueryGallery
from .metrics import RankingMetrics, evaluate

__all__ = ['evaluate_groups']


def evaluate_groups(
    queries: np.ndarray,
    gallery: np.ndarray,
    parts: QueryGallery,
    files: dict[str, int],
    *,
    max_rank: int = 50,
    device: Any = None,
) -> RankingMetrics:
    """Rank for each query the gallery images of its group, and score the ranking; otherwise as `evaluate`.

    Args:
        queries: `(Q, D)` embeddings.
        gallery: `(G, D)` embeddings.
        parts: query and gallery with groups.
        files: number of each path, see `file_numbers`.

    Raises:
        ValueError: no query with a positive, or embeddings that are not finite.
    """
    assert parts.query.groups is not None
    assert parts.gallery.groups is not None
    ap, inp = np.full(len(queries), np.nan), np.full(len(queries), np.nan)
    first = np.zeros(len(queries), np.int64)
    valid = parts.has_match(files)
    numbers = [np.array([files[path] for path in split.paths], np.int64) for split in (parts.query, parts.gallery)]
    for group in np.unique(parts.query.groups[valid]):
        rows = np.flatnonzero(valid & (parts.query.groups == group))
        columns = np.flatnonzero(parts.gallery.groups == group)
        found = evaluate(
            queries[rows],
            gallery[columns],
            parts.query.pids[rows],
            parts.gallery.pids[columns],
            parts.query.camids[rows],
            parts.gallery.camids[columns],
            exclude_same_camera=parts.exclude_same_camera,
            query_files=numbers[0][rows],
            gallery_files=numbers[1][columns],
            max_rank=max_rank,
            device=device,
        )
        ap[rows], inp[rows], first[rows] = found.ap, found.inp, found.first_match
    if not valid.any():
        raise ValueError(f'none of the {len(queries)} queries has a positive among its candidates')
    hits = [float((first[valid] <= rank).mean()) for rank in range(1, max_rank + 1)]
    return RankingMetrics(np.array(hits), float(ap[valid].mean()), float(inp[valid].mean()), ap, inp, first)
