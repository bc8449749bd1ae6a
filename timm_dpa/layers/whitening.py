"""Whitening of embeddings: a fixed linear map after the neck that makes what varies within a vehicle count less."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['Whitening']


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

    @classmethod
    def of(cls, model: Any) -> Whitening:
        """One that fits a model."""
        return cls(model.head_hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.matrix)
