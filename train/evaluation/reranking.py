"""Better rankings from the same embeddings: k-reciprocal re-ranking and query expansion.

Images that are among the nearest neighbors of each other (k-reciprocal) are likely of one vehicle. `rerank` describes
each image by these neighbors and compares descriptions, which are sparse: nothing here is as large as N x N.
"""

from __future__ import annotations

from typing import Any

import torch

from .inputs import as_features, checked_norms, full_precision

__all__ = ['expand_queries', 'rerank']

_CHUNK_BYTES = 64 << 20
_KEPT = 4  # times k1: neighbors whose cosines are kept, as descriptions have neighbors of neighbors too


def rerank(
    query: Any,
    gallery: Any,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Distances after k-reciprocal encoding (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
    Encoding", CVPR 2017).

    The original distance is the squared cosine distance, (1 - cosine)^2, over its greatest value from the same image.
    An image is its own first neighbor; of others at the same distance the first in the order query, gallery is nearer.
    With fewer than k1 other images, all of them are neighbors.

    Args:
        query: `(Q, D)` floating-point tensor or array, of any length.
        gallery: `(G, D)`.
        k1: neighbors that have to be reciprocal.
        k2: neighbors, the image itself included, over which descriptions are averaged; 1 for none.
        lambda_value: weight of the original distance against the Jaccard distance, 0..1.
        device: where to compute; None for the gallery's.

    Returns:
        `(Q, G)` float32 distances in 0..1.

    Raises:
        ValueError: embeddings with NaN or infinite numbers, widths that differ, or a parameter out of its range.
        TypeError: embeddings that are not floating-point.
    """
    if k1 < 1 or k2 < 1:
        raise ValueError(f'k1 and k2 must be at least 1, not {k1} and {k2}')
    if not 0 <= lambda_value <= 1:
        raise ValueError(f'lambda_value must be in 0..1, not {lambda_value}')
    query, gallery = _units(query, gallery, device)
    queries, images = len(query), len(query) + len(gallery)
    if not queries or not len(gallery):
        return gallery.new_empty(queries, len(gallery))
    with torch.no_grad(), full_precision(gallery.device.type):
        features = torch.cat([query, gallery])
        del query, gallery
        near, cosines, greatest, distances = _neighbors(features, queries, min(max(_KEPT * k1, k1 + 1, k2), images))
        keys = _expanded(near, k1)
        rows, columns = keys // images, keys % images
        weights = (-_distances_of(features, near, cosines, rows, columns) / greatest[rows]).exp()
        del features
        weights /= weights.new_zeros(images).index_add_(0, rows, weights)[rows]
        if k2 > 1:
            rows, columns, weights = _averaged(rows, columns, weights, near[:, :k2])
        distances.mul_(lambda_value / greatest[:queries, None])
        _add_jaccard(distances, rows, columns, weights, 1 - lambda_value)
    return distances


def expand_queries(
    query: Any, gallery: Any, k: int = 5, alpha: float = 3.0, device: torch.device | str | None = None
) -> torch.Tensor:
    """Alpha query expansion: a query becomes the weighted mean of itself and its k nearest gallery images.

    The weight of an image is its cosine to the query, 0 if negative, to the power `alpha`; that of the query is 1.
    `alpha=0` weighs all alike, which is average query expansion (Chum et al., "Total Recall", ICCV 2007; weights:
    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019).
    `expand_queries(gallery, gallery, k + 1)` augments a gallery by its own k neighbors; each image finds itself too.

    Args:
        query: `(Q, D)` floating-point tensor or array, of any length.
        gallery: `(G, D)`.
        k: neighbors; at most G are used.
        alpha: power of the weights, 0 or more.
        device: where to compute; None for the gallery's.

    Returns:
        `(Q, D)` float32 of unit length.

    Raises:
        ValueError, TypeError: as `rerank`.
    """
    if k < 1 or alpha < 0:
        raise ValueError(f'k must be at least 1 and alpha at least 0, not {k} and {alpha}')
    query, gallery = _units(query, gallery, device)
    expanded = query.clone()
    step = max(1, _CHUNK_BYTES // (4 * max(len(gallery), k * gallery.shape[1], 1)))
    with torch.no_grad(), full_precision(gallery.device.type):
        for start in range(0, len(query), step):
            some = query[start : start + step]
            cosines, rows = _largest(some @ gallery.T, min(k, len(gallery)))
            weights = cosines.clamp(min=0) ** alpha
            expanded[start : start + step] += torch.einsum('qk,qkd->qd', weights, gallery[rows])
        return torch.nn.functional.normalize(expanded, dim=1)


def _units(query: Any, gallery: Any, device: torch.device | str | None) -> list[torch.Tensor]:
    """Both as float32 of unit length; zeros stay zeros."""
    sides = {'query': as_features(query, 'query'), 'gallery': as_features(gallery, 'gallery')}
    widths = [side.shape[1] for side in sides.values()]
    if widths[0] != widths[1]:
        raise ValueError(f'query embeddings have {widths[0]} numbers, gallery embeddings {widths[1]}: not of one model')
    device = sides['gallery'].device if device is None else device
    units = []
    for name, side in sides.items():
        side = side.to(device, torch.float32)
        units.append(side / checked_norms(side, name).clamp(min=1e-12)[:, None])
    return units


def _largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row and their columns, in falling order; of equal ones the first columns, in order."""
    top, columns = values.topk(min(k + 1, values.shape[1]), dim=1)
    tied = (top[:, k - 1] == top[:, -1]).nonzero()[:, 0] if k < values.shape[1] else ()  # topk may keep any of these
    columns, order = columns[:, :k].sort(dim=1)
    top, by_value = top[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, by_value)
    if len(tied):
        columns[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return top, columns


def _neighbors(
    features: torch.Tensor, queries: int, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The k nearest of each image, itself first, and their cosines, `(N, k)`; greatest distances `(N,)`; and distances
    of queries to the gallery, `(Q, G)`.
    """
    images = len(features)
    near = torch.empty(images, k, dtype=torch.int64, device=features.device)
    cosines = features.new_empty(images, k)
    greatest = features.new_empty(images)
    distances = features.new_empty(queries, images - queries)
    step = min(images, max(8, _CHUNK_BYTES // (4 * images)))
    buffer = features.new_empty(step, images)
    for start in range(0, images, step):
        stop = min(start + step, images)
        chunk = torch.mm(features[start:stop], features.T, out=buffer[: stop - start])
        if start < queries:
            distances[start:stop] = _distance(chunk[: max(queries - start, 0), queries:])
        greatest[start:stop] = _distance(chunk.amin(dim=1))
        own = torch.arange(stop - start, device=features.device)
        chunk[own, own + start] = torch.inf
        cosines[start:stop], near[start:stop] = _largest(chunk, k)
    cosines[:, 0] = 1
    # all images alike: any number will do for the division
    return near, cosines, greatest.clamp_(min=1e-12), distances


def _distance(cosines: torch.Tensor) -> torch.Tensor:
    return (1 - cosines).clamp_(min=0).square_()


def _contains(keys: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Which of `wanted` are among the sorted keys."""
    place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return keys[place] == wanted


def _reciprocal(near: torch.Tensor, k: int) -> torch.Tensor:
    """Sorted keys `i * N + j` of the pairs that are among the k + 1 nearest of each other."""
    images = len(near)
    own = torch.arange(images, device=near.device)[:, None]
    keys = (own * images + near[:, : k + 1]).flatten().sort().values
    return keys[_contains(keys, keys % images * images + keys // images)]


def _starts(rows: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each image's part of the sorted rows begins, and how long it is."""
    count = torch.bincount(rows, minlength=images)
    return count.cumsum(0) - count, count


def _ragged(first: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For parts `first[i] ... first[i] + count[i] - 1`: i of each place, and the place."""
    part = torch.arange(len(first), device=first.device).repeat_interleave(count)
    before = count.cumsum(0) - count
    return part, torch.arange(len(part), device=first.device) + (first - before)[part]


def _expanded(near: torch.Tensor, k1: int) -> torch.Tensor:
    """Sorted keys of the expanded k-reciprocal sets (equation 5 of the paper)."""
    images = len(near)
    base, half = _reciprocal(near, k1), _reciprocal(near, round(k1 / 2))
    first, count = _starts(half // images, images)
    added = [base]
    for pairs in base.split(1 << 18):
        candidates = pairs % images
        part, place = _ragged(first[candidates], count[candidates])
        keys = (pairs // images)[part] * images + half[place] % images
        shared = torch.bincount(part[_contains(base, keys)], minlength=len(pairs))
        # in whole numbers: more than two thirds
        added.append(keys[(3 * shared > 2 * count[candidates])[part]])
    return torch.cat(added).unique()


def _distances_of(
    features: torch.Tensor, near: torch.Tensor, cosines: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Original distances of pairs: most are known from the search of neighbors."""
    images = len(near)
    keys, order = (torch.arange(images, device=near.device)[:, None] * images + near).flatten().sort()
    wanted = rows * images + columns
    place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    result = cosines.flatten()[order[place]]
    unknown = (keys[place] != wanted).nonzero()[:, 0]
    for some in unknown.split(max(1, _CHUNK_BYTES // (8 * features.shape[1]))):
        result[some] = (features[rows[some]] * features[columns[some]]).sum(dim=1)
    return _distance(result)


def _averaged(
    rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, near: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sparse rows, each the mean of the rows `near` it (equation 11)."""
    images, k = near.shape
    first, count = _starts(rows, images)
    found, values = [], []
    step = max(1, (1 << 20) * images // (k * max(len(rows), 1)))  # about a million numbers at a time
    for start in range(0, images, step):
        members = near[start : start + step].flatten()
        part, place = _ragged(first[members], count[members])
        some, where = ((part // k + start) * images + columns[place]).unique(return_inverse=True)
        found.append(some)
        values.append(weights.new_zeros(len(some)).index_add_(0, where, weights[place] / k))
    keys = torch.cat(found)
    return keys // images, keys % images, torch.cat(values)


def _add_jaccard(
    distances: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, share: float
) -> None:
    """Add `share` times the Jaccard distance (equation 10) of the sparse rows, each of which has the sum 1.

    The minimum of two rows is 0 but in columns of both: an inverted index has the gallery images of each column.
    """
    queries, size = distances.shape
    images = queries + size
    gallery = rows >= queries
    by_column = columns[gallery].sort(stable=True)
    index_rows, index_weights = rows[gallery][by_column.indices] - queries, weights[gallery][by_column.indices]
    first, count = _starts(by_column.values, images)
    query_first, query_count = _starts(rows[~gallery], images)
    step = max(1, _CHUNK_BYTES // (4 * size))
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        shared = distances.new_zeros((stop - start) * size)
        left, right = (int(x) for x in (query_first[start], query_first[stop - 1] + query_count[stop - 1]))
        # as many entries at a time as give about a million pairs
        for begin in range(left, right, pairs_step := max(1, (1 << 20) // max(int(count.max()), 1))):
            entries = slice(begin, min(begin + pairs_step, right))
            part, place = _ragged(first[columns[entries]], count[columns[entries]])
            cells = (rows[entries] - start)[part] * size + index_rows[place]
            shared.index_add_(0, cells, torch.minimum(weights[entries][part], index_weights[place]))
        shared = shared.view(stop - start, size)
        distances[start:stop] += share * (1 - shared / (2 - shared))
