"""A copy of the package, for processes that are to see another manifest or other models than this checkout has."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm_dpa
import timm_dpa.hub
import timm_dpa.synth
import timm_dpa.train

#: what the folder of a published model holds
MODEL_FILES = [
    'README.md',
    'config.json',
    'model.safetensors',
    'modules.json',
    'ranks.png',
    'recipe.yaml',
    'reid_config.json',
    'release.json',
    'sentence_bert_config.json',
    'test/golden.safetensors',
    'weights.safetensors',
]


def copy_package(folder: Path, entries: Iterable[Any] = ()) -> Path:
    """Copy all rooms, as an installation has them, without the models that come with it.

    Args:
        folder: to make.
        entries: of the manifest, as dictionaries or `Release`.

    Returns:
        `folder`, which belongs on PYTHONPATH.
    """
    package = folder / 'timm_dpa'
    # an editable install finds the other rooms beside the package, a copy holds them
    rooms = {timm_dpa: '', timm_dpa.train: 'train', timm_dpa.synth: 'synth', timm_dpa.hub: 'hub'}
    for room, place in rooms.items():
        ignored = shutil.ignore_patterns('__pycache__', 'models')
        shutil.copytree(Path(room.__file__).parent, package / place, ignore=ignored, dirs_exist_ok=True)
    content = [entry if isinstance(entry, dict) else dataclasses.asdict(entry) for entry in entries]
    (package / 'weights' / 'manifest.json').write_text(json.dumps({'weights': content}), encoding='utf-8')
    return folder


def models_of(site: Path) -> Path:
    """Where a copy looks for the models that come with it."""
    return site / 'timm_dpa' / 'hub' / 'models'
