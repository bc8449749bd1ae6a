"""A zoo: architectures that are trained by the same recipe on the same data, and evaluated on the same tests."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from timm_dpa import FeatureExtractor

from .data.datasets import ReIDData, load_data
from .data.provenance import describe_data
from .data.query_gallery import check_evaluable
from .evaluation.evaluate import evaluate_model, write_evaluation
from .recipes.recipe import Recipe
from .run.distributed import joined_processes
from .run.folder import RunFolder
from .run.trainer import train

__all__ = ['is_newer', 'train_family']

_logger = logging.getLogger(__name__)


def train_family(
    architectures: Sequence[str],
    recipe: Recipe,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tests: Sequence[str | os.PathLike[str]] = (),
    progress: bool | None = None,
) -> Iterator[tuple[str, Path, list[Path]]]:
    """Train and evaluate one architecture after the other, resume the one that was interrupted, and skip finished ones.

    Args:
        architectures: names of our models.
        recipe: of all; only the name of the model is replaced.
        root: of the data, see `load_data`.
        out: folder: `runs/<architecture>/` (a finished run of this recipe and data, from wherever, is kept as it is),
            and `tests/<architecture>/<data set>/`.
        tests: roots of further data sets on which each model is evaluated: on their test part, or on all of it where
            they have none.
        progress: show bars; None shows them on a terminal only.

    Yields:
        The architecture, the folder of its run and those of its further evaluations, as soon as they are complete.
        Nothing in other processes than the first.

    Raises:
        FileNotFoundError: no such data.
        ValueError: what `train` raises; two `tests` of one name.
        RuntimeError: the loss of some diverged; the others are done.
    """
    out = Path(out)
    test_sets = _load_tests(tests)
    diverged = []
    with joined_processes(recipe.run.device) as processes:  # once: a group cannot be left and joined again
        for name in architectures:
            run = out / 'runs' / name
            if processes.is_main:
                print(f'{name}: {run}', flush=True)
            try:
                train(recipe.override([f'model.name={name}']), root, run, progress)
            except FloatingPointError as error:
                if processes.world_size > 1:
                    raise  # the others wait in the middle of a step
                _logger.warning('%s: %s', run, error)
                diverged.append(name)
                continue
            if processes.is_main:
                yield name, run, [_evaluate(run, test, out / 'tests' / name) for test in test_sets]
    if diverged:
        raise RuntimeError(f'{", ".join(diverged)}: diverged, see the log in {out / "runs"}; try a smaller optim.lr')


def _load_tests(roots: Sequence[str | os.PathLike[str]]) -> list[ReIDData]:
    tests: list[ReIDData] = []
    for root in roots:
        test = load_data(root, test_fraction=1)
        check_evaluable(test)
        if test.root.name in [other.root.name for other in tests]:
            raise ValueError(f'{root}: another test is called {test.root.name} as well')
        tests.append(test)
    return tests


def _evaluate(run: Path, test: ReIDData, folder: Path) -> Path:
    """Evaluate a finished run as `timm-dpa eval` does, unless it has been; returns the folder of the results."""
    folder = folder / test.root.name
    numbers, about = RunFolder(folder).evaluation, describe_data(test)
    if not is_newer(numbers, run) or json.loads(numbers.read_text(encoding='utf-8'))['data'] != about:
        folder.mkdir(parents=True, exist_ok=True)
        extractor = FeatureExtractor(f'local-dir:{RunFolder(run).model}')
        result = evaluate_model(extractor, test)
        write_evaluation(result, run.name, folder, data=about, root=str(test.root), model=extractor.describe())
    return folder


def is_newer(path: Path, run: Path) -> bool:
    """Whether a file is there and was written after the model of a run."""
    return path.is_file() and path.stat().st_mtime >= RunFolder(run).weights.stat().st_mtime
