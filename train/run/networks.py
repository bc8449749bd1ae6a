"""The network of a recipe: made, started from trained weights, and saved ready for the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, is_model, is_model_pretrained, list_models, save_for_hf
from torch import nn

from timm_dpa import init_backbone, load_weights
from timm_dpa.dpa_resnet import ReIDResNet
from timm_dpa.files import atomic_folder
from timm_dpa.layers.optional import OPTIONAL_PARTS, add_parts, held_parts
from timm_dpa.reid_timm import ReIDBackbone
from timm_dpa.weights.fetch import WeightsError
from timm_dpa.weights.hub_errors import explain
from timm_dpa.weights.init import find_weights, looks_like_file
from timm_dpa.weights.manifest import file_sha256, is_released, read_manifest

from ..recipes.recipe import ModelRecipe
from .peer_files import with_dtype, write_peer_files

__all__ = [
    'brings_weights',
    'create_network',
    'pretrained_origin',
    'released_start',
    'save_model_folder',
    'start_network',
    'write_model_folder',
]

_REMOTE = ('hf-hub:', 'hf_hub:', 'local-dir:')
#: ImageNet weights of our backbones, by depth
_IMAGENET = {'resnet18': 'timm/resnet18.a1_in1k', 'resnet50': 'timm/resnet50.a1_in1k'}


def create_network(recipe: ModelRecipe, num_classes: int, image_size: tuple[int, int] | None = None) -> nn.Module:
    """The model of a recipe with random weights, but for a name that brings its weights along.

    Args:
        recipe: the model's part.
        num_classes: identities of the classifier, 0 for none.
        image_size: height and width that the model is trained with, noted in its configuration.

    Raises:
        ValueError: no such model, one without our head, or arguments that it does not take.
    """
    try:
        if recipe.name.startswith(_REMOTE) or _is_ours(recipe.name):
            model = timm.create_model(
                recipe.name, pretrained=brings_weights(recipe.name), num_classes=num_classes, **recipe.args
            )
        elif is_model(recipe.name.partition('.')[0]):
            model = timm.create_model('reid_timm', **_backbone_args(recipe, image_size), num_classes=num_classes)
        else:
            raise ValueError('neither one of timm-dpa models, nor a model of timm.list_models')
    except WeightsError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f'model.name={recipe.name}: {error}') from error
    except HfHubHTTPError as error:  # of the configuration, which timm downloads
        raise WeightsError(explain(error, recipe.name)) from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(explain(error, recipe.name)) from error
    if not isinstance(model, (ReIDResNet, ReIDBackbone)):
        raise ValueError(
            f'model.name={recipe.name}: a {type(model).__name__} without our head; give its plain timm name'
        )
    if image_size is not None:
        model.pretrained_cfg['input_size'] = (3, *image_size)
    return model


def _is_ours(name: str) -> bool:
    return name.partition('.')[0] in list_models(module='dpa_resnet')


def brings_weights(name: str) -> bool:
    """Whether weights of the whole network belong to the name: a tag means released ones."""
    return name.startswith(_REMOTE) or (_is_ours(name) and '.' in name and is_released(name))


def _backbone_args(recipe: ModelRecipe, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of `reid_timm`; what it does not know itself is the backbone's."""
    own = {key: value for key, value in recipe.args.items() if key in ('drop_rate', 'backbone_args', *OPTIONAL_PARTS)}
    others = {key: value for key, value in recipe.args.items() if key not in own}
    native = timm.get_pretrained_cfg(recipe.name)
    if image_size and native and native.fixed_input_size and tuple(native.input_size[1:]) != tuple(image_size):
        others = {'img_size': list(image_size), **others}
    if others:
        own['backbone_args'] = {**own.get('backbone_args', {}), **others}
    return {'backbone': recipe.name, **own}


def start_network(model: Any, recipe: ModelRecipe) -> list[str]:
    """Fill a new network with the weights that the recipe starts from; returns what was done, a line each.

    Raises:
        FileNotFoundError: no such file, repository or model; or no connection.
        ValueError: weights of another architecture.
    """
    done = []
    brought = brings_weights(recipe.name)
    # weights of the whole network make those of ImageNet needless
    if recipe.init_from and not (recipe.init_from == 'imagenet' and (brought or recipe.checkpoint)):
        done.append(f'backbone: {init_backbone(model, _source(recipe))}')
    if recipe.checkpoint:
        path = find_weights(recipe.checkpoint)
        load_weights(model, path)
        done.append(f'all but the classifier: {path}')
    return done or [f'{recipe.name}: its own weights' if brought else 'random weights']


