"""The evaluations of a run, and the model that it keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.files import write_bytes

from ..data.datasets import ReIDData
from ..evaluation.evaluate import Evaluation, evaluate_model, write_evaluation
from ..evaluation.tables import METRICS
from ..evaluation.thresholds import choose_thresholds
from ..recipes.recipe import Recipe
from .checkpoints import save_checkpoint
from .distributed import Processes
from .fine_tuning import compare, comparison_table
from .folder import RunFolder
from .log import RunLog, table_bytes
from .networks import save_model_folder

__all__ = ['RunEvaluations', 'in_percent']

_SHOWN = ('mAP', 'rank1', 'mINP')


def in_percent(row: dict[str, Any]) -> str:
    """The scores of an evaluation for the log."""
    return ', '.join(f'{METRICS[key]} {100 * row[key]:.2f} %' for key in _SHOWN)


class RunEvaluations:
    """Evaluates the models of a run, and keeps the best one as the model of the run.

    Args:
        recipe: of the run.
        data: whose test part is evaluated.
        folder: of the run.
        processes: that share the work.
        image_size: height and width.
        progress: see `train`.

    Attributes:
        history: rows of `metrics.csv`.
        best: the row with the highest mAP; None before the first.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ReIDData,
        folder: RunFolder,
        processes: Processes,
        image_size: tuple[int, int],
        progress: bool | None,
    ) -> None:
        self.recipe, self.data, self.folder, self.processes = recipe, data, folder, processes
        self.image_size, self.progress = image_size, progress
        self.possible = len(data.test) > 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def due(self, done: int) -> bool:
        """Whether the run evaluates after that many epochs."""
        every = self.recipe.run.evaluate_every
        return self.possible and (done >= self.recipe.schedule.epochs or (every > 0 and done % every == 0))

    def measure(self, row: dict[str, Any], model: nn.Module, log: RunLog) -> dict[str, Any]:
        """The row of an epoch with the metrics of the test part; the model is kept where it is the best so far.

        An evaluation that fails is said in the log, and the model is kept where there is no measured one.
        """
        try:
            result = self._evaluate(model)
        except (ValueError, RuntimeError) as error:
            log.say(f'the evaluation of epoch {row["epoch"]} failed, and the training continues without it: {error}')
            if self.best is None:
                self.keep(model, row['epoch'])
            return row
        row = row | {key: result.metrics[key] for key in METRICS}
        log.scalars({key: row[key] for key in _SHOWN}, row['step'], 'test')
        self.history.append(row)
        if self.best is None or row['mAP'] > self.best['mAP']:
            self.best = row
            self.keep(model, row['epoch'], result)
        if self.processes.is_main:
            write_bytes(self.folder.metrics, table_bytes(self.history))
        return row

    def keep(self, model: nn.Module, epoch: int, result: Evaluation | None = None) -> None:
        """Make it the model of the run: `best.pt`, `model/`, and the files of its evaluation."""
        if not self.processes.is_main:
            return
        weights: dict[str, torch.Tensor] = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        recipe = self.recipe.as_dict()
        best = {'model': weights, 'metrics': self.best, 'recipe': recipe}
        save_checkpoint(self.folder.best, best, keep_previous=False)
        origin: dict[str, Any] = {'epoch': epoch, 'recipe': recipe, 'data': self.folder.read_data()}
        thresholds = choose_thresholds([{**origin, **result.as_dict()}]) if result else []
        save_model_folder(self.recipe.model, self.image_size, weights, self.folder.model, thresholds)
        if result is not None:
            write_evaluation(result, self.recipe.model.name, self.folder.path, **origin)

    def conclude(self, log: RunLog) -> None:
        """Say what came out, and draw the figures of the run."""
        if not self.processes.is_main:
            return
        if self.best is not None:
            log.say(f'best: epoch {self.best["epoch"]}, mAP {100 * self.best["mAP"]:.2f} %')
        comparison = compare(self.history)
        if comparison is not None:
            for line in comparison_table(*comparison).splitlines():
                log.say(line)
        try:
            from ..figures.curves import run_figures

            for path in run_figures(self.folder.path):
                log.say(f'figure: {path}')
        except ImportError:
            log.say("no figures: pip install 'timm-dpa[train]'")

    def _evaluate(self, model: nn.Module) -> Evaluation:
        run, data = self.recipe.run, self.recipe.data
        extractor = FeatureExtractor(
            model,
            precision=run.precision,
            batch_size=max(1, self.recipe.batch.size // self.processes.world_size),
            image_size=self.image_size,
            flip=run.flip,
        )
        return evaluate_model(
            extractor,
            self.data,
            data.protocol,
            draws=data.draws,
            exclude_same_camera=data.exclude_same_camera,
            seed=0,  # of the protocol: the same for all runs that are compared
            processes=self.processes,
            progress=self.progress,
        )
