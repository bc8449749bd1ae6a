"""Models for embeddings: found by name, made for a size of images, and where and in what they compute."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model_pretrained
from torch import nn

from ..weights.fetch import WeightsError
from ..weights.hub_errors import explain
from ..weights.init import load_weights
from ..weights.manifest import is_released

__all__ = [
    'autocast_dtype',
    'check_embedding_model',
    'create_embedding_model',
    'fixed_size',
    'model_source',
    'network_sha256',
    'resolve_device',
]

_logger = logging.getLogger(__name__)

_PRECISIONS = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def model_source(model: str | Path) -> str:
    """What timm calls a model: the folder of a training run, or of its model, becomes `local-dir:<folder>`.

    Raises:
        FileNotFoundError: a folder without a model, which has the name of no model either.
        ValueError: a file: an exported model, or weights without their architecture.
    """
    name = os.fspath(model)
    if Path(name).suffix.lower() in ('.onnx', '.pt2'):
        raise ValueError(f'{name}: takes no exported model; give the name or folder of the model that was exported')
    if os.path.isfile(name):
        raise ValueError(
            f"{name}: a file of weights alone does not say the model; give both: FeatureExtractor('dpa_resnet50', "
            f'pretrained={name!r}), or --model dpa_resnet50 --checkpoint {name}'
        )
    if name.startswith('local-dir:'):
        return f'local-dir:{os.path.abspath(name.removeprefix("local-dir:"))}'
    for folder in (Path(name, 'model'), Path(name)):
        if (folder / 'config.json').is_file():
            return f'local-dir:{folder.absolute()}'
    if isinstance(model, Path) or (os.path.isdir(name) and not timm.is_model(name)):
        raise FileNotFoundError(f'{name}: no model in this folder (looked for config.json and model/config.json)')
    return name


def fixed_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the only images that a transformer takes, whose configuration may name another size."""
    patches = getattr(getattr(model, 'backbone', model), 'patch_embed', None)
    size = getattr(patches, 'img_size', None)
    return tuple(size) if size and getattr(patches, 'strict_img_size', False) else None


def network_sha256(model: Any) -> str:
    """Digest of the weights of a timm model, and of what else decides an embedding; its classifier takes no part."""
    digest = hashlib.sha256()
    classifier = model.get_classifier()
    for name, module in model.named_modules():
        if module is classifier:
            continue
        # what changes the output and is not among the weights
        options = [getattr(module, key, None) for key in ('stride', 'padding', 'dilation', 'pool_type')]
        digest.update(f'{name} {options}'.encode())
        tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for key, value in tensors.items():
            digest.update(f'{key} {value.dtype}'.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_embedding_model(model: Any) -> None:
    """Raise ValueError for a module that is no model of timm, or takes other images than RGB."""
    if not all(hasattr(model, key) for key in ('forward_features', 'forward_head', 'head_hidden_size')):
        raise ValueError(
            f'{type(model).__name__} gives no embeddings: it needs a model of timm.create_model, without '
            'features_only, that has forward_features, forward_head and head_hidden_size'
        )
    if getattr(model, 'in_chans', 3) != 3:
        raise ValueError(f'the model takes {model.in_chans} channels; embeddings are made of RGB, in_chans=3')


def create_embedding_model(
    name: str, pretrained: bool | str | Path | None = None, image_size: tuple[int, int] | None = None
) -> nn.Module:
    """A timm model without classifier by name.

    Args:
        name: as in `FeatureExtractor`.
        pretrained: as in `FeatureExtractor`.
        image_size: height and width in pixels; a model that takes images of one size only is made for this one.
    """
    remote = name.startswith(('hf-hub:', 'hf_hub:', 'local-dir:'))
    if pretrained is None:
        # released ones that are not here are an error, no reason for random ones
        pretrained = remote or is_model_pretrained(name) or is_released(name) or None
    if pretrained is True:
        model = _create(name, pretrained=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # a gallery and a query of two runs must meet the same weights
            model = _create(name, pretrained=False)
        model.pretrained_cfg['tag'] = ''  # as for our own models
        if pretrained:
            load_weights(model, pretrained)
        elif pretrained is None:
            _logger.warning('%s has no released weights: random weights, good for trying things out only', name)
    inner: Any = getattr(model, 'backbone', model)
    if image_size and hasattr(inner, 'set_input_size') and fixed_size(model) not in (None, image_size):
        inner.set_input_size(img_size=image_size)  # resamples the embeddings of positions
    return model


def _create(name: str, pretrained: bool) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except WeightsError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f'{name}: its config.json cannot be read ({error})') from error
    except ValueError as error:
        if name.rpartition(':')[2] in str(error):
            raise
        raise ValueError(f'{name}: {error}') from error
    except (TypeError, AssertionError) as error:
        raise ValueError(f'{name}: its configuration makes no model ({error})') from error
    except RuntimeError as error:  # no such name, tag or weights
        raise ValueError(f'{name}: {str(error).rstrip(".")}; timm-dpa models lists what there is') from error
    except Exception as error:  # the Hub's errors are of many types
        if name.startswith('local-dir:'):
            if isinstance(error, FileNotFoundError):
                raise
            raise RuntimeError(f'{name}: its weights cannot be read ({error})') from error
        raise WeightsError(explain(error, name)) from error


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of that name; `'auto'` is CUDA, MPS or the CPU, in this order.

    Raises:
        ValueError: it cannot be used here.
    """
    if name == 'auto':
        return _choose_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device {name} cannot be used here ({str(error).splitlines()[0]})') from error
    return device


def _choose_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device('cuda')
    if torch.backends.mps.is_available():
        return torch.device('mps')
    return torch.device('cpu')


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What to compute in, None for float32; `precision` as in `FeatureExtractor`.

    A processor that lacks the instructions for the precision asked for gets a warning: it emulates them slowly.

    Raises:
        ValueError: unknown precision.
    """
    if precision != 'auto':
        if precision not in _PRECISIONS:
            raise ValueError(f'unknown precision {precision!r}; choose auto, {", ".join(_PRECISIONS)}')
        if device.type == 'cpu' and _is_emulated(precision):
            _logger.warning(
                'precision %s: this processor has no instructions for it, and emulating it may be several times '
                "slower than 'fp32'; 'auto' takes the faster one",
                precision,
            )
        return _PRECISIONS[precision]
    if device.type == 'cuda':
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == 'cpu' and _is_fast_in_bf16() else None


def _is_emulated(precision: str) -> bool:
    """Whether this CPU is known to have no instructions for a precision; docs/runtimes.md says what that costs."""
    cpu = _processor()
    instructions = (f'avx512_{precision}', f'amx_{precision}')
    return precision != 'fp32' and cpu.get('architecture') == 'x86_64' and not any(map(cpu.get, instructions))


def _is_fast_in_bf16() -> bool:
    """Whether this CPU has matrix units (AMX), or the bf16 of AMD's AVX-512 (Zen 4 and later).

    With bf16 in the AVX-512 of an Intel Xeon, a ResNet-18 reached 0.75 of its rate in float32; see docs/runtimes.md.
    """
    cpu = _processor()
    amd = str(cpu.get('cpu_name')).startswith('AMD')
    return bool(cpu.get('amx_bf16') or (amd and cpu.get('avx512_bf16')))


def _processor() -> dict[str, Any]:
    """What torch knows of this CPU; older versions know less, or nothing."""
    return getattr(torch.cpu, 'get_capabilities', dict)()
