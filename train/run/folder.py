"""The folder of a training run: the one place that knows which files it has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_dpa.files import locked, remove_stale, write_bytes

if TYPE_CHECKING:
    from ..recipes.recipe import Recipe
    from .distributed import Processes

__all__ = ['RunFolder']

#: what may differ between the two halves of a run that was interrupted
_FREE = {
    ('data', 'workers'),
    ('data', 'mix'),  # where it lies; what it holds is compared
    ('data', 'protocol'),
    ('data', 'exclude_same_camera'),
    ('data', 'draws'),
    ('run', 'device'),
    ('run', 'log_every'),
    ('run', 'checkpoint_every'),
    ('run', 'tensorboard'),
}


class RunFolder:
    """Where the files of a training run lie, and what they say. Nothing is read or made before a method is called.

    Args:
        path: the folder.

    Attributes:
        recipe: `recipe.yaml`, the recipe with all its values.
        data: `data.json`, what the data are, see `TrainingSources.describe`.
        log: `run.log`, what the terminal showed.
        steps: `steps.csv`, losses and learning rates.
        metrics: `metrics.csv`, a row for each evaluation.
        tensorboard: folder of TensorBoard's files.
        evaluation: `evaluation.json`, the scores of the best model.
        figures: folder of `training.png` and `cmc.png`.
        model: folder of the best model, as timm loads it.
        weights: its `model.safetensors`.
        checkpoints: folder of `last.pt`, `previous.pt`, `best.pt`, and `start.pt` where the recipe looks back at it.
        lock: held by the process that trains here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recipe = self.path / 'recipe.yaml'
        self.data = self.path / 'data.json'
        self.log = self.path / 'run.log'
        self.steps = self.path / 'steps.csv'
        self.metrics = self.path / 'metrics.csv'
        self.tensorboard = self.path / 'tensorboard'
        self.evaluation = self.path / 'evaluation.json'
        self.figures = self.path / 'figures'
        self.model = self.path / 'model'
        self.weights = self.model / 'model.safetensors'
        self.checkpoints = self.path / 'checkpoints'
        self.last = self.checkpoints / 'last.pt'
        self.best = self.checkpoints / 'best.pt'
        self.start = self.checkpoints / 'start.pt'
        self.lock = self.path / '.run.lock'

    def __repr__(self) -> str:
        return f'RunFolder({str(self.path)!r})'

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> RunFolder | None:
        """The run that a file of weights or a model's folder belongs to, or whose folder `path` is; None for others."""
        path = Path(os.path.abspath(path))
        folder = cls(path.parent if path.is_file() else path)
        if not folder.holds_run() and folder.path.name in (folder.model.name, folder.checkpoints.name):
            folder = cls(folder.path.parent)
        return folder if folder.holds_run() else None

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.recipe.is_file() and self.data.is_file()

    def read_recipe(self) -> Recipe:
        """The recipe of the run.

        Raises:
            FileNotFoundError: no run.
            ValueError: it cannot be read.
        """
        from ..recipes.recipe import load_recipe

        return load_recipe(self.recipe)

    def read_data(self) -> dict[str, Any]:
        """What the data of the run are, see `TrainingSources.describe`.

        Raises:
            FileNotFoundError: no run.
            ValueError: it cannot be read.
        """
        content = _read_json(self.data)
        if not isinstance(content, dict) or not {'name', 'train'} <= content.keys():
            raise ValueError(f'{self.data}: does not say what was trained on; timm-dpa train writes it')
        return content

    def read_evaluation(self) -> dict[str, Any] | None:
        """The scores of the best model, see `Evaluation.as_dict`; None where nothing was evaluated.

        Raises:
            ValueError: they cannot be read.
        """
        return _read_json(self.evaluation) if self.evaluation.is_file() else None

    @contextmanager
    def alone(self, processes: Processes) -> Iterator[None]:
        """Keep other trainings out of the folder while the block runs.

        Raises:
            ValueError: `path` is a file.
            BlockingIOError: another process trains here; the message says which.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f'{self.path}: is a file; give a folder for the run')
        problem: OSError | None = None
        with ExitStack() as stack:
            if processes.is_main:
                try:
                    stack.enter_context(locked(self.lock))
                except OSError as error:
                    problem = error
            problem = processes.broadcast(problem)
            if problem is not None:
                raise problem
            yield

    def open(
        self, recipe: Recipe, data: dict[str, Any], counts: dict[str, Any], processes: Processes
    ) -> dict[str, Any] | None:
        """Check that a run may begin or resume here, and write what it is.

        Args:
            recipe: of the run.
            data: what the data are, for `data.json`.
            counts: what of the data a checkpoint keeps, see `TrainingSources.count`.
            processes: all get what the main one finds.

        Returns:
            The checkpoint to resume from, with `damaged`, what was wrong with the last one; None for a new run.

        Raises:
            ValueError: the folder holds other things, or another run; or all its checkpoints are damaged.
        """
        state: dict[str, Any] | None = None
        problem: Exception | None = None
        if processes.is_main:
            try:
                state = self._open(recipe, data, counts)
            except (OSError, ValueError) as error:
                problem = error
        problem = processes.broadcast(problem)
        if problem is not None:
            raise problem
        return processes.broadcast(state)

    def _open(self, recipe: Recipe, data: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any] | None:
        from .checkpoints import load_checkpoint, load_latest
        from .fine_tuning import needs_start

        state = load_latest(self.checkpoints)
        if state is not None:
            self._check_same(recipe, counts, state)
            if needs_start(recipe):
                state['start'] = load_checkpoint(self.start)['model']
        elif self.path.is_dir() and not self.recipe.is_file() and any(p != self.lock for p in self.path.iterdir()):
            raise ValueError(f'{self.path}: holds other things than a run; give a new or an empty folder')
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.checkpoints):
            remove_stale(folder)
        write_bytes(self.recipe, recipe.as_yaml().encode())
        write_bytes(self.data, json.dumps(data, indent=2).encode())
        return state

    def _check_same(self, recipe: Recipe, counts: dict[str, Any], state: dict[str, Any]) -> None:
        theirs = _with_defaults(state['recipe'])
        differing = {
            f'{section}.{key}': (theirs[section].get(key), value)
            for section, values in recipe.as_dict().items()
            for key, value in values.items()
            if theirs[section].get(key) != value and (section, key) not in _FREE
        }
        epochs, wanted = differing.get('schedule.epochs', (0, 0))
        if len(differing) == 1 and state['epoch'] >= max(1, epochs) and wanted > epochs:
            raise ValueError(
                f'{self.path}: holds a finished run of {epochs} epochs. As its learning rate followed this number, it '
                f'cannot get {wanted}; to train its model further, give --checkpoint {self.path} '
                f'(model.checkpoint={self.path}) and another folder'
            )
        if differing:
            changes = [f'{key} {was!r}, now {now!r}' for key, (was, now) in differing.items()]
            raise ValueError(
                f'{self.path}: holds a run of another recipe ({"; ".join(changes[:3])}); give another folder, or '
                'the same settings to resume'
            )
        if state['data'] != counts:
            raise ValueError(f'{self.path}: holds a run with other data, {state["data"]} instead of {counts}')


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error


def _with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an older version, which lacks the keys that came later."""
    from ..recipes.recipe import Recipe

    return {key: {**values, **recipe.get(key, {})} for key, values in Recipe().as_dict().items()}
