"""What learns in a run: the network, its losses, the optimizer and the learning rate, step by step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import unwrap_model
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from timm_dpa.embedding.extractor import autocast_dtype
from timm_dpa.reid_timm import ReIDBackbone

from ..recipes.recipe import Recipe
from .distributed import Processes
from .fine_tuning import Anchor, create_teacher, freeze_for_good, interpolate, keep_statistics
from .schedule import LearningRate, create_optimizer, freeze_backbone
from .targets import load_targets
from .task import ReIDTask

__all__ = ['Learner']


class Learner:
    """Takes the steps of a run. Nothing here knows data, epochs or files.

    Args:
        recipe: of the run.
        model: the network, with the weights that it starts from.
        start: these weights, see `needs_start`.
        steps_per_epoch: steps of the optimizer.
        processes: which learn together.

    Attributes:
        model: the network, without any wrapper.
        task: the network with its losses.
        optimizer: of its parameters.
        autocast: dtype of autocast; None for float32.
        step: how many were taken.
        targets: `(N, D)` embeddings that `loss.pull` pulls to, of all images, see `load_targets`; None without files.

    Raises:
        ValueError: values of the recipe that do not fit together, the network or the device.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Any,
        start: dict[str, torch.Tensor],
        steps_per_epoch: int,
        processes: Processes,
    ) -> None:
        self.recipe, self.start, self.processes, self.device = recipe, start, processes, processes.device
        self.memory_format = torch.channels_last if recipe.run.channels_last else torch.preserve_format
        model.to(self.device, memory_format=self.memory_format)
        if recipe.run.sync_batch_norm and processes.world_size > 1:
            if self.device.type != 'cuda':
                raise ValueError(f'run.sync_batch_norm works on CUDA only, not on {self.device}')
            model = convert_sync_batchnorm(model)  # torch's own drops the activation of timm's BatchNormAct2d
        if recipe.schedule.keep_statistics:
            keep_statistics(model)
        freeze_for_good(model, recipe.optim, recipe.schedule)
        self.model: nn.Module = model.train()
        teacher: Any = create_teacher(model, recipe, start)
        if teacher is not None:
            teacher = teacher.to(self.device, memory_format=self.memory_format)
        self.task = ReIDTask(model, recipe.loss, self.device, teacher).to(self.device)
        if recipe.run.ema is not None:
            self.task.setup_ema(recipe.run.ema, use_warmup=True)
        self.anchor = Anchor(model, start, recipe.optim.anchor) if recipe.optim.anchor else None
        self.autocast = autocast_dtype(recipe.run.precision, self.device)
        self.optimizer = create_optimizer(model, recipe.optim)
        self.rate = LearningRate(self.optimizer, recipe.schedule, recipe.optim.lr, steps_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast == torch.float16)
        self.step = 0
        self.frozen = False
        self.targets: torch.Tensor | None = None

    def load_targets(self, paths: Sequence[str]) -> None:
        """Read the embeddings that `loss.targets` wants of the training images, if it names files.

        Args:
            paths: of the images, row by row.

        Raises:
            FileNotFoundError, ValueError: see `targets.load_targets`.
        """
        if self.recipe.loss.targets:
            self.targets = load_targets(self.recipe.loss, paths, int(self.model.head_hidden_size))  # type: ignore[arg-type]

    @property
    def learning_rate(self) -> float:
        """The largest of all parameters."""
        return max(group['lr'] for group in self.optimizer.param_groups)

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(torch.isfinite(value).all()) for value in self.model.parameters())

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            'model': self.task.get_checkpoint_state()['state_dict'],
            'ema': self.task.get_checkpoint_state(ema=True).get('state_dict_ema'),
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
            'step': self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`; further entries are ignored."""
        self.task.load_checkpoint_state(state['model'])
        if self.task.has_ema():
            self.task.load_checkpoint_state(state['ema'], ema=True)
        self.optimizer.load_state_dict(state['optimizer'])
        if state['scaler']:  # empty where the run was not in fp16 before
            self.scaler.load_state_dict(state['scaler'])
        self.step = state['step']

    def prepare(self) -> None:
        """Freeze, compile and distribute the network; once, before the first step."""
        schedule = self.recipe.schedule
        self.frozen = self.step < schedule.freeze_steps
        if self.frozen:
            freeze_backbone(self.model, True, schedule.freeze_attention)
        if self.recipe.run.compile:
            self.task.compile()
        self._distribute()

    def _distribute(self) -> None:
        if self.processes.world_size > 1:
            self.task.prepare_distributed(
                [self.device.index] if self.device.type == 'cuda' else None,
                # some of timm's backbones, such as convnext, hold weights of a head that is not asked
                find_unused_parameters=isinstance(self.model, ReIDBackbone),
            )

    def begin_step(self) -> None:
        """Set the learning rate of the next step, and release what was frozen until here."""
        schedule = self.recipe.schedule
        if self.frozen and self.step >= schedule.freeze_steps:
            self.frozen = False
            freeze_backbone(self.model, False, schedule.freeze_attention)
            freeze_for_good(self.model, self.recipe.optim, schedule)
            self._distribute()  # it has to know all parameters that get gradients
        self.rate.set(self.step)

    def backward(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        rows: torch.Tensor,
        parts: int,
        last: bool,
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of a batch.

        Args:
            pixels: `(B, 3, H, W)`, normalized.
            labels: `(B,)`.
            rows: `(B,)`, those of the images in `targets`.
            parts: batches of the step, by whose number the loss is divided.
            last: whether it is the last of them, after which the processes add up their gradients.

        Returns:
            The losses without graph, see `ReIDTask.forward`.
        """
        pixels = pixels.to(self.device, non_blocking=True, memory_format=self.memory_format)
        labels = labels.to(self.device, non_blocking=True)
        wanted = None if self.targets is None else self.targets[rows].to(self.device, non_blocking=True)
        with nullcontext() if last else self.task.no_sync():
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                result = self.task(pixels, labels, wanted)
            self.scaler.scale(result['loss'] / parts).backward()
        return {key: value.detach() for key, value in result.items() if key != 'output'}

    def update(self) -> None:
        """Take the step."""
        if self.anchor is not None:
            self.anchor.pull(self.optimizer)
        if self.recipe.optim.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            dispatch_clip_grad(self.task.get_clip_parameters(), self.recipe.optim.clip_grad, mode='norm')
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.task.update_ema(self.step)

    def evaluated_model(self) -> nn.Module:
        """What is evaluated and saved as the model: the network, its moving average, or a mix with the start."""
        model = unwrap_model(self.task.get_eval_model(ema=self.task.has_ema()))
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
