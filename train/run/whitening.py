"""Fit the whitening of a model: what varies among the images of one vehicle is made to count less.

Headings, light and the camera move an embedding along certain directions, in which two images say little about whether
they show one vehicle. Within-class covariance normalization (Hatch et al., Interspeech 2006) measures these directions
on vehicles that are known and divides by them. It needs no gradient, and of few vehicles it takes what they share.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from timm_dpa.layers.optional import add_parts

__all__ = ['fit_whitening', 'whitening_matrix']


def whitening_matrix(embeddings: np.ndarray, labels: np.ndarray, shrinkage: float) -> np.ndarray:
    """The symmetric matrix `(S + shrinkage t I)^(-1/2)`, scaled to a mean diagonal of 1.

    S is the covariance of embeddings about the mean of their own vehicle, and t its mean eigenvalue. An infinite
    `shrinkage` would be the identity.

    Args:
        embeddings: `(N, D)` floating point, finite.
        labels: `(N,)` the vehicle of each.
        shrinkage: above 0.

    Returns:
        `(D, D)` float64.

    Raises:
        ValueError: `shrinkage` not above 0, embeddings that are not finite, or no vehicle with two different ones.
    """
    if not shrinkage > 0:
        raise ValueError(f'the shrinkage of a whitening must be above 0, not {shrinkage}')
    embeddings = np.asarray(embeddings, np.float64)
    if not np.isfinite(embeddings).all():
        raise ValueError('embeddings that are not finite cannot be whitened')
    _, rows = np.unique(labels, return_inverse=True)
    counts = np.bincount(rows)
    means = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(means, rows, embeddings)
    within = embeddings - (means / counts[:, None])[rows]
    covariance = within.T @ within / len(within)
    level = np.trace(covariance) / len(covariance)
    if not level > 0:
        raise ValueError('a whitening needs vehicles with two different images or more')
    values, vectors = np.linalg.eigh(covariance)
    matrix = (vectors / np.sqrt(np.maximum(values, 0) + shrinkage * level)) @ vectors.T
    return matrix * (len(matrix) / np.trace(matrix))


@torch.no_grad()
def fit_whitening(
    model: Any,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    shrinkage: float,
    autocast: torch.dtype | None = None,
) -> int:
    """Fit the whitening of a model, which gets one where it has none, to the images of known vehicles.

    Args:
        model: with `forward_features`, `global_pool`, `neck` and `whiten`; changed in place, its mode is kept.
        batches: normalized images `(B, 3, H, W)` and their labels `(B,)`.
        shrinkage: see `whitening_matrix`.
        autocast: dtype of the forward passes; None for float32.

    Returns:
        How many images it saw.

    Raises:
        ValueError: see `whitening_matrix`.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found, labels = [], []
    for images, own in batches:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            maps = model.forward_features(images.to(device, memory_format=torch.channels_last))
            found.append(model.neck(model.global_pool(maps)).float().cpu().numpy())
        labels.append(np.asarray(own.cpu()))
    model.train(was_training)
    if not found:
        raise ValueError('a whitening needs images')
    matrix = whitening_matrix(np.concatenate(found), np.concatenate(labels), shrinkage)
    add_parts(model, ['whiten'])
    model.whiten.matrix.copy_(torch.from_numpy(matrix))
    return sum(map(len, labels))
