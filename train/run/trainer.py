"""The training loop: resumable at any moment, on one device or on several."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from timm.data import resolve_data_config
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from timm_dpa.embedding.extractor import FeatureExtractor, autocast_dtype
from timm_dpa.embedding.images import ImageError
from timm_dpa.files import remove_stale, write_bytes
from timm_dpa.reid_timm import ReIDBackbone

from ..data.datasets import collate
from ..data.mixing import MixedSampler, augment_options, load_sources
from ..data.query_gallery import check_evaluable
from ..data.transforms import train_transform
from ..evaluation.evaluate import Evaluation, evaluate_model, write_evaluation
from ..recipes.recipe import ModelRecipe, Recipe
from ..samplers import IdentitySampler
from .checkpoints import load_checkpoint, load_latest, save_checkpoint
from .distributed import Processes, joined_processes
from .fine_tuning import (
    Anchor,
    check_fine_tuning,
    compare,
    comparison_table,
    freeze_for_good,
    interpolate,
    keep_statistics,
    needs_start,
    without_classifier,
)
from .log import RunLog, table_bytes
from .networks import brings_weights, create_network, save_model_folder, start_network
from .schedule import LearningRate, create_optimizer, early_size, freeze_backbone
from .task import ReIDTask
from .whitening import fit_whitening

__all__ = ['TrainResult', 'train']

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
    """Train the model of a recipe, or go on where a run in `out` was stopped.

    On the CPU, with one process, an interrupted run ends with the weights of an uninterrupted one, bit for bit.

    Args:
        recipe: see `load_recipe`.
        root: of the data, see `load_data`.
        out: folder of the run: `recipe.yaml`, `data.json` (what the data are), `run.log`, `steps.csv` (losses),
            `metrics.csv` (evaluations), TensorBoard files, `checkpoints/` (`last.pt`, `previous.pt`, `best.pt`,
            and `start.pt` where the recipe looks back at the start), `figures/`, and `model/`, the best model as timm
            loads it.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        FileNotFoundError: no such data or weights.
        ValueError: data, recipe or an existing run in `out` that do not fit together.
        FloatingPointError: the loss is not finite any more; the last checkpoint is good.
        OSError: files cannot be written; the last checkpoint is good.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    with joined_processes(recipe.run.device) as processes:
        return _Run(recipe, Path(root), Path(out), processes, progress).train()


