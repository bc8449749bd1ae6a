"""Weights from elsewhere: an ImageNet backbone as a start, or a checkpoint of the same model."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from timm.models import adapt_input_conv, is_model

from ..dpa_resnet import ReIDResNet
from ..head import ReIDHead
from ..layers.optional import add_parts, fixed_tensors, held_parts, remove_parts
from ..reid_timm import ReIDBackbone
from .checkpoint import difference, fill, is_counter, read_checkpoint, select_network, suggest_conversion
from .fetch import WeightsError
from .hub_errors import explain
from .manifest import is_released

__all__ = ['InitReport', 'find_weights', 'init_backbone', 'load_weights']

_logger = logging.getLogger(__name__)

#: parts of a ReIDResNet that an ImageNet ResNet does not have
_OWN_PARTS = re.compile(r'^(color_norm|layer\d\.attn(?:_\d+)?|neck|whiten|fc|global_pool)\.')
_ATTENTION = re.compile(r'^(layer\d\.attn(?:_\d+)?)\.')
#: parts that both have
_BACKBONE = re.compile(r'^(conv1|bn1|maxpool|layer\d)\.')
#: what is a path even if there is no such file; `org/name` holds dots as well
_PATH = re.compile(r'^[./~]|\.(safetensors|pth|pt|tar|bin|ckpt|pkl)$')


@dataclass(frozen=True)
class InitReport:
    """What `init_backbone` did.

    Attributes:
        source: where the weights came from.
        filled: names of parameters and buffers that were loaded.
        not_filled: names that keep their initial values: attention, pooling, neck and classifier.
        ignored: names in the source that the model has no place for, such as the ImageNet classifier.
    """

    source: str
    filled: tuple[str, ...]
    not_filled: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        attentions = ((_ATTENTION.match(name), name) for name in self.ignored)
        unused = list(dict.fromkeys(match.group(1) if match else name for match, name in attentions))
        if len(unused) > 6:  # whole networks beside the one that is used
            unused = list(dict.fromkeys(f'{name.partition(".")[0]}.*' if '.' in name else name for name in unused))
        left = sorted({match.group(1) for name in self.not_filled if (match := _OWN_PARTS.match(name))})
        return (
            f'{len(self.filled)} tensors from {self.source}; keep their initial values: {", ".join(left) or "none"}'
            f'{"; not used: " + ", ".join(unused) if unused else ""}'
        )


def looks_like_file(source: str) -> bool:
    """Whether a name is that of a checkpoint file, there or not, rather than of a repository."""
    return _PATH.search(source) is not None


def find_weights(path: str | os.PathLike[str]) -> str:
    """The file of weights that a path stands for: itself, or that in the folder of a run, or of a model.

    Raises:
        FileNotFoundError: a folder without one.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        return path
    names = ('model/model.safetensors', 'model.safetensors')
    for name in names:
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    raise FileNotFoundError(f'{path}: holds neither {names[0]} nor {names[1]}')


