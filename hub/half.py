"""Weights stored as float16: half the bytes; timm loads them into float32 parameters."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

__all__ = ['store_half']


def store_half(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write a safetensors file again with its matrices and kernels as float16.

    Vectors (norms and their statistics, biases) stay as they are: they are less than a hundredth of the bytes, but
    rounding them would move embeddings more than rounding all the rest. So do integers, and what the file says about
    itself. Values below 3e-8 become 0.

    Args:
        source: safetensors file.
        out: file to write, another one.

    Raises:
        ValueError: a tensor has values that are not finite, or beyond the 65504 of float16; the message names it.
    """
    tensors = {}
    with safe_open(source, framework='pt') as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 no dictionary
            tensors[name] = value = file.get_tensor(name)
            if not value.is_floating_point() or value.ndim < 2:
                continue
            tensors[name] = value.to(torch.float16)
            if not tensors[name].isfinite().all():
                largest = value.abs().max().item()
                beyond = 'which is beyond float16; leave out --half' if value.isfinite().all() else 'train it again'
                raise ValueError(f'{source}: {name} has a value of {largest:.4g}, {beyond}')
    save_file(tensors, out, metadata)
    Path(out).chmod(0o644)  # safetensors writes for the user only
