"""Optimizer, learning rate over time, and the frozen start."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from torch import nn

from ..recipes.recipe import OptimRecipe, ScheduleRecipe
from .fine_tuning import slow_trunk

__all__ = ['LearningRate', 'create_optimizer', 'early_size', 'freeze_backbone']

#: parts of our networks that are new, beside the attention
_HEAD = ('global_pool.', 'neck.', 'whiten.', 'fc.')
#: ours, after a stage or a block; blocks of transformers have an attn of their own
_ATTENTION = re.compile(r'layer\d\.attn(?:_\d+)?\.')


def create_optimizer(model: nn.Module, recipe: OptimRecipe) -> torch.optim.Optimizer:
    """timm's optimizer of that name over all parameters of `model`.

    Raises:
        ValueError: no such optimizer, options that it does not take, or one that needs second derivatives.
    """
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=recipe.name,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            filter_bias_and_bn=not recipe.decay_norm_and_bias,
            layer_decay=recipe.layer_decay,
            **recipe.args,
        )
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f'optim.name={recipe.name} with optim.args={recipe.args}: {error}') from error
    if getattr(optimizer, 'is_second_order', False):  # timm's mark
        raise ValueError(
            f'optim.name={recipe.name} needs second derivatives, which a run does not compute; take another optimizer, '
            'such as adamw'
        )
    if 0 < recipe.trunk_lr < 1:  # 0: it is frozen
        slow_trunk(optimizer, model, recipe.trunk_lr)
    return optimizer


class LearningRate:
    """Learning rate of each step, by timm's schedulers: linear warm-up, then cosine, steps or a constant.

    Args:
        optimizer: its parameter groups are set; `lr_scale` of layer decay is respected.
        recipe: see `ScheduleRecipe`.
        lr: after the warm-up.
        steps_per_epoch: steps of the optimizer.

    Raises:
        ValueError: numbers that do not fit together.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: ScheduleRecipe, lr: float, steps_per_epoch: int
    ) -> None:
        if not recipe.epochs:
            return  # no step asks
        self.total = recipe.epochs * steps_per_epoch
        self.warmup = recipe.warmup_steps or round(recipe.warmup_epochs * steps_per_epoch)
        # the cosine begins where both are over
        self.hold = max(round(recipe.hold_epochs * steps_per_epoch), self.warmup)
        options = {
            'warmup_t': self.warmup,
            'warmup_lr_init': recipe.warmup_factor * lr,
            't_in_epochs': False,
        }
        if recipe.kind == 'cosine':
            if self.hold >= self.total:
                raise ValueError(
                    f'schedule: warm-up and hold_epochs take {self.hold} steps, the whole run has {self.total}; '
                    'nothing is left for the cosine: shorten them, or take more epochs, or schedule.kind=constant'
                )
            self.scheduler = CosineLRScheduler(
                optimizer, self.total - self.hold, lr_min=recipe.min_lr, warmup_prefix=True, **options
            )
        else:
            after = recipe.decay_epochs if recipe.kind == 'step' else []
            if recipe.kind == 'step' and not after:
                raise ValueError('schedule.kind=step needs schedule.decay_epochs, such as [30, 50]')
            self.hold = self.warmup
            # timm multiplies one step early
            decay_steps = [round(epoch * steps_per_epoch) + 1 for epoch in sorted(after)]
            self.scheduler = MultiStepLRScheduler(
                optimizer, decay_steps, decay_rate=recipe.decay_rate, warmup_prefix=False, **options
            )

    def set(self, step: int) -> None:
        """Set the learning rate for step `step`, from 0."""
        if step >= self.warmup:
            # to timm the time stands still between the warm-up and the beginning of the cosine
            step = max(self.warmup, step - (self.hold - self.warmup))
        self.scheduler.step_update(step)


def early_size(recipe: ScheduleRecipe, image_size: tuple[int, int], epoch: int) -> tuple[int, int]:
    """Height and width of the training images in an epoch, from 0, see `ScheduleRecipe.early_sizes`.

    Raises:
        ValueError: the sizes leave no epoch at the final size.
    """
    done = 0
    found = None
    for epochs, side in recipe.early_sizes:
        done += epochs
        if found is None and epoch < done:
            found = (side, max(1, round(side * image_size[1] / image_size[0])))
    if done and done >= recipe.epochs:
        raise ValueError(
            f'schedule.early_sizes takes {done} epochs of {recipe.epochs}; leave at least one for data.image_size'
        )
    return found or image_size


def freeze_backbone(model: nn.Module, frozen: bool, with_attention: bool) -> None:
    """Freeze or release what was trained before: all but head and attention, or all but the head.

    Batch norms of frozen parts use their running statistics; `model.train()` would undo that.
    """
    for module in _backbone(model, with_attention):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(not frozen)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(not frozen)


def _backbone(model: nn.Module, with_attention: bool) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        dotted = f'{name}.'
        if not dotted.startswith(_HEAD) and (with_attention or not _ATTENTION.match(dotted)):
            yield module
