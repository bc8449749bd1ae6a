"""Fine-tuning: what of the trained weights stays as it is, and what may move how far."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator

import torch
from timm.models.resnet import ResNet
from torch import nn

from .networks import brings_weights
from .recipe import ModelRecipe, OptimRecipe, Recipe, ScheduleRecipe

__all__ = ['check_fine_tuning', 'freeze_for_good', 'in_trunk', 'keep_statistics', 'slow_trunk', 'starts_whole']

#: ours, after a stage or a block; blocks of transformers have an attn of their own
_NEW = re.compile(r'(?:neck|fc|layer\d\.attn(?:_\d+)?)\.')


def in_trunk(name: str) -> bool:
    """Whether a parameter or module belongs to the trunk: all but the attention, the neck and the classifier."""
    return not _NEW.match(f'{name}.')


def starts_whole(recipe: ModelRecipe) -> bool:
    """Whether a run starts from weights of the whole network, so that its embeddings mean something before training."""
    return recipe.checkpoint is not None or brings_weights(recipe.name)


def check_fine_tuning(recipe: Recipe) -> None:
    """What needs no network to be seen.

    Raises:
        ValueError: a key out of its range, or one that needs weights to start from, where there are none.
    """
    started = starts_whole(recipe.model) or recipe.model.init_from is not None
    if recipe.schedule.keep_statistics and not started:
        raise ValueError(
            'schedule.keep_statistics keeps the statistics of trained weights, and this run starts from random ones: '
            'give model.checkpoint, a released model or model.init_from'
        )
    if not 0 <= recipe.optim.trunk_lr <= 1:
        raise ValueError(f'optim.trunk_lr must be in 0..1, not {recipe.optim.trunk_lr}')
    if not 0 <= recipe.schedule.freeze_stages <= 4:
        raise ValueError(f'schedule.freeze_stages must be in 0..4, not {recipe.schedule.freeze_stages}')


def keep_statistics(model: nn.Module) -> None:
    """Have all batch norms, that of the neck too, normalize by their running statistics, and leave these alone.

    They stay in evaluation mode whoever calls `train()` on them or on the model, and in copies of it. Scale and offset
    learn as before.
    """
    for module in model.modules():
        _hold(module)


def _hold(module: nn.Module) -> None:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        # a method of the object, which copy.deepcopy binds to the copy
        module.train = types.MethodType(_evaluate, module)
        module.eval()


def _evaluate(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def freeze_for_good(model: nn.Module, optim: OptimRecipe, schedule: ScheduleRecipe) -> None:
    """Freeze the stem with the first `schedule.freeze_stages` stages, and the trunk where `optim.trunk_lr` is 0.

    Nothing before the first part that learns needs a backward pass then, and autograd does none. Batch norms of
    frozen parts keep their statistics.

    Raises:
        ValueError: stages of a backbone that is no ResNet.
    """
    for module in _frozen_modules(model, optim, schedule):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        _hold(module)


def _frozen_modules(model: nn.Module, optim: OptimRecipe, schedule: ScheduleRecipe) -> Iterator[nn.Module]:
    if schedule.freeze_stages:
        net = getattr(model, 'backbone', model)
        if not isinstance(net, ResNet):
            raise ValueError(
                f'schedule.freeze_stages={schedule.freeze_stages}: a {type(net).__name__} has no stages of a ResNet; '
                'optim.layer_decay or optim.trunk_lr slow down any backbone'
            )
        for name, part in net.named_children():
            stage = re.fullmatch(r'layer(\d)', name)
            if (stage and int(stage[1]) <= schedule.freeze_stages) or name in ('conv1', 'bn1', 'act1', 'maxpool'):
                yield from part.modules()
    if not optim.trunk_lr:
        yield from (module for name, module in model.named_modules() if in_trunk(name))


def slow_trunk(optimizer: torch.optim.Optimizer, model: nn.Module, factor: float) -> None:
    """Scale the learning rate of the trunk, on top of layer decay: `lr_scale` of its groups, as timm's schedulers
    respect it."""
    trunk = {id(parameter) for name, parameter in model.named_parameters() if in_trunk(name)}
    groups = []
    for group in optimizer.param_groups:
        slow = [parameter for parameter in group['params'] if id(parameter) in trunk]
        others = [parameter for parameter in group['params'] if id(parameter) not in trunk]
        if slow:
            groups.append({**group, 'params': slow, 'lr_scale': factor * group.get('lr_scale', 1.0)})
        if others:
            groups.append({**group, 'params': others})
    optimizer.param_groups[:] = groups  # in place: optimizers around others share the list
