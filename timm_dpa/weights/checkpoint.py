"""One reader for all files of weights, from this package or from elsewhere, and how they fit a model."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

__all__ = ['Checkpoint', 'difference', 'fill', 'is_counter', 'read_checkpoint', 'select_network', 'suggest_conversion']

#: entries of a training checkpoint that hold a state dict, in the order of preference; the first four as in timm
_CONTAINERS = (
    'state_dict_ema',
    'model_ema',
    'state_dict',
    'model',
    'model_state_dict',
    'net',
    'network',
    'teacher',  # DINO evaluates it
    'student',
    'weights',
    'params',
    'module',
)
_DEPTH = 4  # of containers in containers; a file may hold itself
#: the network that is meant where a method trains two alike: MoCo, MoCo v3, BYOL, DINO
_PREFERRED = ('encoder_q', 'base_encoder', 'online_encoder', 'online_network', 'teacher')
_SCALAR, _RECONSTRUCT = np.float64(0).__reduce__()[0], np.ones(0).__reduce__()[0]
#: what stands beside weights: numbers and arrays of numpy, options of a script; to build one runs no code
_DATA: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *((_SCALAR, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    *((_RECONSTRUCT, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *(type(np.dtype(name)) for name in ('bool', 'float16', 'float32', 'float64')),
    *(type(np.dtype(f'{sign}int{bits}')) for sign in ('', 'u') for bits in (8, 16, 32, 64)),
]

_LOADING = threading.Lock()  # what torch.load allows is a setting of the whole process


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: the file.
        weights: the tensors of the state dict, by their names without `prefix`.
        prefix: what a wrapper (`DistributedDataParallel`, `torch.compile`) put before all names.
        beside: names of the other entries of the file.
    """

    path: str
    weights: dict[str, torch.Tensor]
    prefix: str
    beside: tuple[str, ...]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a file of safetensors or of `torch.save`: a state dict, or a training checkpoint that holds one.

    Only tensors, containers, numbers and texts are unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, would need code to be read, or holds no state dict, or several of them.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    weights, beside = _find_state_dict(_load(path), path)
    names = {name: name.replace('_orig_mod.', '') for name in weights}
    while names and all(name.startswith('module.') for name in names.values()):
        names = {key: name.removeprefix('module.') for key, name in names.items()}
    first, stripped = next(iter(names.items()))
    prefix = first.removesuffix(stripped) if first.endswith(stripped) else ''
    return Checkpoint(path, {names[name]: value for name, value in weights.items()}, prefix, tuple(beside))


def _load(path: str) -> Any:
    try:
        if path.endswith('.safetensors'):
            return load_file(path)
        with _LOADING, torch.serialization.safe_globals(_DATA):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # damaged files raise whatever the parser met
        if isinstance(error, pickle.UnpicklingError):
            needed = re.search(r'GLOBAL ([\w.]+)', str(error))
            what = f' ({needed.group(1)})' if needed else ''
            raise ValueError(
                f'{path}: holds more than tensors and numbers{what}, which is not loaded because it could run code, or '
                'is damaged; save model.state_dict() where it was made'
            ) from error
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(f'{path}: not a checkpoint that can be read ({reason})') from error


