"""A family of models: each architecture trained by the same recipe on the same data, and made ready for the Hub."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from timm.models import list_models

from timm_dpa import FeatureExtractor
from timm_dpa.files import write_bytes
from timm_dpa.train.data.datasets import ReIDData, load_data
from timm_dpa.train.data.mixing import load_sources
from timm_dpa.train.data.provenance import describe_data
from timm_dpa.train.data.query_gallery import check_evaluable
from timm_dpa.train.evaluation.evaluate import evaluate_model, write_evaluation
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.run.distributed import joined_processes
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.trainer import train
from timm_dpa.weights.fetch import file_sha256

from .folder import check_licence, is_finished
from .lineage import Stage
from .release import release_model
from .weights import Release, load_releases

__all__ = ['choose_architectures', 'train_family']

_logger = logging.getLogger(__name__)


def choose_architectures(patterns: Sequence[str]) -> list[str]:
    """Our architectures whose names match one of the patterns, such as `*_resnet18`, sorted.

    Raises:
        ValueError: a pattern matches none.
    """
    chosen = set()
    for pattern in patterns:
        names = list_models(pattern, module='dpa_resnet')
        if not names:
            raise ValueError(f'no model is called {pattern}; timm-dpa models lists all')
        chosen.update(names)
    return sorted(chosen)


def train_family(
    architectures: Sequence[str],
    recipe: Recipe,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    tag: str,
    *,
    tests: Sequence[str | os.PathLike[str]] = (),
    licence: str | None = None,
    progress: bool | None = None,
) -> list[Release]:
    """Train each architecture, or go on where that was stopped, and build its folder, with weights in float16.

    What was done before is kept, as long as the run, the tests and the tag are the same.

    Args:
        architectures: one after the other.
        recipe: of all; only the name of the model is replaced.
        root: of the data, see `load_data`.
        out: folder: `runs/<architecture>/` (a finished run of this recipe and data, from wherever, is kept as it is),
            `models/<architecture>.<tag>/` and their manifest `weights.json`; `tests/<architecture>/<data set>/`.
        tag: of all.
        tests: roots of further data sets, on whose test part, or on all of which where they have none, each model is
            evaluated for its card and the manifest.
        licence: of the weights, see `build_folder`.
        progress: show bars; None shows them on a terminal only.

    Returns:
        The entries of the manifest. None in other processes than the first.

    Raises:
        FileNotFoundError: no such data.
        ValueError: what `train` and `release_model` raise; options of the model, which a tag cannot say; two `tests`
            of one name.
        RuntimeError: the loss of some diverged; the others are done.
    """
    out = Path(out)
    if recipe.model.args:
        raise ValueError(f'model.args={recipe.model.args}: a tag cannot say options of the model')
    about = load_sources(Path(root), recipe.data).describe()
    recipes = {name: _of_architecture(recipe, name) for name in architectures}
    test_sets = _load_tests(tests)
    for name, own in recipes.items():  # what is wrong shows before the work
        Release(name, tag, f'{name}.{tag}', sha256='0' * 64, size=1)
        check_licence([Stage(own, about)], licence, root)
    releases, diverged = [], []
    with joined_processes(recipe.run.device) as processes:  # once: a group cannot be left and joined again
        for name, own in recipes.items():
            run = out / 'runs' / name
            if processes.is_main:
                print(f'{name}: {run}', flush=True)
            try:
                train(own, root, run, progress)
            except FloatingPointError as error:
                if processes.world_size > 1:
                    raise  # the others wait in the middle of a step
                _logger.warning('%s: %s', run, error)
                diverged.append(name)
                continue
            if processes.is_main:
                results = [_evaluate(run, test, out / 'tests' / name) for test in test_sets]
                releases.append(_release(run, name, tag, out, results, licence))
    if diverged:
        raise RuntimeError(f'{", ".join(diverged)}: diverged, see the log in {out / "runs"}; try a smaller optim.lr')
    return releases


def _of_architecture(recipe: Recipe, name: str) -> Recipe:
    values = recipe.as_dict()
    values['model']['name'] = name
    return Recipe.from_dict(values)


def _load_tests(roots: Sequence[str | os.PathLike[str]]) -> list[ReIDData]:
    tests = []
    for root in roots:
        test = load_data(root, test_fraction=1)
        check_evaluable(test)
        if test.root.name in [other.root.name for other in tests]:
            raise ValueError(f'{root}: another test is called {test.root.name}, too')
        tests.append(test)
    return tests


def _evaluate(run: Path, test: ReIDData, folder: Path) -> Path:
    """Evaluate a finished run as `timm-dpa eval` does, unless that was done; returns the folder of the results."""
    folder = folder / test.root.name
    numbers, about = RunFolder(folder).evaluation, describe_data(test)
    if not _newer(numbers, run) or json.loads(numbers.read_text(encoding='utf-8'))['data'] != about:
        folder.mkdir(parents=True, exist_ok=True)
        extractor = FeatureExtractor(f'local-dir:{RunFolder(run).model}')
        result = evaluate_model(extractor, test)
        write_evaluation(result, run.name, folder, data=about, root=str(test.root), model=extractor.describe())
    return folder


def _newer(path: Path, run: Path) -> bool:
    """Whether a file is there and was written after the model of a run."""
    return path.is_file() and path.stat().st_mtime >= RunFolder(run).weights.stat().st_mtime


def _release(
    run: Path, architecture: str, tag: str, out: Path, results: Sequence[Path], licence: str | None
) -> Release:
    """The entry of a finished run, whose folder is built unless it is there and newer than run and results."""
    manifest, models = out / 'weights.json', out / 'models'
    if not manifest.is_file():
        write_bytes(manifest, b'{"weights": []}\n')
    folder = models / f'{architecture}.{tag}'
    if is_finished(folder):
        weights = folder / 'model.safetensors'
        numbers = [RunFolder(path).evaluation for path in (run, *results)]
        measured = [path.stat().st_mtime for path in numbers if path.is_file()]
        same = _newer(weights, run) and weights.stat().st_mtime >= max(measured, default=0)
        for known in load_releases(manifest):
            same_tests = same and len(known.metrics) == len(measured)
            if same_tests and known.name == folder.name and known.sha256 == file_sha256(weights):
                return known
    shutil.rmtree(folder, ignore_errors=True)
    facts = {'results': results, 'licence': licence, 'half': True}
    return release_model(run, tag, manifest=manifest, models=models, packaged=False, **facts)