class _Run:
    def __init__(self, recipe: Recipe, root: Path, out: Path, processes: Processes, progress: bool | None) -> None:
        self.recipe, self.out, self.processes, self.progress = recipe, out, processes, progress
        self.device = processes.device
        data = recipe.data
        self.sources = load_sources(root, data)
        self.data = self.sources.sources[0]
        self.evaluates = len(self.data.test) > 0
        if self.evaluates:  # what is wrong shows before the work
            check_evaluable(self.data, data.protocol, data.draws, data.exclude_same_camera)
        if not recipe.schedule.epochs and recipe.run.whiten is None:
            raise ValueError(
                'schedule.epochs=0 takes no step, and run.whiten=null fits nothing: there is nothing to do'
            )
        check_fine_tuning(recipe)
        self.checkpoints = out / 'checkpoints'
        state = self._open_folder()

        torch.manual_seed(recipe.run.seed)
        model = create_network(recipe.model, self.sources.identities, data.image_size)
        self.started_from = [] if state else start_network(model, recipe.model)
        self.start = self._keep_start(model, state)
        config = resolve_data_config(model=model)
        self.image_size = tuple(config['input_size'][1:])
        model.to(self.device, memory_format=torch.channels_last if recipe.run.channels_last else torch.preserve_format)
        if recipe.run.sync_batch_norm and processes.world_size > 1:
            if self.device.type != 'cuda':
                raise ValueError(f'run.sync_batch_norm works on CUDA only, not on {self.device}')
            model = convert_sync_batchnorm(model)  # torch's own drops the activation of timm's BatchNormAct2d
        if recipe.schedule.keep_statistics:
            keep_statistics(model)
        freeze_for_good(model, recipe.optim, recipe.schedule)
        self.model = model.train()
        self.task = ReIDTask(model, recipe.loss, self.device, self._teacher(model)).to(self.device)
        self.anchor = Anchor(model, self.start, recipe.optim.anchor) if recipe.optim.anchor else None
        self.ema = None if recipe.run.ema is None else ModelEmaV3(model, decay=recipe.run.ema, use_warmup=True)
        self.autocast = autocast_dtype(recipe.run.precision, self.device)

        self.sampler = self.sources.sampler(recipe.batch, recipe.run.seed, processes.rank, processes.world_size)
        self.batches = _SeededBatches(self.sampler, recipe.run.seed, recipe.batch.size)
        self.data_config = config
        self.loader: DataLoader | None = None
        self.loaded_size: tuple[int, int] | None = None
        # what is wrong shows before the work
        early_size(recipe.schedule, self.image_size, 0)
        for synthetic in (False, True):
            train_transform(config, **augment_options(recipe.augment, synthetic))
        self.steps_per_epoch = -(-len(self.sampler) // recipe.batch.accumulate)
        self.optimizer = create_optimizer(model, recipe.optim)
        self.rate = LearningRate(self.optimizer, recipe.schedule, recipe.optim.lr, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast == torch.float16)

        self.epoch = self.batch = self.step = self.checked_step = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.resumed = state is not None
        self.damaged = state['damaged'] if state else []
        if state:
            self._restore(state)
        self._stop = False

    # --- the folder ---------------------------------------------------------------------------------------------------

    def _open_folder(self) -> dict[str, Any] | None:
        """Check and prepare the folder; the checkpoint to go on from, if there is one."""
        state = problem = None
        if self.processes.is_main:
            try:
                state = self._check_folder()
            except (OSError, ValueError) as error:
                problem = error
        problem = self.processes.broadcast(problem)
        if problem is not None:
            raise problem
        return self.processes.broadcast(state)

    def _check_folder(self) -> dict[str, Any] | None:
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f'{self.out}: is a file; give a folder for the run')
        state = load_latest(self.checkpoints)
        ours = self.recipe.as_dict()
        if state is None:
            if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / 'recipe.yaml').is_file():
                raise ValueError(f'{self.out}: holds other things than a run; give a new or an empty folder')
        else:
            theirs = _with_defaults(state['recipe'])
            differing = [
                f'{section}.{key} {theirs.get(section, {}).get(key)!r}, now {value!r}'
                for section, values in ours.items()
                for key, value in values.items()
                if theirs.get(section, {}).get(key) != value and (section, key) not in _FREE
            ]
            if differing:
                raise ValueError(
                    f'{self.out}: holds a run of another recipe ({"; ".join(differing[:3])}); give another folder, or '
                    'the same settings to go on'
                )
            if state['data'] != self._describe_data():
                raise ValueError(
                    f'{self.out}: holds a run with other data, {state["data"]} instead of {self._describe_data()}'
                )
            if needs_start(self.recipe):
                state['start'] = load_checkpoint(self.checkpoints / 'start.pt')['model']
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for folder in (self.out, self.checkpoints):
            remove_stale(folder)
        write_bytes(self.out / 'recipe.yaml', self.recipe.as_yaml().encode())
        write_bytes(self.out / 'data.json', json.dumps(self.sources.describe(), indent=2).encode())
        return state

    def _teacher(self, model: nn.Module) -> nn.Module | None:
        """The network whose embeddings `loss.pull` pulls to."""
        loss = self.recipe.loss
        if not loss.pull:
            return None
        if loss.teacher is not None:
            teacher = create_network(ModelRecipe(name=loss.teacher), 0)
            if not brings_weights(loss.teacher):
                raise ValueError(f'loss.teacher={loss.teacher}: give a tag that has weights, such as NAME.rendered')
            layout = torch.channels_last if self.recipe.run.channels_last else torch.preserve_format
            return teacher.to(self.device, memory_format=layout)
        before = copy.deepcopy(model)
        before.load_state_dict(self.start, strict=False)  # but for the classifier
        return before

    def _keep_start(self, model: nn.Module, state: dict[str, Any] | None) -> dict[str, torch.Tensor]:
        """The weights that the run started from, if it needs them: they may lie nowhere else when it goes on."""
        if not needs_start(self.recipe):
            return {}
        if state:
            return state['start']
        start = without_classifier(model.state_dict())
        if self.processes.is_main:
            save_checkpoint(self.checkpoints / 'start.pt', {'model': start}, keep_previous=False)
        return start

    def _describe_data(self) -> dict[str, Any]:
        mix = self.sources.counts()
        return {
            'images': len(self.data.train),
            'identities': len(np.unique(self.data.train.pids)),
            'test_images': len(self.data.test),
            'layout': self.data.layout,
            **({'mix': mix} if mix else {}),
        }

    # --- parts --------------------------------------------------------------------------------------------------------

    def _load(self, size: tuple[int, int]) -> None:
        """Have batches of images of that size."""
        if self.loaded_size == size:
            return
        self.loader = None  # its processes end before others begin
        pad = round(self.recipe.augment.pad * size[0] / self.image_size[0])
        augment = self.recipe.augment.model_copy(update={'pad': pad})
        images = self.sources.images({**self.data_config, 'input_size': (3, *size)}, augment)
        self.loader, self.loaded_size = self._loader(images), size

    def _loader(self, images: Dataset) -> DataLoader:
        workers = self.recipe.data.workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 3
            workers = min(8, cores // int(os.environ.get('LOCAL_WORLD_SIZE', '1')) - 1)
            workers = max(workers, 0)
        return DataLoader(
            images,
            batch_sampler=self.batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.device.type == 'cuda',
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_interrupts,
        )

    def _evaluated_model(self) -> nn.Module:
        """What is evaluated and saved as the model."""
        model = self.model if self.ema is None else self.ema.module
        if self.processes.world_size > 1:
            # each process has its own statistics since the last step
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        share = self.recipe.run.interpolate
        if share == 1:
            return model
        mixed = copy.deepcopy(model)
        mixed.load_state_dict(interpolate(self.start, model.state_dict(), share))
        return mixed

    def _state(self) -> dict[str, Any]:
        return {
            'model': self.model.state_dict(),
            'ema': None if self.ema is None else self.ema.module.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
            'epoch': self.epoch,
            'batch': self.batch,
            'step': self.step,
            'seconds': self.seconds,
            'sums': self.sums,
            'history': self.history,
            'best': self.best,
            'seed': self.recipe.run.seed,
            'recipe': self.recipe.as_dict(),
            'data': self._describe_data(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state['model'])
        if self.ema is not None:
            self.ema.module.load_state_dict(state['ema'])
        self.optimizer.load_state_dict(state['optimizer'])
        if state['scaler']:  # empty where the run was not in fp16 before
            self.scaler.load_state_dict(state['scaler'])
        self.epoch, self.batch, self.step = state['epoch'], state['batch'], state['step']
        self.checked_step = self.step
        self.seconds, self.sums = state['seconds'], state['sums']
        self.history, self.best = state['history'], state['best']

    def _save(self) -> None:
        if not self.processes.is_main:
            return
        if not all(bool(torch.isfinite(value).all()) for value in self.model.parameters()):
            self._fail('the weights are not finite')
        try:
            save_checkpoint(self.checkpoints / 'last.pt', self._state())
        except OSError as error:
            raise OSError(
                f'{error}; the checkpoint of step {self.checked_step} is good: free space and run the same command'
            ) from error
        self.checked_step = self.step

    def _fail(self, what: str) -> None:
        rate = max(group['lr'] for group in self.optimizer.param_groups)
        raise FloatingPointError(
            f'{what} at step {self.step + 1} (epoch {self.epoch + 1}), learning rate {rate:.3g}; the checkpoint of '
            f'step {self.checked_step} is good. Try a smaller optim.lr, optim.clip_grad=5, or run.precision=fp32'
        )

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self) -> TrainResult:
        schedule = self.recipe.schedule
        epochs = max(1, schedule.epochs)  # no epoch is one without steps
        if self.epoch >= epochs:
            if not (self.out / 'figures').is_dir():  # killed after the last checkpoint
                with RunLog(self.out, self.step, self.processes.is_main, False) as self.log:
                    self._finish()
            return self._result(finished_before=True)
        run = self.recipe.run
        with (
            self._watched_signals(),
            _fastest_convolutions(),
            RunLog(self.out, self.step, self.processes.is_main, run.tensorboard) as self.log,
            self._bar(schedule.epochs) as self.bar,
        ):
            self._introduce()
            self._measure_start()
            self.frozen = self.step < schedule.freeze_steps
            if self.frozen:
                freeze_backbone(self.model, True, schedule.freeze_attention)
            if run.compile:
                self.task.compile()
            self._distribute()
            while self.epoch < epochs:
                if schedule.epochs:
                    self._train_epoch()
                row = self._close_epoch()
                self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
                self._save()
                self._report(row)
            self._finish()
        return self._result()

    def _result(self, finished_before: bool = False) -> TrainResult:
        comparison = compare(self.history)
        return TrainResult(self.out, self.epoch, self.step, self.seconds, self.best, finished_before, comparison)

    def _bar(self, epochs: int) -> tqdm:
        per_epoch = len(self.sampler) * self.recipe.batch.size
        hidden = True if not self.processes.is_main else None if self.progress is None else not self.progress
        return tqdm(
            total=epochs * per_epoch,
            initial=self.epoch * per_epoch + self.batch * self.recipe.batch.size,
            unit='image',
            unit_scale=True,
            desc='training',
            disable=hidden,
        )

    def _introduce(self) -> None:
        for problem in self.damaged:
            self.log.say(f'{problem}; took the one before it')
        if self.resumed:
            self.log.say(f'goes on from step {self.step} (epoch {self.epoch + 1})')
        else:
            parameters = sum(value.numel() for value in self.model.parameters()) / 1e6
            self.log.say(f'{self.recipe.model.name}, {parameters:.1f} M parameters; ' + '; '.join(self.started_from))
            data = self._describe_data()
            self.log.say(
                f'{data["images"]} training images of {data["identities"]} identities, {data["test_images"]} test '
                f'images ({data["layout"]}); {len(self.sampler)} batches of {self.recipe.batch.size} an epoch'
            )
            for line in self.sources.introduce():
                self.log.say(line)
        self.log.say(
            f'{self.processes.world_size} process{"es" * (self.processes.world_size > 1)} on {self.device}, '
            f'{self.autocast or torch.float32}, {self.image_size[0]} x {self.image_size[1]} px, '
            f'seed {self.recipe.run.seed}, torch {torch.__version__}'
        )

    def _measure_start(self) -> None:
        """Evaluate the weights that a run begins with, which are its model until better ones come."""
        if not self.recipe.run.compare_start or self.resumed:
            return
        if not self.evaluates:
            self.log.say('no test part: nothing says whether the training helps')
            return
        model = self._evaluated_model()
        row = self._measured({'epoch': 0, 'step': 0, 'seconds': 0.0}, model, 0)
        self.log.say(f'before training: {_in_per_cent(row)}')

    def _distribute(self) -> None:
        if self.processes.world_size > 1:
            self.task.prepare_distributed(
                [self.device.index] if self.device.type == 'cuda' else None,
                # some of timm's backbones, such as convnext, hold weights of a head that is not asked
                find_unused_parameters=isinstance(self.model, ReIDBackbone),
            )

    def _train_epoch(self) -> None:
        recipe = self.recipe
        size = early_size(recipe.schedule, self.image_size, self.epoch)
        if size != self.loaded_size and (self.epoch or size != self.image_size):
            self.log.say(f'images of {size[0]} x {size[1]} px from epoch {self.epoch + 1}')
        self._load(size)
        self.sampler.set_epoch(self.epoch, self.batch)
        self.batches.first = self.batch
        since, images = time.perf_counter(), 0
        recent: dict[str, torch.Tensor] = {}
        counted = 0
        for pixels, labels, messages in self._rest_of_epoch():
            for message in messages:
                self.log.say(f'skipped: {message}')
            first = self.batch % recipe.batch.accumulate == 0
            last = (self.batch + 1) % recipe.batch.accumulate == 0 or self.batch + 1 == len(self.sampler)
            if first:
                self._begin_step()
            losses = self._backward(pixels, labels, last)
            for key, value in losses.items():
                recent[key] = recent[key] + value if key in recent else value
            counted += 1
            self.batch += 1
            images += recipe.batch.size
            self.bar.update(recipe.batch.size)
            if not last:
                continue
            self._update()
            stopping = self._stopping()
            due = recipe.run.checkpoint_every and self.step % recipe.run.checkpoint_every == 0
            if self.step % recipe.run.log_every == 0 or self.batch == len(self.sampler) or due or stopping:
                elapsed = time.perf_counter() - since
                self.seconds += elapsed
                self._note(recent, counted, images / elapsed)
                recent, counted = {}, 0
                if due or stopping or (self.batch == len(self.sampler) and self._evaluation_due()):
                    self._save()
                since, images = time.perf_counter(), 0
            if stopping:
                self.log.say(f'interrupted at step {self.step}, checkpoint written')
                raise KeyboardInterrupt

    def _rest_of_epoch(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        if self.batch == len(self.sampler):
            return
        try:
            yield from self.loader
        except ImageError as error:  # a worker's comes with its traceback
            raise ImageError(str(error).strip().rpartition('ImageError: ')[2]) from error

    def _begin_step(self) -> None:
        schedule = self.recipe.schedule
        if self.frozen and self.step >= schedule.freeze_steps:
            self.frozen = False
            freeze_backbone(self.model, False, schedule.freeze_attention)
            freeze_for_good(self.model, self.recipe.optim, schedule)
            self._distribute()  # it has to know all parameters that get gradients
        self.rate.set(self.step)

    def _backward(self, pixels: torch.Tensor, labels: torch.Tensor, last: bool) -> dict[str, torch.Tensor]:
        recipe = self.recipe
        # state of its own for each batch: what happens in between, such as an evaluation, changes nothing
        torch.manual_seed(_seed(recipe.run.seed, 1 + self.processes.rank, self.epoch, self.batch))
        pixels = pixels.to(
            self.device,
            non_blocking=True,
            memory_format=torch.channels_last if recipe.run.channels_last else torch.preserve_format,
        )
        labels = labels.to(self.device, non_blocking=True)
        network = self.task.network
        synchronised = last or not hasattr(network, 'no_sync')
        done = self.batch - self.batch % recipe.batch.accumulate
        parts = min(recipe.batch.accumulate, len(self.sampler) - done)
        with nullcontext() if synchronised else network.no_sync():
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                result = self.task(pixels, labels)
            self.scaler.scale(result['loss'] / parts).backward()
        losses = {key: value.detach() for key, value in result.items() if key != 'output'}
        if self.device.type == 'cpu':  # elsewhere asking would make the device wait; see _note
            self._check_finite({key: float(value) for key, value in losses.items()})
        return losses

    def _update(self) -> None:
        if self.anchor is not None:
            self.anchor.pull(self.optimizer)
        if self.recipe.optim.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            dispatch_clip_grad(self.model.parameters(), self.recipe.optim.clip_grad, mode='norm')
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)

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
        learning_rate = max(group['lr'] for group in self.optimizer.param_groups)
        self.log.step(
            {'step': self.step, 'epoch': self.epoch + 1, 'lr': learning_rate, **losses, 'images_per_second': rate}
        )
        self.bar.set_postfix_str(f'epoch {self.epoch + 1}/{self.recipe.schedule.epochs}, loss {losses["loss"]:.3f}')

    # --- epochs -------------------------------------------------------------------------------------------------------

    def _close_epoch(self) -> dict[str, Any]:
        """Evaluate if it is time; the row of the epoch."""
        batches = self.sums.get('batches', 0)
        row = {'epoch': self.epoch + 1, 'step': self.step, 'seconds': self.seconds}
        row |= {key: value / batches for key, value in self.sums.items() if key != 'batches'}
        if self._evaluation_due():
            row = self._measured(row, self._whitened(self._evaluated_model()), self.epoch + 1)
        elif self._final_epoch() and not self.evaluates:
            self._keep_best(self._whitened(self._evaluated_model()), None, self.epoch + 1)
        return row

    def _whitened(self, model: nn.Module) -> nn.Module:
        """In the last epoch a copy whose embeddings are whitened, if the recipe says so."""
        run = self.recipe.run
        if run.whiten is None or not self._final_epoch():
            return model
        model = copy.deepcopy(model)
        self.loader, self.loaded_size = None, None  # its processes end before others begin
        images = self.sources.images(self.data_config, self.recipe.augment.model_copy(update={'erasing': 0.0}))
        seen = fit_whitening(model, self._batches_beyond(images, run.whiten_images), run.whiten, self.autocast)
        if self.processes.world_size > 1:
            torch.distributed.broadcast(model.whiten.matrix, 0)
        self.log.say(f'whitening fitted to {seen} images')
        return model

    def _batches_beyond(self, images: Dataset, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of at least `count` images, those of the epochs after the last one."""
        loader, epoch = self._loader(images), self.recipe.schedule.epochs
        while count > 0:
            self.sampler.set_epoch(epoch)
            self.batches.first = 0
            for pixels, labels, _ in loader:
                yield pixels, labels
                count -= self.recipe.batch.size
                if count <= 0:
                    break
            epoch += 1

    def _measured(self, row: dict[str, Any], model: nn.Module, epoch: int) -> dict[str, Any]:
        """The row with the metrics of the test part; the model is kept where it is the best so far."""
        result = self._evaluate(model)
        row = row | {key: result.metrics[key] for key in ('mAP', 'rank1', 'rank5', 'rank10', 'mINP')}
        self.log.scalars({key: row[key] for key in ('mAP', 'rank1', 'mINP')}, self.step, 'test')
        self.history.append(row)
        if self.best is None or row['mAP'] > self.best['mAP']:
            self.best = row
            self._keep_best(model, result, epoch)
        if self.processes.is_main:
            write_bytes(self.out / 'metrics.csv', table_bytes(self.history))
        return row

    def _final_epoch(self) -> bool:
        return self.epoch + 1 >= self.recipe.schedule.epochs

    def _evaluation_due(self) -> bool:
        """Whether this epoch ends with an evaluation."""
        every = self.recipe.run.evaluate_every
        return self.evaluates and (self._final_epoch() or (every > 0 and (self.epoch + 1) % every == 0))

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

    def _keep_best(self, model: nn.Module, result: Evaluation | None, epoch: int) -> None:
        if not self.processes.is_main:
            return
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        best = {'model': weights, 'metrics': self.best, 'recipe': self.recipe.as_dict()}
        save_checkpoint(self.checkpoints / 'best.pt', best, keep_previous=False)
        save_model_folder(self.recipe.model, self.image_size, weights, self.out / 'model')
        if result is not None:
            write_evaluation(
                result,
                self.recipe.model.name,
                self.out,
                epoch=epoch,
                recipe=self.recipe.as_dict(),
                data=json.loads((self.out / 'data.json').read_text(encoding='utf-8')),
            )

    def _report(self, row: dict[str, Any]) -> None:
        text = (
            f'epoch {row["epoch"]}/{self.recipe.schedule.epochs}: loss {row["loss"]:.4f}'
            if 'loss' in row
            else 'no steps'
        )
        if 'mAP' in row:
            text += f', {_in_per_cent(row)}'
        self.log.say(text)

    def _finish(self) -> None:
        if not self.processes.is_main:
            return
        if self.best is not None:
            written = json.loads((self.out / 'evaluation.json').read_text(encoding='utf-8'))
            self.log.say(f'best: epoch {self.best["epoch"]}, mAP {100 * written["metrics"]["mAP"]:.2f} %')
        comparison = compare(self.history)
        if comparison is not None:
            for line in comparison_table(*comparison).splitlines():
                self.log.say(line)
        try:
            from ..figures.curves import run_figures

            for path in run_figures(self.out):
                self.log.say(f'figure: {path}')
        except ImportError:
            self.log.say("no figures: pip install 'timm-dpa[train]'")

    # --- interruptions ------------------------------------------------------------------------------------------------

    @contextmanager
    def _watched_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop at the end of a step; the second one at once."""

        def stop(number: int, _: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stopping(self) -> bool:
        if self.processes.world_size == 1:
            return self._stop
        # all must stop at the same step; asking each time would cost
        if self.step % self.recipe.run.log_every:
            return False
        return any(self.processes.gather(self._stop))


class _SeededBatches(Sampler):
    """The sampler's batches as `(row, seed)` pairs; seeds do not depend on the number of processes."""

    def __init__(self, sampler: IdentitySampler | MixedSampler, seed: int, batch_size: int) -> None:
        self.sampler, self.seed, self.batch_size = sampler, seed, batch_size
        self.first = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sampler = self.sampler
        share = self.batch_size // sampler.world_size
        for number, rows in enumerate(sampler, start=self.first):
            place = number * self.batch_size + sampler.rank * share
            yield [(row, _seed(self.seed, 0, sampler.epoch, place + k)) for k, row in enumerate(rows)]


def _in_per_cent(row: dict[str, Any]) -> str:
    names = (('mAP', 'mAP'), ('Rank-1', 'rank1'), ('mINP', 'mINP'))
    return ', '.join(f'{name} {100 * row[key]:.2f} %' for name, key in names)


def _with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an older version, which lacks the keys that came later."""
    return {key: {**values, **recipe.get(key, {})} for key, values in Recipe().as_dict().items()}


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C goes to all processes, SIGTERM may; the main one ends the workers when it is ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """On CUDA the fastest convolution is tried out for each shape, of which batches of one size have few."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
