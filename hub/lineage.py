"""The stages of a training: runs of which each starts from the weights of the one before."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm_dpa.train.recipes.recipe import ModelRecipe, Recipe
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.networks import brings_weights, pretrained_origin, released_start

from .card import data_folder
from .sources import describe_source, list_source, start_sources, terms

__all__ = [
    'Stage',
    'all_synthetic',
    'describe_stages',
    'find_run',
    'training_sources',
    'training_stages',
    'write_recipes',
]


@dataclass(frozen=True)
class Stage:
    """A run.

    Attributes:
        recipe: of the run.
        data: what they are, see `timm_dpa.train.data.mixing.TrainingSources.describe`.
    """

    recipe: Recipe
    data: dict[str, Any]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The data sets that the run was trained on, the main one first."""
        return [self.data, *self.data.get('mix', [])]


def find_run(path: Path) -> Path | None:
    """The folder of the run that a file of weights or a model's folder belongs to, or that is one; None for others."""
    found = RunFolder.find(path)
    return found.path if found else None


def training_stages(run: Path) -> list[Stage]:
    """The run and, before it, those that its start leads to, as far as their folders are there.

    Raises:
        ValueError: a recipe, or what a run recorded of its data, cannot be read.
    """
    stages, met = [], set()
    while run is not None and run.resolve() not in met:
        met.add(run.resolve())
        folder = RunFolder(run)
        data = folder.read_data()
        stages.insert(0, Stage(folder.read_recipe(), data))
        start = _start(stages[0].recipe)
        run = find_run(Path(start)) if start else None
    return stages


def _start(recipe: Recipe) -> str | None:
    """What a run began with: a checkpoint replaces all that came before it."""
    return recipe.model.checkpoint or recipe.model.init_from


def all_synthetic(stages: Sequence[Stage]) -> bool:
    """Whether all training images are known to be synthetic: of every stage, and of what the first started from."""
    return bool(stages) and all(source['synthetic'] for source in training_sources(stages))


