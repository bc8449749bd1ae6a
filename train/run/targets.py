"""Embeddings of a teacher, made before training, that a run pulls its own to."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from timm_dpa.embedding.embed import file_stamp
from timm_dpa.embedding.files import load_embeddings

from ..recipes.recipe import LossRecipe

__all__ = ['load_targets', 'main_directions']


def load_targets(loss: LossRecipe, paths: Sequence[str], width: int) -> torch.Tensor:
    """What `loss.targets` wants of each training image.

    Args:
        loss: of the recipe.
        paths: of the training images, row by row.
        width: of the embeddings of the network that is trained.

    Returns:
        `(N, width)` float32.

    Raises:
        FileNotFoundError: no such embeddings file.
        ValueError: no embeddings file, one of another model than `loss.teacher`, files of different weights, an image
            that is in none of them, or one that has changed since.
    """
    vectors: list[np.ndarray] = []
    places: dict[str, tuple[int, tuple[int, int]]] = {}
    weights = set()
    for file in loss.targets:
        content = load_embeddings(file)
        model = content.metadata.get('model', 'an unknown model')
        if model != loss.teacher:
            raise ValueError(f'loss.targets: {file} is of {model}, not of loss.teacher={loss.teacher}')
        weights.add(content.metadata.get('network_sha256'))
        if len(weights) > 1:
            raise ValueError(f'loss.targets: {file} was made with other weights than {loss.targets[0]}')
        first = sum(map(len, vectors))
        for row, (name, stamp) in enumerate(zip(content.names, content.stamps.tolist(), strict=True), first):
            places[os.path.realpath(name)] = (row, (int(stamp[0]), int(stamp[1])))
        vectors.append(content.vectors)
    rows = []
    for path in paths:
        found = places.get(os.path.realpath(path))
        if found is None:
            raise ValueError(
                f'loss.targets: {path} is in none of the files; add it with timm-dpa embed, from the same folder'
            )
        row, stamp = found
        if stamp != file_stamp(path):
            raise ValueError(f'loss.targets: {path} has changed since its embedding was made; run timm-dpa embed again')
        rows.append(row)
    return torch.from_numpy(main_directions(np.concatenate(vectors)[rows], width))


def main_directions(vectors: np.ndarray, width: int) -> np.ndarray:
    """Vectors of another width with nearly the same cosines.

    Wider ones are projected onto the directions that hold most of their length; narrower ones get zeros. Then all are
    turned at random, alike, so that no number carries more than another: the numbers of an embedding come from a
    batch norm.

    Args:
        vectors: `(N, E)`.
        width: D.

    Returns:
        `(N, D)` float32; the same ones for the same vectors.
    """
    exact = vectors.astype(np.float64)
    if exact.shape[1] > width:
        _, directions = np.linalg.eigh(exact.T @ exact)
        exact = exact @ directions[:, ::-1][:, :width]
    else:
        exact = np.pad(exact, ((0, 0), (0, width - exact.shape[1])))
    turn, triangle = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))
    return (exact @ (turn * np.sign(np.diag(triangle)))).astype(np.float32)
