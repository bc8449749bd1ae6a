"""What weights were trained on: the runs behind them, each from the weights of the one before, and all data sets.

This is what a card, the manifest and `timm-dpa models` say of the training.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm_dpa.train.recipes.recipe import ModelRecipe, Recipe
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.networks import brings_weights, pretrained_origin, released_start
from timm_dpa.weights.manifest import read_manifest

__all__ = [
    'TrainingRun',
    'apply_about',
    'data_folder',
    'describe_runs',
    'list_source',
    'only_synthetic',
    'real_sources',
    'terms',
    'training_runs',
    'training_sources',
    'write_recipes',
]


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
        recipe: the recipe of the run.
        data: what it was trained on, see `timm_dpa.train.data.mixing.TrainingSources.describe`.
    """

    recipe: Recipe
    data: dict[str, Any]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The data sets that the run was trained on, the main one first."""
        return [self.data, *self.data.get('mix', [])]


def training_runs(run: RunFolder | None) -> list[TrainingRun]:
    """A run and, before it, those that its start leads to, as far as their folders are there.

    Raises:
        ValueError: a recipe, or what a run recorded of its data, cannot be read.
    """
    runs: list[TrainingRun] = []
    met: set[Path] = set()
    while run is not None and run.path.resolve() not in met:
        met.add(run.path.resolve())
        data = run.read_data()
        runs.insert(0, TrainingRun(run.read_recipe(), data))
        start = _start(runs[0].recipe)
        run = RunFolder.find(start) if start else None
    return runs


def _start(recipe: Recipe) -> str | None:
    """What a run began with: a checkpoint replaces all that came before it."""
    return recipe.model.checkpoint or recipe.model.init_from


def training_sources(runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """Entries of all data sets, see `list_source`; first those behind the first run's start, and behind teachers."""
    start = _start_sources(runs[0].recipe.model) if runs and _has_start(runs[0].recipe) else []
    teachers = [source for name in _teachers(runs) for source in _start_sources(ModelRecipe(name=name))]
    found = [*start, *teachers, *(list_source(source) for run in runs for source in run.sources)]
    return [source for number, source in enumerate(found) if source not in found[:number]]


def _teachers(runs: Sequence[TrainingRun]) -> list[str]:
    """Weights whose embeddings were the aim of a run."""
    losses = [run.recipe.loss for run in runs]
    return list(dict.fromkeys(loss.teacher for loss in losses if loss.pull and loss.teacher))


def _has_start(recipe: Recipe) -> bool:
    return _start(recipe) is not None or brings_weights(recipe.model.name)


def describe_runs(runs: Sequence[TrainingRun]) -> str:
    """Sentences for a card: which images, at which size and for how long."""
    first = runs[0].recipe
    if len(runs) == 1:
        text = _describe_sources(runs[0])
    else:
        text = f'In {len(runs)} training runs, each from the weights of the one before:\n'
        for number, run in enumerate(runs, start=1):
            same = number > 1 and _images(run) == _images(runs[number - 2])
            before = runs[max(number - 2, 0)].recipe.model.name
            trunk = f' from the trunk of that `{before}`' if _is_other(before, run.recipe.model.name) else ''
            text += f'\n{number}. {_describe_length(run.recipe)}{trunk}: '
            text += 'the same images.' if same else _describe_sources(run)
    for name in _teachers(runs):
        trained = _describe_known(ModelRecipe(name=name))
        text += f'\n\nIts embeddings were pulled toward those of the weights `{name}`{trained}.'
    if released_start(first.model):
        then = f'Then {_describe_length(first)}: ' if len(runs) == 1 else ''
        return f'{_describe_start(first.model)}\n\n{then}{text}'
    if _has_start(first) and pretrained_origin(first.model) is None:
        text += '\n\nTraining started from weights whose own training data are not recorded here.'
    return text


def _describe_start(model: ModelRecipe) -> str:
    name = str(released_start(model))
    trunk = 'the trunk (all but attention and classifier) of ' if _takes_trunk(model, name) else ''
    return f'Training started from {trunk}the weights `{name}` of timm-dpa{_describe_known(model)}.'


def _describe_known(model: ModelRecipe) -> str:
    """What the weights that a recipe starts from were trained on, as the end of a sentence; empty where unknown."""
    sources = _start_sources(model)
    known = any('images' in source for source in sources)
    return f', which were trained on {" and ".join(map(_describe_source, sources))}' if known else ''


def _takes_trunk(model: ModelRecipe, released: str) -> bool:
    """Whether a start from released weights is one from their trunk, see `init_backbone`; else from all of them."""
    return model.checkpoint is None and (model.init_from == released or _is_other(released, model.name))


def _is_other(before: str, name: str) -> bool:
    """Whether weights of a model fill no more than the trunk of another one, as far as their names tell."""
    return ':' not in before + name and before.partition('.')[0] != name.partition('.')[0]