def training_sources(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Entries of all data sets, see `list_source`; first those behind the first stage's start, and behind teachers."""
    start = start_sources(stages[0].recipe.model) if stages and _has_start(stages[0].recipe) else []
    teachers = [source for name in _teachers(stages) for source in start_sources(ModelRecipe(name=name))]
    found = [*start, *teachers, *(list_source(source) for stage in stages for source in stage.sources)]
    return [source for number, source in enumerate(found) if source not in found[:number]]


def _teachers(stages: Sequence[Stage]) -> list[str]:
    """Weights whose embeddings were the aim of a stage."""
    losses = [stage.recipe.loss for stage in stages]
    return list(dict.fromkeys(loss.teacher for loss in losses if loss.pull and loss.teacher))


def _has_start(recipe: Recipe) -> bool:
    return _start(recipe) is not None or brings_weights(recipe.model.name)


def describe_stages(stages: Sequence[Stage]) -> str:
    """Sentences for a card: which images, at which size and for how long."""
    first = stages[0].recipe
    if len(stages) == 1:
        text = _describe_sources(stages[0])
    else:
        text = f'In {len(stages)} stages, each from the weights of the one before:\n'
        for number, stage in enumerate(stages, start=1):
            same = number > 1 and _images(stage) == _images(stages[number - 2])
            before = stages[max(number - 2, 0)].recipe.model.name
            trunk = f' from the trunk of that `{before}`' if _is_other(before, stage.recipe.model.name) else ''
            text += f'\n{number}. {_describe_length(stage.recipe)}{trunk}: '
            text += 'the same images.' if same else _describe_sources(stage)
    for name in _teachers(stages):
        trained = _describe_known(ModelRecipe(name=name))
        text += f'\n\nIts embeddings were pulled to those of the weights `{name}`{trained}.'
    if released_start(first.model):
        then = f'Then {_describe_length(first)}: ' if len(stages) == 1 else ''
        return f'{_describe_start(first.model)}\n\n{then}{text}'
    if _has_start(first) and pretrained_origin(first.model) is None:
        text += '\n\nTraining started from weights whose own training data are not recorded here.'
    return text


def _describe_start(model: ModelRecipe) -> str:
    name = released_start(model)
    trunk = 'the trunk (all but attention and classifier) of ' if _takes_trunk(model, name) else ''
    return f'Training started from {trunk}the weights `{name}` of timm-dpa{_describe_known(model)}.'


def _describe_known(model: ModelRecipe) -> str:
    """What the weights that a recipe starts from were trained on, as the end of a sentence; empty where unknown."""
    sources = start_sources(model)
    known = any('images' in source for source in sources)
    return f', which were trained on {" and ".join(map(describe_source, sources))}' if known else ''


def _takes_trunk(model: ModelRecipe, released: str) -> bool:
    """Whether a start from released weights is one from their trunk, see `init_backbone`; else from all of them."""
    return model.checkpoint is None and (model.init_from == released or _is_other(released, model.name))


def _is_other(before: str, name: str) -> bool:
    """Whether weights of a model fill no more than the trunk of another one, as far as their names tell."""
    return ':' not in before + name and before.partition('.')[0] != name.partition('.')[0]


def write_recipes(stages: Sequence[Stage], folder: Path, name: str) -> list[str]:
    """Write `recipe.yaml`, and `recipe_1.yaml`, ... of the stages before it; returns the commands that train again.

    Args:
        name: of the model, for the folders of the runs.
    """
    commands, before = [], None
    for number, stage in enumerate(stages, start=1):
        suffix = '' if number == len(stages) else f'_{number}'
        recipe = stage.recipe
        released = released_start(recipe.model)
        if released:  # by its name, where it was the path of its file
            whole = ['model.init_from=null', 'model.checkpoint=null', f'model.name={released}']
            trunk = [f'model.init_from={released}']
            recipe = recipe.override(trunk if _takes_trunk(recipe.model, released) else whole)
        if before is not None:
            whole = recipe.model.checkpoint is not None
            start = f'model.checkpoint={before}' if whole else f'model.init_from={before}/model/model.safetensors'
            recipe = recipe.override([start])
        if recipe.data.mix:
            recipe = recipe.override([f'data.mix={json.dumps([data_folder(data) for data in stage.sources[1:]])}'])
        (folder / f'recipe{suffix}.yaml').write_text(recipe.as_yaml(), encoding='utf-8')
        before = f'runs/{name}{suffix}'
        words = ['timm-dpa', 'train', '--recipe', f'recipe{suffix}.yaml', '--data', data_folder(stage.data)]
        commands.append(shlex.join([*words, '--out', before]))
    return commands


def _describe_length(recipe: Recipe) -> str:
    epochs = recipe.schedule.epochs
    size = recipe.data.image_size
    if not epochs:
        return f'a whitening fitted to {recipe.run.whiten_images:,} images, no step'
    return f'{epochs} epoch{"s" * (epochs != 1)}' + (f' at {size[0]} x {size[1]} pixels' if size else '')


def _images(stage: Stage) -> list[dict[str, Any]]:
    return [source['train'] for source in stage.sources]


def _describe_sources(stage: Stage) -> str:
    first, *others = (_describe_data(source) for source in stage.sources)
    return ' '.join([first, *(f'Mixed into every batch: {other}' for other in others)])


def _describe_data(data: dict[str, Any]) -> str:
    train = data['train']
    kind = 'synthetic images' if data.get('synthetic') else 'images'
    text = f'{train["images"]:,} {kind} of {train["identities"]:,} vehicles, the training part of "{data["name"]}"'
    text += f' (revision `{train["revision"]}`).'
    text = f'{text} {data["description"]}' if data.get('description') else text
    return f'{text} These images: {", ".join(terms(data))}.' if terms(data) else text
