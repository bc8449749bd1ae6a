"""Whitening of embeddings: a fixed linear map after the neck that makes what varies within a vehicle count less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

__all__ = ['WHITENING_KEY', 'Whitening', 'add_whitening', 'holds_whitening']

WHITENING_KEY = 'whiten.matrix'  # in the weights of a model that has one


class Whitening(nn.Module):
    """Multiplies embeddings `(B, D)` by a symmetric matrix `(D, D)`, the identity until it is fitted.

    The matrix is a buffer: it is fitted to data, see `timm_dpa.train.run.whitening`, and not learned by gradient.

    Args:
        width: D.
    """

    def __init__(self, width: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.matrix: torch.Tensor
        self.register_buffer('matrix', torch.eye(width, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.matrix)


def add_whitening(model: Any) -> None:
    """Give one of our models, `ReIDResNet` or `ReIDBackbone`, a whitening that changes nothing yet, if it has none."""
    if isinstance(getattr(model, 'whiten', None), nn.Identity):
        like = next(model.neck.parameters())
        model.whiten = Whitening(model.head_hidden_size, device=like.device, dtype=like.dtype).train(model.training)
        model.has_whitening = True


def holds_whitening(path: Path) -> bool:
    """Whether a safetensors file has the weights of a model with a whitening; no other file has."""
    if path.suffix != '.safetensors':
        return False
    with safe_open(path, 'pt') as weights:
        return WHITENING_KEY in weights.keys()  # noqa: SIM118, it is no dictionary