def _find_state_dict(content: Any, path: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The state dict in what a file holds, and the names of what else it holds."""
    beside: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        inner = [key for key, value in content.items() if isinstance(value, Mapping) and _holds_weights(value)]
        known = [key for key in _CONTAINERS if key in inner]
        own = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
        if known or (len(inner) == 1 and not own):
            chosen = known[0] if known else inner[0]
            beside += [str(key) for key in content if key != chosen]
            content = content[chosen]
        elif own:
            return own, [*beside, *(str(key) for key in content if key not in own)]
        elif inner:
            raise ValueError(
                f'{path}: holds several state dicts ({", ".join(map(str, inner))}); save the one that is meant'
            )
        else:
            break
    raise ValueError(f'{path}: holds no state dict of tensors; save model.state_dict()')


def _holds_weights(content: Mapping[Any, Any], depth: int = _DEPTH) -> bool:
    """Whether tensors have names there, also inside a known container; the state of an optimizer has numbers."""
    return depth > 0 and any(
        torch.is_tensor(value)
        or (key in _CONTAINERS and isinstance(value, Mapping) and _holds_weights(value, depth - 1))
        for key, value in content.items()
        if isinstance(key, str)
    )


def select_network(
    weights: Mapping[str, torch.Tensor], expected: Collection[str], source: str
) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of one network, found by the names that it expects, among those of a method or a framework.

    Lightning, DINO and FastReID put a prefix before the names (`model.`, `backbone.`); MoCo and BYOL hold two networks
    of the same names, of which the trained one is taken.

    Args:
        weights: by name.
        expected: names of the model's state.
        source: for messages.

    Returns:
        The weights without the prefix, and the prefix: empty where all names belong to the network.

    Raises:
        ValueError: several networks of these names, of which none is known to be the one that is meant.
    """
    counts: Counter[str] = Counter()
    for name in weights:
        parts = name.split('.')
        counts.update('.'.join([*parts[:i], '']) for i in range(len(parts)) if '.'.join(parts[i:]) in expected)
    most = max(counts.values(), default=0)
    found = [prefix for prefix, count in counts.items() if count == most]
    if counts[''] == most:
        return dict(weights), ''
    if len(found) > 1:
        meant = [prefix for part in _PREFERRED for prefix in found if part in prefix.split('.')]
        if not meant:
            raise ValueError(
                f'{source}: holds several networks ({", ".join(prefix + "*" for prefix in found)}); save the one that '
                'is meant'
            )
        found = meant
    prefix = found[0]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}, prefix


def is_counter(name: str) -> bool:
    """Whether it is the number of batches that a batch norm has seen, which older files lack; torch accepts that."""
    return name.rpartition('.')[2] == 'num_batches_tracked'


def fill(model: nn.Module, weights: dict[str, torch.Tensor], source: str, but: tuple[str, ...] = ()) -> None:
    """Load all weights of a model, as strictly as torch does, or change nothing; on the meta device names are checked.

    Args:
        model: changed in place.
        weights: by name; modules may take other shapes than their own.
        source: for the message.
        but: prefixes of names that may be missing, such as those of the classifier.

    Raises:
        ValueError: a name is missing or has no place, or a shape does not fit; the message names one.
    """
    state = model.state_dict()
    missing = [name for name in state if name not in weights and not (name.startswith(but) or is_counter(name))]
    wrong = [*missing, *(name for name in weights if name not in state)]
    reason: Exception | None = None
    if not wrong and any(value.is_meta for value in state.values()):
        return  # nothing to fill
    if not wrong:
        before = {name: value.clone() for name, value in state.items()}
        try:
            model.load_state_dict(weights, strict=False)
            return
        except (RuntimeError, ValueError) as error:
            reason = error
            model.load_state_dict(before)  # some were filled before the error
        wrong = [name for name in state if name in weights and state[name].shape != weights[name].shape]
    what = difference(wrong, weights, state) if wrong else ' '.join(str(reason).split())
    raise ValueError(f'{source}: weights of another architecture, {what}') from reason


def difference(names: list[str], weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """How the first of some names of weights differs from a model's state, and how many more do."""
    name = names[0]
    if name not in weights:
        what = f'{name} is missing'
    elif name not in state:
        what = f'{name} has no place in the model'
    else:
        what = f'{name} is {tuple(weights[name].shape)} instead of {tuple(state[name].shape)}'
    return what if len(names) == 1 else f'{what}, and {len(names) - 1} more differ'


def suggest_conversion(names: Iterable[str]) -> str:
    """The end of a message that says how a checkpoint of another package becomes a model; empty for others."""
    names = set(names)
    if any(name.startswith('heads.') for name in names):
        return '; a checkpoint of FastReID or g-re-id becomes a model by timm-dpa convert'
    if 'classifier.weight' in names and 'layer1.0.conv1.weight' in names:
        return '; a checkpoint of torchreid becomes a model by timm-dpa convert'
    return ''