def write_recipes(runs: Sequence[TrainingRun], folder: Path, name: str) -> list[str]:
    """Write `recipe.yaml`, and `recipe_1.yaml`, ... of the runs before it; returns the commands that train again.

    Args:
        name: of the model, for the folders of the runs.
    """
    commands: list[str] = []
    before: str | None = None
    for number, run in enumerate(runs, start=1):
        suffix = '' if number == len(runs) else f'_{number}'
        recipe = run.recipe
        released = released_start(recipe.model)
        if released:  # by its name, where it was the path of its file
            whole = ['model.init_from=null', 'model.checkpoint=null', f'model.name={released}']
            trunk = [f'model.init_from={released}']
            recipe = recipe.override(trunk if _takes_trunk(recipe.model, released) else whole)
        if before is not None:
            start = (
                f'model.checkpoint={before}'
                if recipe.model.checkpoint
                else f'model.init_from={before}/model/model.safetensors'
            )
            recipe = recipe.override([start])
        if recipe.data.mix:
            recipe = recipe.override([f'data.mix={json.dumps([data_folder(data) for data in run.sources[1:]])}'])
        (folder / f'recipe{suffix}.yaml').write_text(recipe.as_yaml(), encoding='utf-8')
        before = f'runs/{name}{suffix}'
        words = ['timm-dpa', 'train', '--recipe', f'recipe{suffix}.yaml', '--data', data_folder(run.data)]
        commands.append(shlex.join([*words, '--out', before]))
    return commands


def _describe_length(recipe: Recipe) -> str:
    epochs = recipe.schedule.epochs
    size = recipe.data.image_size
    if not epochs:
        colors = 'color normalization, and ' if recipe.model.args.get('color_norm') else ''
        return f'{colors}a whitening fitted to {recipe.run.whiten_images:,} images, no step'
    before = ''.join(f', the first {n} at {side} pixels' for n, side in recipe.schedule.early_sizes[:1])
    before += ''.join(f', {n} at {side}' for n, side in recipe.schedule.early_sizes[1:])
    return f'{epochs} epoch{"s" * (epochs != 1)}' + (f' at {size[0]} x {size[1]} pixels{before}' if size else '')


def _images(run: TrainingRun) -> list[dict[str, Any]]:
    return [source['train'] for source in run.sources]


def _describe_sources(run: TrainingRun) -> str:
    first, *others = (_describe_data(source) for source in run.sources)
    return ' '.join([first, *(f'Mixed into every batch: {other}' for other in others)])


def _describe_data(data: dict[str, Any]) -> str:
    train = data['train']
    kind = 'synthetic images' if data.get('synthetic') else 'images'
    text = f'{train["images"]:,} {kind} of {train["identities"]:,} vehicles, the training part of "{data["name"]}"'
    text += f' (revision `{train["revision"]}`).'
    text = f'{text} {data["description"]}' if data.get('description') else text
    return f'{text} These images: {", ".join(terms(data))}.' if terms(data) else text


def list_source(data: dict[str, Any]) -> dict[str, Any]:
    """The entry of a data set, see `timm_dpa.train.data.provenance.describe_data`.

    Returns:
        `name`; `synthetic`, whether that is known; `images`, `identities` and `revision` of its training part; and
        `license` and `credit` where the set says them.
    """
    said = {key: data[key] for key in ('license', 'credit') if key in data}
    name = ' '.join(data['name'].split())
    return {'name': name, 'synthetic': bool(data.get('synthetic')), **data['train'], **said}


def _start_sources(model: ModelRecipe) -> list[dict[str, Any]]:
    """What the weights that a training started from were trained on, as far as that is known: some are named only."""
    released = released_start(model)
    known = read_manifest()[released].trained_on if released else None
    if known:
        return known
    name = released or pretrained_origin(model)
    return [{'name': f'weights {name}' if name else 'weights of unknown origin', 'synthetic': False}]


def real_sources(sources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The data sets among some entries that are not known to be synthetic."""
    return [source for source in sources if 'images' in source and not source['synthetic']]


def _describe_source(source: dict[str, Any]) -> str:
    """An entry in some words."""
    if 'images' not in source:
        return f'the images of {source["name"]}'
    kind = 'synthetic images' if source['synthetic'] else 'images'
    said = [f'"{source["name"]}"', *terms(source)]
    return f'{source["images"]:,} {kind} of {source["identities"]:,} vehicles ({", ".join(said)})'


def terms(source: dict[str, Any]) -> list[str]:
    """License and credit of a data set or an entry, as far as it says them."""
    credit = [f'credit: {source["credit"]}'] if source.get('credit') else []
    return [*([source['license']] if source.get('license') else []), *credit]


def apply_about(data: dict[str, Any], about: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A data set's description, with those that were mixed into it, after `about` has replaced what some say of them.

    Args:
        about: contents of a `dataset.json`, by the name that the description has so far, or by the revision of its
            training part, where two sets have one name.
    """
    said = {**data, **(about.get(data['train']['revision']) or about.get(data['name'], {}))}
    return {**said, 'mix': [apply_about(other, about) for other in data['mix']]} if 'mix' in data else said


def only_synthetic(sources: Sequence[dict[str, Any]]) -> bool:
    """Whether the data sets are known, and all of them are synthetic."""
    return bool(sources) and all(source['synthetic'] for source in sources)


def data_folder(data: dict[str, Any]) -> str:
    """How commands on a card call the folder of a data set, see `timm_dpa.train.data.provenance.describe_data`."""
    return re.sub(r'\s+', '-', data['name'])