def init_backbone(
    model: ReIDResNet | ReIDBackbone, init_from: str | os.PathLike[str] = 'timm/resnet50.a1_in1k'
) -> InitReport:
    """Fill the backbone of `model` with trained weights, and all other parts that the source has and that fit.

    A re-identification network also gives its neck, its pooling, and each attention of the same kind, as a whole or not
    at all. Released weights of this package, given by name, give no attention: only the trunk, which all models share.

    Args:
        model: the model to fill, changed in place. It may have other input channels than the source.
        init_from: a checkpoint file (safetensors, or a torch file of tensors), the folder of a run or a model, a
            repository of the Hugging Face Hub (`timm/resnet50.a1_in1k`, `org/name@revision`), or a model with weights,
            of timm or of this package (`resnet50.a1_in1k`, `dpa_resnet50.rendered`).

    Returns:
        The names that were filled, that were not, and that were not used.

    Raises:
        FileNotFoundError: `init_from` is neither a file, nor a repository, nor a model.
        ValueError: weights of another architecture, or a file that holds no weights.
        WeightsError: a download that failed.
    """
    source = os.fspath(init_from)
    # position embeddings are resampled by timm while it loads them
    options: Any = getattr(model, 'backbone_args', {})
    size = {'img_size': options['img_size']} if 'img_size' in options else {}
    if os.path.exists(source):
        weights = read_checkpoint(find_weights(source)).weights
    elif looks_like_file(source):
        raise FileNotFoundError(f'{source}: no such checkpoint file')
    elif source.startswith(('hf-hub:', 'hf_hub:')) or source.count('/') == 1:
        weights = _pretrained('hf-hub:' + source.removeprefix('hf-hub:').removeprefix('hf_hub:'), source, **size)
    elif is_model(source.partition('.')[0]):
        weights = _pretrained(source, source, **size)
    else:
        raise FileNotFoundError(f'{source}: neither a file, nor a Hub repository (org/name), nor a timm model')

    prefix = 'backbone.' if isinstance(model, ReIDBackbone) else ''
    target: Any = model.backbone if isinstance(model, ReIDBackbone) else model
    state = target.state_dict()
    given = weights
    weights, outer = select_network(given, state, source)
    stem = _stem(target, state)
    if stem in weights and weights[stem].shape[1] != state[stem].shape[1]:
        weights[stem] = adapt_input_conv(state[stem].shape[1], weights[stem])
    fitting = {name: value for name, value in weights.items() if name in state and value.shape == state[name].shape}
    trunk_only = is_released(source)
    # parts of different attentions share names and some shapes
    attentions = {match.group(1) for name in (*state, *weights) if (match := _ATTENTION.match(name))}
    for part in attentions:
        own, theirs = (
            {name for name in names if name.startswith(f'{part}.') and not is_counter(name)}
            for names in (state, weights)
        )
        if trunk_only or own != theirs or not own <= fitting.keys():
            fitting = {name: value for name, value in fitting.items() if not name.startswith(f'{part}.')}
    not_filled = tuple(prefix + name for name in state if name not in fitting)
    foreign = [name for name in not_filled if not (_OWN_PARTS.match(name) or is_counter(name))]
    if prefix:
        not_filled += tuple(name for name in model.state_dict() if not name.startswith(prefix))
    else:
        # a deeper network has all blocks of this one, and more
        foreign += [
            name for name in weights if name not in state and _BACKBONE.match(name) and not _OWN_PARTS.match(name)
        ]
    if foreign:
        foreign = [name.removeprefix(prefix) for name in foreign]
        raise ValueError(f'{source}: weights of another architecture, {difference(foreign, weights, state)}')
    target.load_state_dict(fitting, strict=False)
    model.thresholds = None  # of other weights
    used = {outer + name for name in fitting}
    ignored = tuple(name for name in given if name not in used)
    return InitReport(source, tuple(prefix + name for name in fitting), not_filled, ignored)


def _stem(model: Any, state: dict[str, torch.Tensor]) -> str | None:
    """The weight of the first convolution, which other input channels change."""
    first = model.pretrained_cfg.get('first_conv') or 'conv1'
    first = first if isinstance(first, str) else first[0]
    return next((name for name in state if name.startswith(first) and name.endswith('weight')), None)


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint of the same model from a file, but for a classifier of another number of identities.

    A prefix that a framework put before all names (`net.`, `model.`, `module.`, `_orig_mod.`) is stripped and logged.

    Args:
        model: changed in place, or not at all where an error is raised. Weights that hold a whitening or a
            color normalization give it one.
        path: safetensors, or a torch file of tensors (nothing else is unpickled).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or of another architecture.
    """
    checkpoint = read_checkpoint(path)
    weights, prefix = select_network(checkpoint.weights, model.state_dict().keys(), checkpoint.path)
    added = add_parts(model, held_parts(weights))
    weights = fixed_tensors(model) | weights
    state = model.state_dict()
    # timm's get_classifier gives a name for some models only
    own = isinstance(model, ReIDHead)
    classifier = 'fc' if own else (getattr(model, 'pretrained_cfg', None) or {}).get('classifier') or 'fc'
    prefixes = tuple(f'{name}.' for name in ([classifier] if isinstance(classifier, str) else classifier))
    for name in [name for name in weights if name.startswith(prefixes)]:
        if name not in state or state[name].shape != weights[name].shape:
            del weights[name]
    try:
        fill(model, weights, checkpoint.path, prefixes)
    except ValueError as error:
        remove_parts(model, added)
        raise ValueError(f'{error}{suggest_conversion(checkpoint.weights)}') from error
    if checkpoint.prefix or prefix:
        _logger.info('%s: loaded without the prefix %s of its names', checkpoint.path, checkpoint.prefix + prefix)
    if own:
        model.thresholds = None  # of other weights


def _pretrained(name: str, source: str, **model_args: Any) -> dict[str, torch.Tensor]:
    """Weights that timm knows or downloads."""
    try:
        return timm.create_model(name, pretrained=True, **model_args).state_dict()
    # an EntryNotFoundError also says that there is no connection, and no file in the cache
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise FileNotFoundError(explain(error, source)) from error
    except WeightsError:
        raise
    except RuntimeError as error:  # a tag without weights, or weights that are not those of the configuration
        raise ValueError(f'{source}: {error}') from error