def _source(recipe: ModelRecipe) -> str:
    source = recipe.init_from or ''
    if source != 'imagenet':
        if source in list_models(module='dpa_resnet') and not os.path.exists(source):
            tags = [name for name, known in read_manifest().items() if known.architecture == source]
            which = f'say which of its weights ({", ".join(tags)})' if tags else 'has no released weights'
            raise ValueError(f'model.init_from={source}: {which}')
        return source
    if not _is_ours(recipe.name):
        if is_model_pretrained(recipe.name):
            return recipe.name
        raise ValueError(f'model.init_from=imagenet: timm has no weights for {recipe.name}; give a file, or null')
    return _IMAGENET[recipe.name.partition('.')[0].rpartition('_')[2]]


def pretrained_origin(recipe: ModelRecipe) -> str | None:
    """`org/name` on the Hub of the weights that the recipe starts from; None for random ones, and those of a file."""
    source = recipe.name
    if recipe.init_from and not (recipe.checkpoint or brings_weights(recipe.name)):
        source = _source(recipe)
        if is_model_pretrained(source):  # the repository of timm's own weights
            source = get_pretrained_cfg(source).hf_hub_id or ''
    elif not source.startswith(('hf-hub:', 'hf_hub:')):
        return None
    source = source.removeprefix('hf-hub:').removeprefix('hf_hub:').partition('@')[0]
    return source if source.count('/') == 1 and not looks_like_file(source) and not Path(source).exists() else None


def released_start(recipe: ModelRecipe) -> str | None:
    """`architecture.tag` of the weights of this package that the recipe starts from; None for all others.

    Known by their name, or by the content of their file.
    """
    start: str | None
    if recipe.init_from in (None, 'imagenet') and brings_weights(recipe.name):
        start = recipe.checkpoint or recipe.name
    elif recipe.checkpoint or not brings_weights(recipe.name):  # else it has something of two
        start = recipe.checkpoint or recipe.init_from
    else:
        return None
    manifest = read_manifest()
    if start is None or start in manifest:
        return start
    try:
        weights = find_weights(start.removeprefix('local-dir:'))
        size = os.path.getsize(weights)
    except OSError:
        return None
    return next((n for n, r in manifest.items() if r.size == size and r.sha256 == file_sha256(weights)), None)


def save_model_folder(
    recipe: ModelRecipe,
    image_size: tuple[int, int],
    weights: dict[str, torch.Tensor],
    folder: Path,
    thresholds: Sequence[dict[str, Any]] = (),
) -> None:
    """Write `config.json` and `model.safetensors` as timm loads them, from a folder or from the Hub.

    The classifier of the training identities is left out: what loads the folder gets embeddings. The folder is
    replaced as a whole.

    Args:
        weights: state dict of the trained network.
        thresholds: of the cosine, see `timm_dpa.weights.thresholds`.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    if recipe.name.startswith(_REMOTE):
        model = timm.create_model(recipe.name, num_classes=0, **recipe.args)
    else:
        model = create_network(ModelRecipe(name=recipe.name, args=recipe.args), 0, image_size)
    add_parts(model, held_parts(weights))
    model.load_state_dict({name: value for name, value in weights.items() if not name.startswith('fc.')})
    model_args = dict(model.model_args if isinstance(model, ReIDBackbone) else recipe.args)
    model_args |= dict.fromkeys(held_parts(weights), True)
    write_model_folder(model, model_args, image_size, folder, thresholds)


def write_model_folder(
    model: Any,
    model_args: dict[str, Any],
    image_size: tuple[int, int],
    folder: Path,
    thresholds: Sequence[dict[str, Any]] = (),
) -> None:
    """Write `config.json`, `model.safetensors` and what `write_peer_files` adds, whole or not at all.

    A folder is replaced as a whole.

    Args:
        model: of a registered architecture, without a classifier; its `pretrained_cfg` goes into the configuration.
        model_args: what rebuilds it, `timm.create_model(architecture, **model_args)`.
        image_size: height and width, noted in its configuration.
        thresholds: see `save_model_folder`.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    cfg = model.pretrained_cfg
    cfg['tag'] = ''  # that of the weights at the start, which these are not
    cfg['input_size'] = (3, *image_size)
    if cfg.get('pool_size'):
        reduction = model.feature_info[-1]['reduction']
        cfg['pool_size'] = tuple(-(-side // reduction) for side in image_size)
    with atomic_folder(folder, replace=True) as temporary:
        try:
            save_for_hf(model, temporary, model_args=model_args or None, safe_serialization=True)
        except SafetensorError as error:  # what a full disk is to safetensors
            raise OSError(f'{folder}: cannot be written ({error})') from error
        (temporary / 'model.safetensors').chmod(0o644)  # safetensors writes for the user only
        path = temporary / 'config.json'
        written = json.loads(path.read_text(encoding='utf-8'))
        written.get('model_args', {}).pop('num_classes', None)  # transformers gives it, too, and fails then
        if thresholds:
            written['thresholds'] = list(thresholds)
        path.write_text(json.dumps(with_dtype(written), indent=2), encoding='utf-8')
        write_peer_files(temporary)
