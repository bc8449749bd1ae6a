"""The training loop: resumable at any moment, on one device or on several."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from timm.data import resolve_data_config
from torch import nn

from ..data.mixing import TrainingSources, load_sources
from ..data.query_gallery import check_evaluable, warn_about
from ..recipes.recipe import Recipe
from .batches import Batch, TrainingBatches, derive_seed
from .checkpoints import save_checkpoint
from .distributed import Processes, joined_processes
from .evaluations import RunEvaluations, in_percent
from .fine_tuning import check_fine_tuning, compare, keep_start
from .folder import RunFolder
from .interrupts import Interrupts
from .learner import Learner
from .log import RunLog
from .networks import create_network, start_network
from .whitening import fit_whitening

__all__ = ['TrainResult', 'Trainer', 'train']


@dataclass(frozen=True)
class TrainResult:
    """Where a run ended.

    Attributes:
        folder: of the run.
        epochs, steps: done in all.
        seconds: of training, without evaluations.
        best: row of `metrics.csv` with the highest mAP; None where nothing was evaluated.
        comparison: rows of the start and of the best epoch after it; None where these were not compared.
        finished_before: whether there was nothing left to do.
    """

    folder: Path
    epochs: int
    steps: int
    seconds: float
    best: dict[str, Any] | None
    finished_before: bool = False
    comparison: tuple[dict[str, Any], dict[str, Any]] | None = None


def train(
    recipe: Recipe, root: str | os.PathLike[str], out: str | os.PathLike[str], progress: bool | None = None
) -> TrainResult:
    """Train the model of a recipe, or resume a run in `out` that was stopped.

    On the CPU, with one process, an interrupted run ends with the weights of an uninterrupted one, bit for bit. What
    would make the first evaluation fail is found before the first step; an evaluation that fails all the same is said
    in the log, and the training continues.

    Args:
        recipe: see `load_recipe`.
        root: of the data, see `load_data`.
        out: folder of the run, see `RunFolder` for its files. One process at a time trains in it.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        FileNotFoundError: no such data or weights.
        ValueError: data, recipe or an existing run in `out` that do not fit together.
        BlockingIOError: another process trains in `out`; the message says which.
        FloatingPointError: the loss is not finite any more; the last checkpoint is good.
        OSError: files cannot be written; the last checkpoint is good.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    folder = RunFolder(out)
    with joined_processes(recipe.run.device) as processes:
        sources = load_sources(Path(root), recipe.data)
        with folder.alone(processes):
            return Trainer(recipe, sources, folder, processes, progress).train()


