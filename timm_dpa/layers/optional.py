"""Parts of a model that weights bring along: a color normalization before the trunk, a whitening after the neck.

A file of weights with the tensors of such a part gives it to the model that loads the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from .color import ColorNorm
from .whitening import Whitening

__all__ = ['OPTIONAL_PARTS', 'add_parts', 'fixed_tensors', 'held_parts', 'remove_parts', 'stored_parts']

#: argument of `create_model`, which is also the name of the module -> its class
OPTIONAL_PARTS: dict[str, Any] = {'color_norm': ColorNorm, 'whiten': Whitening}


def held_parts(names: Iterable[str]) -> list[str]:
    """Which parts the weights of these names have, with or without the prefix of a framework."""
    modules = {module for name in names for module in name.split('.')[-2:-1]}
    return [part for part in OPTIONAL_PARTS if part in modules]


def stored_parts(path: Path) -> list[str]:
    """Which parts the weights in a safetensors file have; those in no other file have any."""
    if path.suffix != '.safetensors':
        return []
    with safe_open(path, 'pt') as weights:
        return held_parts(weights.keys())


def fixed_tensors(model: Any) -> dict[str, Any]:
    """Tensors that weights need not bring: a color normalization is complete as it is made."""
    return {name: value for name, value in model.state_dict().items() if name.startswith('color_norm.')}


def add_parts(model: Any, parts: Iterable[str]) -> list[str]:
    """Give one of our models, `ReIDResNet` or `ReIDBackbone`, the parts that it lacks; returns which it lacked.

    A new whitening changes nothing yet.
    """
    added = []
    for part in parts:
        if isinstance(getattr(model, part, None), nn.Identity):
            like = next(model.neck.parameters())
            setattr(model, part, OPTIONAL_PARTS[part].of(model).to(like.device, like.dtype).train(model.training))
            added.append(part)
    if 'whiten' in added:
        model.has_whitening = True
    return added


def remove_parts(model: Any, parts: Iterable[str]) -> None:
    """Take parts off again."""
    for part in parts:
        setattr(model, part, nn.Identity())
        if part == 'whiten':
            model.has_whitening = False
