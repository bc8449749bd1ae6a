"""Files in the folder of a model by which other packages embed as timm does.

- transformers, and so sentence-transformers, reads `dtype` in `config.json`: weights that are stored as float16 compute
  in float32.
- sentence-transformers reads `modules.json` and `sentence_bert_config.json`: the embedding, not the mean of the last
  map, and its length made 1.
- roboflow's reid reads `reid_config.json` and always `weights.safetensors`, which is a link to `model.safetensors`.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from timm.models import list_models

from timm_dpa.files import write_bytes
from timm_dpa.layers.optional import OPTIONAL_PARTS
from timm_dpa.weights.manifest import PART_TAGS

__all__ = ['LINK', 'with_dtype', 'write_peer_files']

#: the name that reid gives weights
LINK = 'weights.safetensors'
_REID = 'reid_config.json'
_INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest')  # that reid knows
#: written as sentence-transformers 5 and later read them
_SENTENCE_TRANSFORMERS = {
    'modules.json': [
        {'idx': 0, 'name': '0', 'path': '', 'type': 'sentence_transformers.models.Transformer'},
        {'idx': 1, 'name': '1', 'path': '1_Normalize', 'type': 'sentence_transformers.models.Normalize'},
    ],
    'sentence_bert_config.json': {
        'transformer_task': 'feature-extraction',
        'modality_config': {'image': {'method': 'forward', 'method_output_name': 'pooler_output'}},
        'module_output_name': 'sentence_embedding',
    },
}


def with_dtype(config: dict[str, Any]) -> dict[str, Any]:
    """The content of `config.json` with the type that transformers computes in."""
    return {**config, 'dtype': 'float32'}


def write_peer_files(folder: Path, repo_id: str | None = None) -> None:
    """Write the files beside `config.json` and `model.safetensors`; those that are there are replaced.

    A model that no name stands for, because it has options of its own or another backbone, has files of reid only if it
    has a repository: reid makes the network from its name, before it reads weights.

    Args:
        folder: of the model.
        repo_id: `org/name` on the Hub that the folder is for.

    Raises:
        OSError: they cannot be written.
    """
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    for name, content in _SENTENCE_TRANSFORMERS.items():
        _write(folder / name, content)
    described = _describe_for_reid(config, repo_id)
    if described is None:
        for name in (_REID, LINK):
            (folder / name).unlink(missing_ok=True)
        return
    _write(folder / _REID, described)
    if not os.path.lexists(folder / LINK):
        _link(folder)


def _write(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=2) + '\n').encode())


def _link(folder: Path) -> None:
    try:
        os.symlink('model.safetensors', folder / LINK)
    except OSError:  # Windows allows it to some users only, and some file systems have none
        with suppress(OSError):  # nor those: without it, reid names the file that it misses
            os.link(folder / 'model.safetensors', folder / LINK)


def _describe_for_reid(config: dict[str, Any], repo_id: str | None) -> dict[str, Any] | None:
    """`reid_config.json`; None where reid cannot make the network, or would prepare images in another way."""
    prepared = config['pretrained_cfg']
    if prepared.get('crop_mode') != 'squash' or prepared.get('interpolation') not in _INTERPOLATIONS:
        return None
    architecture = _name_for_timm(config, repo_id)
    if architecture is None:
        return None
    return {
        'architecture': f'timm:{architecture}',
        'preprocessing': {
            'input_size': list(prepared['input_size'][1:]),
            'mean': list(prepared['mean']),
            'std': list(prepared['std']),
            'interpolation': prepared['interpolation'],
            'to_rgb': True,  # it is given frames of OpenCV, and files by path, of which it swaps the first only
            'resize_mode': 'stretch',
        },
    }


def _name_for_timm(config: dict[str, Any], repo_id: str | None) -> str | None:
    """What makes the network with random weights, wherever the folder is."""
    usual = {'in_chans': 3, 'global_pool': 'gem', **dict.fromkeys(OPTIONAL_PARTS, False)}
    options = {key: value for key, value in config.get('model_args', {}).items() if usual.get(key, ...) != value}
    if config['architecture'] in list_models(module='dpa_resnet'):
        if not options:
            return str(config['architecture'])
        for tag, parts in PART_TAGS.items():
            if options == dict.fromkeys(parts, True):
                return f'{config["architecture"]}.{tag}'
    return f'hf-hub:{repo_id}' if repo_id else None
