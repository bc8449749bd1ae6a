"""Many images of one vehicle as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ['quality_mean']


def quality_mean(vectors: Any, qualities: Sequence[float]) -> np.ndarray:
    """The mean of the embeddings of one vehicle, each weighted by the quality of its image.

    Args:
        vectors: `(N, D)` of length 1.
        qualities: N weights, at least one above 0, see `timm_dpa.gallery.pictures.quality_of`.

    Returns:
        `(D,)` float32 of length 1.

    Raises:
        ValueError: no vectors, weights that are below 0 or all 0, or vectors that cancel each other out.
    """
    array, weights = np.asarray(vectors, np.float64), np.asarray(qualities, np.float64)
    if array.ndim != 2 or not len(array) or weights.shape != (len(array),):
        raise ValueError(f'vectors must be (N, D) with N weights, not {array.shape} with {weights.shape}')
    if not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError('qualities must not be below 0, and not all 0')
    mean = weights @ array
    length = np.linalg.norm(mean)
    if not length > 1e-6 * weights.sum():
        raise ValueError('the embeddings have no mean direction; they are not finite, or not of one vehicle')
    result: np.ndarray = (mean / length).astype(np.float32)
    return result