class Trainer:
    """A run: made or restored by the constructor, continued to its end by `train`.

    Args:
        recipe: see `load_recipe`.
        sources: the data, see `load_sources`.
        folder: of the run, which no other process may use, see `RunFolder.alone`.
        processes: this one among all.
        progress: see `train`.

    Attributes:
        learner: what takes the steps.
        batches: of any epoch.
        evaluations: what was measured so far.
        epoch: how many are done.
        batch: how many of the next epoch are done.

    Raises:
        FileNotFoundError, ValueError: see `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: TrainingSources,
        folder: RunFolder,
        processes: Processes,
        progress: bool | None = None,
    ) -> None:
        self.recipe, self.sources, self.folder, self.processes = recipe, sources, folder, processes
        self.progress = progress
        data, values = sources.sources[0], recipe.data
        self._evaluated = None
        if len(data.test):
            self._evaluated = check_evaluable(data, values.protocol, values.draws, values.exclude_same_camera)
        check_fine_tuning(recipe)
        self.counts = sources.count()
        state = folder.open(recipe, sources.describe(), self.counts, processes)
        self.resumed, self.damaged = state is not None, state['damaged'] if state else []

        torch.manual_seed(recipe.run.seed)
        model = create_network(recipe.model, sources.identities, recipe.data.image_size)
        self.started_from = [] if state else start_network(model, recipe.model)
        start = keep_start(model, recipe, state, folder, processes)
        self.batches = TrainingBatches(sources, recipe, resolve_data_config(model=model), processes)
        steps = -(-len(self.batches) // recipe.batch.accumulate)
        self.learner = Learner(recipe, model, start, steps, processes)
        self.learner.load_targets(sources.paths)
        size = self.batches.image_size
        self.evaluations = RunEvaluations(recipe, data, folder, processes, size, progress)
        self.epoch = self.batch = self.saved_step = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.log: RunLog
        if state:
            self.learner.restore(state)
            self.epoch, self.batch, self.saved_step = state['epoch'], state['batch'], state['step']
            self.seconds, self.sums = state['seconds'], state['sums']
            self.evaluations.history, self.evaluations.best = state['history'], state['best']

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            **self.learner.state(),
            'epoch': self.epoch,
            'batch': self.batch,
            'seconds': self.seconds,
            'sums': self.sums,
            'history': self.evaluations.history,
            'best': self.evaluations.best,
            'seed': self.recipe.run.seed,
            'recipe': self.recipe.as_dict(),
            'data': self.counts,
        }

    def _save(self) -> None:
        if not self.processes.is_main:
            return
        if not self.learner.is_finite():
            self._fail('the weights are not finite')
        try:
            save_checkpoint(self.folder.last, self.state())
        except OSError as error:
            raise OSError(
                f'{error}; the checkpoint of step {self.saved_step} is good: free space and run the same command'
            ) from error
        self.saved_step = self.learner.step

    def _fail(self, what: str) -> None:
        raise FloatingPointError(
            f'{what} at step {self.learner.step + 1} (epoch {self.epoch + 1}), learning rate '
            f'{self.learner.learning_rate:.3g}; the checkpoint of step {self.saved_step} is good. Try a smaller '
            'optim.lr, optim.clip_grad=5, or run.precision=fp32'
        )

    # --- the run ------------------------------------------------------------------------------------------------------

    def train(self) -> TrainResult:
        """Train to the end of the run; raises what `train` of this module does."""
        schedule = self.recipe.schedule
        epochs = max(1, schedule.epochs)  # no epoch is one without steps
        finished_before = self.epoch >= epochs
        if not finished_before:
            with self.session():
                self._introduce()
                self._measure_start()
                self.learner.prepare()
                while self.epoch < epochs:
                    if schedule.epochs:
                        self.train_epoch()
                    row = self._close_epoch()
                    self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
                    self._save()
                    self._report(row)
                self.evaluations.conclude(self.log)
        elif not self.folder.figures.is_dir():  # killed after the last checkpoint
            with RunLog(self.folder, self.learner.step, self.processes.is_main, False) as self.log:
                self.evaluations.conclude(self.log)
        evaluations = self.evaluations
        return TrainResult(
            self.folder.path,
            self.epoch,
            self.learner.step,
            self.seconds,
            evaluations.best,
            finished_before,
            compare(evaluations.history),
        )

    @contextmanager
    def session(self) -> Iterator[None]:
        """What `train_epoch` needs around it: the log, the bar, and a watch on signals."""
        run, size, per_epoch = self.recipe.run, self.recipe.batch.size, len(self.batches) * self.recipe.batch.size
        hidden = True if not self.processes.is_main else None if self.progress is None else not self.progress
        bar: tqdm = tqdm(
            total=self.recipe.schedule.epochs * per_epoch,
            initial=self.epoch * per_epoch + self.batch * size,
            unit='image',
            unit_scale=True,
            desc='training',
            disable=hidden,
        )
        with (
            Interrupts(self.processes, run.log_every) as self.interrupts,
            _fastest_convolutions(),
            RunLog(self.folder, self.learner.step, self.processes.is_main, run.tensorboard) as self.log,
            bar as self.bar,
        ):
            try:
                yield
            finally:
                self.batches.close()

    def _introduce(self) -> None:
        for problem in self.damaged:
            self.log.say(f'{problem}; took the one before it')
        if self.resumed:
            self.log.say(f'resumes from step {self.learner.step} (epoch {self.epoch + 1})')
        else:
            parameters = sum(value.numel() for value in self.learner.model.parameters()) / 1e6
            self.log.say(f'{self.recipe.model.name}, {parameters:.1f} M parameters; ' + '; '.join(self.started_from))
            data = self.counts
            self.log.say(
                f'{data["images"]} training images of {data["identities"]} identities, {data["test_images"]} test '
                f'images ({data["layout"]}); {len(self.batches)} batches of {self.recipe.batch.size} an epoch'
            )
            for line in self.sources.introduce():
                self.log.say(line)
        if self._evaluated is not None:
            warn_about(self.sources.sources[0], self._evaluated)
        height, width = self.batches.image_size
        self.log.say(
            f'{self.processes.world_size} process{"es" * (self.processes.world_size > 1)} on {self.processes.device}, '
            f'{self.learner.autocast or torch.float32}, {height} x {width} px, seed {self.recipe.run.seed}, '
            f'torch {torch.__version__}'
        )

    def _measure_start(self) -> None:
        """Evaluate the weights that a run begins with, which are its model until better ones come."""
        if not self.recipe.run.compare_start or self.resumed:
            return
        if not self.evaluations.possible:
            self.log.say('no test part: nothing says whether the training helps')
            return
        row = self.evaluations.measure(
            {'epoch': 0, 'step': 0, 'seconds': 0.0}, self.learner.evaluated_model(), self.log
        )
        if 'mAP' in row:
            self.log.say(f'before training: {in_percent(row)}')

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch] | None = None) -> None:
        """Take the steps of an epoch that are left, inside `session`.

        Args:
            batches: instead of those of the data, as many as are left.

        Raises:
            ImageError, FloatingPointError, OSError, KeyboardInterrupt: see `train`.
        """
        recipe, length = self.recipe, len(self.batches)
        size = self.batches.size_of(self.epoch)
        if size != (self.batches.size_of(self.epoch - 1) if self.epoch else self.batches.image_size):
            self.log.say(f'images of {size[0]} x {size[1]} px from epoch {self.epoch + 1}')
        since, images = time.perf_counter(), 0
        recent: dict[str, torch.Tensor] = {}
        counted = 0
        for batch in self.batches.epoch(self.epoch, self.batch) if batches is None else batches:
            for message in batch[-1]:
                self.log.say(f'skipped: {message}')
            first = self.batch % recipe.batch.accumulate == 0
            last = (self.batch + 1) % recipe.batch.accumulate == 0 or self.batch + 1 == length
            if first:
                self.learner.begin_step()
            for key, value in self._backward(batch, last).items():
                recent[key] = recent[key] + value if key in recent else value
            counted += 1
            self.batch += 1
            images += recipe.batch.size
            self.bar.update(recipe.batch.size)
            if not last:
                continue
            self.learner.update()
            stopping = self.interrupts.stopping(self.learner.step)
            due = recipe.run.checkpoint_every and self.learner.step % recipe.run.checkpoint_every == 0
            if self.learner.step % recipe.run.log_every == 0 or self.batch == length or due or stopping:
                elapsed = time.perf_counter() - since
                self.seconds += elapsed
                self._note(recent, counted, images / elapsed)
                recent, counted = {}, 0
                if due or stopping or (self.batch == length and self.evaluations.due(self.epoch + 1)):
                    self._save()
                since, images = time.perf_counter(), 0
            if stopping:
                self.log.say(f'interrupted at step {self.learner.step}, checkpoint written')
                raise KeyboardInterrupt

    def _backward(self, batch: Batch, last: bool) -> dict[str, torch.Tensor]:
        run, accumulate = self.recipe.run, self.recipe.batch.accumulate
        # state of its own for each batch: what happens in between, such as an evaluation, changes nothing
        torch.manual_seed(derive_seed(run.seed, 1 + self.processes.rank, self.epoch, self.batch))
        parts = min(accumulate, len(self.batches) - (self.batch - self.batch % accumulate))
        losses = self.learner.backward(*batch[:3], parts, last)
        if self.processes.device.type == 'cpu':  # elsewhere asking would make the device wait; see _note
            self._check_finite({key: float(value) for key, value in losses.items()})
        return losses

    def _check_finite(self, losses: dict[str, float]) -> None:
        for key, value in losses.items():
            if not np.isfinite(value):
                self._fail(f'the loss ({key}) is {value}')

    def _note(self, recent: dict[str, torch.Tensor], counted: int, rate: float) -> None:
        """Add the recent losses to those of the epoch, and write a row of the log."""
        losses = {key: float(value) / counted for key, value in recent.items()}
        self._check_finite(losses)
        for key, value in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + value * counted
        self.sums['batches'] = self.sums.get('batches', 0) + counted
        row = {'step': self.learner.step, 'epoch': self.epoch + 1, 'lr': self.learner.learning_rate}
        self.log.step({**row, **losses, 'images_per_second': rate})
        self.bar.set_postfix_str(f'epoch {self.epoch + 1}/{self.recipe.schedule.epochs}, loss {losses["loss"]:.3f}')

    # --- the end of an epoch ------------------------------------------------------------------------------------------

    def _close_epoch(self) -> dict[str, Any]:
        """Evaluate if it is time; the row of the epoch."""
        done, batches = self.epoch + 1, self.sums.get('batches', 0)
        row = {'epoch': done, 'step': self.learner.step, 'seconds': self.seconds}
        row |= {key: value / batches for key, value in self.sums.items() if key != 'batches'}
        final = done >= self.recipe.schedule.epochs
        if not (final or self.evaluations.due(done)):
            return row
        model = self._final_model() if final else self.learner.evaluated_model()
        if self.evaluations.possible:
            return self.evaluations.measure(row, model, self.log)
        self.evaluations.keep(model, done)
        return row

    def _final_model(self) -> nn.Module:
        """What the run ends with: a copy whose embeddings are whitened, if the recipe says so."""
        model: Any = self.learner.evaluated_model()
        run = self.recipe.run
        if run.whiten is None:
            return model
        model = copy.deepcopy(model)
        batches = ((pixels, labels) for pixels, labels, _, _ in self.batches.beyond(run.whiten_images))
        seen = fit_whitening(model, batches, run.whiten, self.learner.autocast)
        if self.processes.world_size > 1:
            torch.distributed.broadcast(model.whiten.matrix, 0)
        self.log.say(f'whitening fitted to {seen} images')
        return model

    def _report(self, row: dict[str, Any]) -> None:
        epochs = self.recipe.schedule.epochs
        text = f'epoch {row["epoch"]}/{epochs}: loss {row["loss"]:.4f}' if 'loss' in row else 'no steps'
        self.log.say(f'{text}, {in_percent(row)}' if 'mAP' in row else text)


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """On CUDA the fastest convolution is tried out for each shape, of which batches of one size have few."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
