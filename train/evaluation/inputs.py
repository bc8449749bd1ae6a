"""Embeddings and labels as rankings take them: checked, and multiplied in full precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ['as_features', 'as_labels', 'check_length', 'checked_norms', 'full_precision']


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Float32 products are that, whatever the caller allows elsewhere: no autocast, TF32 or bfloat16."""
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    legacy = _legacy_precision()
    try:
        if legacy != 'highest':  # both must say the same, or CUDA refuses products
            torch.set_float32_matmul_precision('highest')
        for backend in backends:
            backend.fp32_precision = 'ieee'
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if legacy != 'highest':
            torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _legacy_precision() -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Please use the new API settings')  # torch 2.9 says so of reading it
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:  # the caller has used the new settings only
            return 'highest'


def checked_norms(features: torch.Tensor, name: str) -> torch.Tensor:
    """`(N,)` float32 Euclidean norms of `(N, D)` features; ValueError if one is not finite."""
    # a number that is not finite shows in the norm of its row; looking at the numbers themselves takes longer
    norms = torch.cat([torch.linalg.vector_norm(part.float(), dim=1) for part in features.split(1 << 13)])
    finite = norms.isfinite()
    if not finite.all():
        rows = (~finite).nonzero()[:, 0]
        bad = rows[~features[rows].isfinite().all(dim=1)]
        if len(bad):
            raise ValueError(
                f'{name}: {len(bad)} of {len(features)} embeddings have NaN or infinite numbers, the first is {bad[0]}'
            )
        raise ValueError(f'{name}: {len(rows)} embeddings are too long for float32, the first is {rows[0]}; scale them')
    return norms


def as_features(values: Any, name: str) -> torch.Tensor:
    """`(N, D)` floating-point tensor, where the values are if possible; TypeError or ValueError if they are no such."""
    if not isinstance(values, torch.Tensor):
        array = np.ascontiguousarray(values)
        if array.dtype.kind != 'f':
            raise TypeError(f'{name} must be floating-point, not {array.dtype}')
        with warnings.catch_warnings():  # of arrays that must not be written to: they are not
            warnings.filterwarnings('ignore', message='.*not writ')
            values = torch.from_numpy(array)
    if not values.is_floating_point():
        raise TypeError(f'{name} must be floating-point, not {values.dtype}')
    if values.ndim != 2:
        raise ValueError(f'{name} must be two-dimensional, not {tuple(values.shape)}')
    return values.detach()


def as_labels(values: Any, name: str) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if values.size and values.dtype.kind not in 'iu':
        raise TypeError(f'{name} must be whole numbers, not {values.dtype}')
    return values.astype(np.int64)


def check_length(values: np.ndarray, length: int, name: str) -> None:
    if values.shape != (length,):
        raise ValueError(f'{name} must have {length} numbers, one an image, not shape {values.shape}')
