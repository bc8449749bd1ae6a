"""Ranking metrics and re-ranking in plain float64 loops; nothing here uses the package."""

from __future__ import annotations

import numpy as np


def cosine_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    query, gallery = (x.astype(np.float64) for x in (query, gallery))
    lengths = np.outer(np.linalg.norm(query, axis=1), np.linalg.norm(gallery, axis=1))
    return 1 - query @ gallery.T / np.maximum(lengths, 1e-300)


def euclidean_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    query, gallery = (x.astype(np.float64) for x in (query, gallery))
    return np.array([[np.sqrt(((q - g) ** 2).sum()) for g in gallery] for q in query])


def metrics(
    distances,
    query_pids,
    gallery_pids,
    query_camids=None,
    gallery_camids=None,
    junk=(),
    max_rank=50,
    tie=0.0,
    files=(None, None),
):
    """CMC, mAP, mINP, and AP of each query; ties go to the negatives."""
    cmc, ap, inp = np.zeros(max_rank), [], []
    for i, row in enumerate(distances):
        entries = []
        for j, distance in enumerate(row):
            positive = gallery_pids[j] == query_pids[i]
            same_camera = query_camids is not None and gallery_camids[j] == query_camids[i]
            if gallery_pids[j] in junk or query_pids[i] in junk or (positive and same_camera):
                continue
            if files[0] is not None and files[0][i] == files[1][j]:
                continue
            entries.append((distance, positive))
        ranks = []
        for k, distance in enumerate(sorted(d for d, positive in entries if positive), start=1):
            ranks.append(k + sum(not positive and d <= distance + tie for d, positive in entries))
        if not ranks:
            ap.append(np.nan)
            continue
        ap.append(sum(k / rank for k, rank in enumerate(ranks, start=1)) / len(ranks))
        inp.append(len(ranks) / ranks[-1])
        cmc[min(ranks[0], max_rank + 1) - 1 :] += 1
    return cmc / max(len(inp), 1), np.nanmean(ap), np.mean(inp), np.array(ap)


def k_reciprocal(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Zhong et al., CVPR 2017, section 3, with sets and dense rows."""
    every = np.concatenate([query, gallery])
    original = cosine_distances(every, every) ** 2  # squared cosine distances, as in public implementations
    original = original / original.max(axis=1, keepdims=True)
    np.fill_diagonal(original, -1)  # an image is its own first neighbour, even beside its copies
    order = np.argsort(original, axis=1, kind='stable')
    np.fill_diagonal(original, 0)
    count = len(every)

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    weights = np.zeros((count, count))
    for i in range(count):
        expanded = set(base := reciprocal(i, k1))
        for candidate in base:
            theirs = reciprocal(candidate, round(k1 / 2))
            if len(theirs & base) > 2 / 3 * len(theirs):
                expanded |= theirs
        for j in expanded:
            weights[i, j] = np.exp(-original[i, j])
        weights[i] /= weights[i].sum()
    if k2 > 1:
        weights = np.array([weights[order[i, :k2]].mean(axis=0) for i in range(count)])

    distances = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            shared = np.minimum(weights[i], weights[len(query) + j]).sum()
            jaccard = 1 - shared / (2 - shared)
            distances[i, j] = (1 - lambda_value) * jaccard + lambda_value * original[i, len(query) + j]
    return distances
