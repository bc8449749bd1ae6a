"""Checkpoints of other packages as models of this one: FastReID, its fork by the authors of DpA, and torchreid."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from torch import nn

import timm_dpa  # noqa: F401  registers the models
from timm_dpa.layers.norm import VectorBatchNorm
from timm_dpa.train.run.networks import write_model_folder
from timm_dpa.weights.checkpoint import difference, is_counter, read_checkpoint

__all__ = ['ConversionReport', 'convert_checkpoint']

_FASTREID = 'a ResNet-50 with global average or learnable GeM pooling and a batch-norm neck, also with IBN-a'
_SUPPORTED = {
    'fastreid': f'{_FASTREID} and non-local blocks (bag of tricks, SBS)',
    'g-re-id': f'{_FASTREID}, with spatial and channel attention (backbone.mul1, mul2) or one of them',
    'torchreid': 'resnet50 without a layer between pooling and classifier',
}
_WIDTH = 2048
_BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}
_CHANNELS = {1: 256, 2: 512, 3: 1024, 4: 2048}
_NECK_BIAS = 'heads.bottleneck.0.bias'
_CLASSIFIERS = ('heads.weight', 'heads.classifier.weight', 'classifier.weight', 'classifier.bias')
_PIXELS = ('pixel_mean', 'pixel_std')
#: keys that become no tensor of ours, and their shapes; None is the number of identities
_FASTREID_OTHERS = {
    'pixel_mean': (1, 3, 1, 1),
    'pixel_std': (1, 3, 1, 1),
    _NECK_BIAS: (_WIDTH,),
    'heads.weight': (None, _WIDTH),
    'heads.classifier.weight': (None, _WIDTH),
}
_OTHERS = {
    'fastreid': _FASTREID_OTHERS,
    'g-re-id': _FASTREID_OTHERS,
    'torchreid': {'classifier.weight': (None, _WIDTH), 'classifier.bias': (None,)},
}
#: parts of a non-local block, ours and FastReID's
_NON_LOCAL = {'t': 'theta', 'p': 'phi', 'g': 'g', 'z': 'W.0', 'norm': 'W.1'}


@dataclass(frozen=True)
class ConversionReport:
    """What `convert_checkpoint` did; every key of the checkpoint is in `renamed` or in `left_out`.

    Attributes:
        source: package that the checkpoint is of.
        architecture, model_args: `timm.create_model(architecture, **model_args)` is the network.
        renamed: key of the checkpoint -> name in the folder.
        left_out: key of the checkpoint -> why the folder has no tensor of it.
        notes: what the checkpoint does not say, and what was written in its place.
    """

    source: str
    architecture: str
    model_args: dict[str, Any]
    renamed: dict[str, str]
    left_out: dict[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        keys_by_reason: dict[str, list[str]] = {}
        for key, reason in self.left_out.items():
            keys_by_reason.setdefault(reason, []).append(key)
        return '\n'.join(
            [
                f'{self.source} -> {self.architecture}, '
                + ', '.join(f'{key}={value}' for key, value in self.model_args.items()),
                f'{len(self.renamed)} tensors renamed',
                *(f'left out: {", ".join(keys)} ({reason})' for reason, keys in keys_by_reason.items()),
                *(f'note: {note}' for note in self.notes),
            ]
        )


def convert_checkpoint(
    checkpoint: str | os.PathLike[str],
    source: str,
    out: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    last_stride: int | None = None,
) -> ConversionReport:
    """Write a model folder (`config.json`, `model.safetensors`) that gives the embeddings of a foreign checkpoint.

    `timm.create_model('local-dir:OUT', pretrained=True)` loads it after `import timm_dpa`. Embeddings are what the
    source compares: after the neck for FastReID and g-re-id, the pooled features for torchreid. The classifier of the
    training identities is left out.

    Args:
        checkpoint: file of torch or safetensors; only tensors, containers, numbers and texts are unpickled.
        source: `'fastreid'` (JDAI-CV/fast-reid), `'g-re-id'` (the authors' code of DpA) or `'torchreid'`
            (KaiyangZhou/deep-person-reid).
        out: folder to make; it may be there if it is empty.
        image_size: side, or height and width in pixels, that the model was trained with; 256 unless given.
        last_stride: stride of stage 4, 1 or 2; unless given 2 for torchreid, 1 for the others, their default.

    Returns:
        What became of every key.

    Raises:
        FileNotFoundError: no such checkpoint.
        FileExistsError: `out` is there and not empty.
        ValueError: a file that cannot be read safely, of another source, or with a key that is unknown, missing or of
            another shape; an unknown `source`. Nothing is written.
        OSError: the folder cannot be written.
    """
    if source not in _SUPPORTED:
        raise ValueError(f'unknown source {source!r}; choose one of {", ".join(_SUPPORTED)}')
    height, width = to_2tuple(256 if image_size is None else image_size)
    if min(height, width) < 1:
        raise ValueError(f'image_size must be at least 1, not {image_size}')
    folder = Path(os.path.abspath(out))
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f'{folder}: there already, and not empty; give a new folder')

    read = read_checkpoint(checkpoint)
    path, weights, prefix = read.path, read.weights, read.prefix
    _check_source(weights, source, path)
    architecture, model_args, parts = _network(weights, source, path)
    model_args['last_stride'] = (2 if source == 'torchreid' else 1) if last_stride is None else last_stride
    # without numbers: what is not filled below could not be written
    model = timm.create_model(architecture, num_classes=0, device='meta', **model_args)
    state = model.state_dict()
    names = _names(state, parts)
    _check_keys(weights, {key: state[name] for key, name in names.items()}, source, path)
    converted = {}
    for key, name in names.items():
        value = weights.get(key, torch.tensor(0))  # counters of batches, which need not be there
        converted[name] = torch.empty_like(state[name], device='cpu').copy_(value.reshape(state[name].shape))
    left_out = {key: f'classifier of {len(weights[key])} identities' for key in _CLASSIFIERS if key in weights}
    if source == 'torchreid':
        neck = VectorBatchNorm(_WIDTH, bias=False)
        nn.init.constant_(neck.weight, (1 + neck.eps) ** 0.5)
        converted |= {f'neck.{name}': value for name, value in neck.state_dict().items()}
    else:
        left_out[_NECK_BIAS] = _fold_neck_bias(converted, weights[_NECK_BIAS], model.neck.eps, path)
    model.load_state_dict(converted, assign=True)

    cfg = model.pretrained_cfg
    if 'pixel_mean' in weights:
        for ours in ('mean', 'std'):
            cfg[ours] = tuple(round(value / 255, 7) for value in weights[f'pixel_{ours}'].flatten().tolist())
            left_out[f'pixel_{ours}'] = f'{ours} of config.json, for pixels in 0..1'
    cfg.update(
        interpolation='bilinear' if source == 'torchreid' else 'bicubic',  # as each source resizes
        license=None,  # what the configuration says of the architecture is not known of these weights
        paper_name=None,
    )
    write_model_folder(model, model_args, (height, width), folder)
    return ConversionReport(
        source,
        architecture,
        model_args,
        {prefix + key: names[key] for key in weights if key in names},
        {**{prefix + key: why for key, why in left_out.items()}, **dict.fromkeys(read.beside, 'state of the training')},
        _notes(source, weights, model_args, image_size, last_stride),
    )


def _check_source(weights: dict[str, torch.Tensor], source: str, path: str) -> None:
    found = None
    if any(key.startswith(('backbone.mul1.', 'backbone.mul2.')) for key in weights):
        found = 'g-re-id'
    elif any(key.startswith('backbone.') for key in weights):
        found = 'fastreid'
    elif 'layer1.0.conv1.weight' in weights:
        found = 'torchreid'
    if found is None:
        raise ValueError(f'{path}: {next(iter(weights))} is no key of {source}; supported: {_SUPPORTED[source]}')
    if found != source:
        raise ValueError(f'{path}: looks like a checkpoint of {found}, not of {source}')


def _network(
    weights: dict[str, torch.Tensor], source: str, path: str
) -> tuple[str, dict[str, Any], dict[str, str | None]]:
    """Architecture, its options, and the prefixes of our names -> of theirs, from the particular to the general."""
    if source == 'torchreid':
        layer = next((key for key in weights if key.startswith('fc.')), None)
        if layer is not None:
            raise ValueError(
                f'{path}: {layer} is of a layer after the pooling (as in resnet50_fc512); supported: '
                f'{_SUPPORTED[source]}'
            )
        return 'reid_resnet50', {'global_pool': 'avg'}, {'neck.': None, '': ''}

    neck = weights.get('heads.bottleneck.0.weight')
    if neck is not None and neck.dim() == 4:
        raise ValueError(
            f'{path}: heads.bottleneck.0 is a convolution (EMBEDDING_DIM above 0); supported: {_SUPPORTED[source]}'
        )
    options: dict[str, Any] = {
        'global_pool': 'gem' if 'heads.pool_layer.p' in weights else 'avg',
        'stem_pool_ceil': True,
    }
    if any('.IN.' in key for key in weights):
        options['ibn'] = True
    parts: dict[str, str | None] = {'global_pool.': 'heads.pool_layer.', 'neck.': 'heads.bottleneck.0.'}
    if source == 'g-re-id':
        gates = {'spa': 'backbone.mul1.', 'cpa': 'backbone.mul2.'}
        found = [name for name, start in gates.items() if any(key.startswith(start) for key in weights)]
        attention = found[0] if len(found) == 1 else 'dpa'
        for name in found:
            parts['layer3.attn.' if len(found) == 1 else f'layer3.attn.{name}.'] = gates[name]
    else:
        attention = _non_local_blocks(weights, options, parts, path)
    return f'{attention}_resnet50', options, {**parts, '': 'backbone.'}


def _non_local_blocks(
    weights: dict[str, torch.Tensor], options: dict[str, Any], parts: dict[str, str | None], path: str
) -> str:
    """Fill `options` and `parts` for the non-local blocks; returns the attention's part of the architecture's name."""
    counts, inner = {}, {}
    for stage, blocks in _BLOCKS.items():
        found = [i for i in range(blocks) if f'backbone.NL_{stage}.{i}.theta.weight' in weights]
        if not found:
            continue
        counts[stage] = len(found)
        inner[stage] = max(1, weights[f'backbone.NL_{stage}.{found[0]}.theta.weight'].numel() // _CHANNELS[stage])
        for index, block in enumerate(range(blocks - len(found), blocks)):
            attn = 'attn' if block == blocks - 1 else f'attn_{block}'
            for ours, theirs in _NON_LOCAL.items():
                parts[f'layer{stage}.{attn}.{ours}.'] = f'backbone.NL_{stage}.{index}.{theirs}.'
    if not counts:
        return 'reid'
    options |= {'attn_layer': 'nl_dot', 'attn_stages': list(counts), 'attn_blocks': list(counts.values())}
    ratios = {channels / _CHANNELS[stage] for stage, channels in inner.items()}
    if len(ratios) == 1:
        options['attn_args'] = {'rd_ratio': ratios.pop()}
    elif len(set(inner.values())) == 1:
        options['attn_args'] = {'rd_channels': next(iter(inner.values()))}
    else:
        raise ValueError(f'{path}: inner channels of backbone.NL_* are {inner} by stage, not one number or one share')
    return 'nl'


def _names(state: dict[str, torch.Tensor], parts: dict[str, str | None]) -> dict[str, str]:
    """Their key -> our name, of all that the checkpoint must have."""
    names = {}
    for name in state:
        ours, theirs = next((ours, theirs) for ours, theirs in parts.items() if name.startswith(ours))
        if theirs is not None:
            names[theirs + name.removeprefix(ours)] = name
    return names


def _check_keys(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], source: str, path: str) -> None:
    expected = dict(expected)
    for key, shape in _OTHERS[source].items():
        if key in weights or key == _NECK_BIAS or (key in _PIXELS and not weights.keys().isdisjoint(_PIXELS)):
            sides = (*(weights[key].shape[:1] or (1,)), *shape[1:]) if shape[0] is None else shape
            expected[key] = torch.empty([int(side or 0) for side in sides], device='meta')
    wrong = [key for key in expected if key not in weights and not is_counter(key)]
    wrong += [key for key in weights if key not in expected]
    wrong = wrong or [key for key in weights if not _fits(key, weights[key].shape, expected[key].shape)]
    if wrong:
        raise ValueError(f'{path}: {difference(wrong, weights, expected)}; supported: {_SUPPORTED[source]}')


def _fits(key: str, shape: torch.Size, expected: torch.Size) -> bool:
    if key.startswith('backbone.mul'):  # a single kernel has a dimension of its own there, a linear layer is 1 x 1
        return [side for side in shape if side > 1] == [side for side in expected if side > 1]
    return shape == expected


def _fold_neck_bias(converted: dict[str, torch.Tensor], bias: torch.Tensor, eps: float, path: str) -> str:
    """Our neck has no bias: `(x - m) * w / s + b = (x - (m - b * s / w)) * w / s`; returns what was done."""
    if not bias.any():
        return 'all 0, as our neck without a bias has it'
    weight, mean, var = (converted[f'neck.{name}'].double() for name in ('weight', 'running_mean', 'running_var'))
    if ((weight == 0) & (bias != 0)).any():
        raise ValueError(f'{path}: {_NECK_BIAS} is not 0 where the weight is; our neck has no bias')
    shift = bias * (var + eps).sqrt() / weight
    converted['neck.running_mean'] = (mean - shift.where(bias != 0, 0)).float()
    return 'not 0: folded into neck.running_mean'


def _notes(
    source: str, weights: dict[str, torch.Tensor], options: dict[str, Any], image_size: Any, last_stride: int | None
) -> tuple[str, ...]:
    notes = []
    if image_size is None:
        notes.append('image size 256 x 256: the checkpoint has none')
    if last_stride is None:
        notes.append(f'stride {options["last_stride"]} in stage 4, as {source} has it by default: weights do not tell')
    if source == 'torchreid':
        notes.append('neck: one that changes nothing, as torchreid compares the pooled features')
    elif options['global_pool'] == 'avg':
        notes.append('global average pooling: the checkpoint has no exponent of GeM')
    if 'pixel_mean' not in weights:
        notes.append('mean and std of ImageNet: the checkpoint has none')
    return tuple(notes)
