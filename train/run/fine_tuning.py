"""Fine-tuning: what of the trained weights stays as it is, and what may move how far."""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.models.resnet import ResNet
from torch import nn

from ..evaluation.tables import METRICS
from ..recipes.recipe import ModelRecipe, OptimRecipe, Recipe, ScheduleRecipe
from .checkpoints import save_checkpoint
from .distributed import Processes
from .folder import RunFolder
from .networks import brings_weights, create_network

__all__ = [
    'Anchor',
    'check_fine_tuning',
    'compare',
    'comparison_table',
    'create_teacher',
    'freeze_for_good',
    'in_trunk',
    'interpolate',
    'keep_start',
    'keep_statistics',
    'needs_start',
    'slow_trunk',
    'starts_whole',
    'without_classifier',
]

#: ours, after a stage or a block; blocks of transformers have an attn of their own
_NEW = re.compile(r'(?:neck|whiten|fc|layer\d\.attn(?:_\d+)?)\.')


def in_trunk(name: str) -> bool:
    """Whether a parameter or module belongs to the trunk: all but the attention, the neck and the classifier."""
    return not _NEW.match(f'{name}.')


def starts_whole(recipe: ModelRecipe) -> bool:
    """Whether a run starts from weights of the whole network, so that its embeddings mean something before training."""
    return recipe.checkpoint is not None or brings_weights(recipe.name)


def check_fine_tuning(recipe: Recipe) -> None:
    """Check what needs no network to be seen.

    Raises:
        ValueError: a key that needs weights to start from, where there are none, or keys that do not fit together.
    """
    if not recipe.schedule.epochs and recipe.run.whiten is None:
        raise ValueError('schedule.epochs=0 takes no step, and run.whiten=null fits nothing: there is nothing to do')
    started = starts_whole(recipe.model) or recipe.model.init_from is not None
    if recipe.schedule.keep_statistics and not started:
        raise ValueError(
            'schedule.keep_statistics keeps the statistics of trained weights, and this run starts from random ones: '
            'give model.checkpoint, a released model or model.init_from'
        )
    run, anchor = recipe.run, recipe.optim.anchor
    if recipe.loss.teacher is not None and not recipe.loss.pull:
        raise ValueError(f'loss.teacher={recipe.loss.teacher} needs loss.pull above 0')
    if recipe.loss.targets and recipe.loss.teacher is None:
        raise ValueError('loss.targets needs loss.teacher: the model that made these embeddings')
    if anchor * recipe.optim.lr > 1:
        raise ValueError(f'optim.anchor must be at most 1 / optim.lr, not {anchor}')
    if anchor and not started:
        raise ValueError(f'optim.anchor={anchor} holds weights at those of the start, and this run has random ones')
    for key, wanted in (
        ('run.interpolate', run.interpolate < 1),
        ('loss.pull', recipe.loss.pull > 0 and recipe.loss.teacher is None),
        ('run.compare_start', run.compare_start),
    ):
        if wanted and not starts_whole(recipe.model):
            raise ValueError(
                f'{key} needs weights of the whole network to start from: give model.checkpoint or a released model, '
                'such as dpa_resnet50.rendered'
            )


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
        module.train = types.MethodType(_evaluate, module)  # type: ignore[method-assign]
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


# --- the start --------------------------------------------------------------------------------------------------------


def needs_start(recipe: Recipe) -> bool:
    """Whether a run looks at the weights that it started from later on."""
    pulled = recipe.loss.pull > 0 and recipe.loss.teacher is None
    return recipe.run.interpolate < 1 or pulled or recipe.optim.anchor > 0


def without_classifier(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU, of all but the classifier."""
    return {name: value.detach().cpu().clone() for name, value in weights.items() if not name.startswith('fc.')}


def interpolate(
    start: dict[str, torch.Tensor], tuned: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """start + share x (tuned - start), computed in float64; what `start` lacks and whole numbers are those of `tuned`.

    Args:
        start, tuned: state dicts.
        share: 0 for `start`, 1 for `tuned`.
    """
    mixed = dict(tuned)
    for name, value in start.items():
        if value.is_floating_point():
            begin, end = value.double(), tuned[name].detach().cpu().double()
            mixed[name] = (begin + share * (end - begin)).to(value.dtype)
    return mixed


def keep_start(
    model: nn.Module, recipe: Recipe, state: dict[str, Any] | None, folder: RunFolder, processes: Processes
) -> dict[str, torch.Tensor]:
    """The weights that a run started from, if it needs them; a new run writes them down: they may lie nowhere else when
    it resumes.

    Args:
        model: of a new run, as it starts.
        state: the checkpoint to resume from; None for a new run.
    """
    if not needs_start(recipe):
        return {}
    if state:
        return state['start']
    start = without_classifier(model.state_dict())
    if processes.is_main:
        save_checkpoint(folder.start, {'model': start}, keep_previous=False)
    return start


def create_teacher(model: nn.Module, recipe: Recipe, start: dict[str, torch.Tensor]) -> nn.Module | None:
    """The network whose embeddings `loss.pull` pulls to; None without it, and where files hold them.

    Args:
        model: the network of the run.
        recipe: of the run.
        start: weights that the run starts from.

    Raises:
        ValueError: `loss.teacher` has no weights.
    """
    loss = recipe.loss
    if not loss.pull or loss.targets:
        return None
    if loss.teacher is None:
        before = copy.deepcopy(model)
        before.load_state_dict(start, strict=False)  # but for the classifier
        return before
    teacher = create_network(ModelRecipe(name=loss.teacher), 0)
    if not brings_weights(loss.teacher):
        raise ValueError(f'loss.teacher={loss.teacher}: give a tag that has weights, such as NAME.rendered')
    return teacher


class Anchor:
    """Decoupled L2-SP: what of the trunk learns is pulled to where it started, see `OptimRecipe.anchor`.

    Args:
        model: whose trunk.
        start: its state dict at the start.
        strength: at least 0.
    """

    def __init__(self, model: nn.Module, start: dict[str, torch.Tensor], strength: float) -> None:
        self.strength = strength
        self.start = {
            id(parameter): start[name].to(parameter.device)
            for name, parameter in model.named_parameters()
            if in_trunk(name) and parameter.requires_grad
        }

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Before a step: move each parameter that has a gradient by its learning rate x strength of the way back."""
        for group in optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None and id(parameter) in self.start:
                    parameter.lerp_(self.start[id(parameter)], group['lr'] * self.strength)


# --- was it worth it --------------------------------------------------------------------------------------------------

_COLUMNS = ('mAP', 'rank1', 'rank5', 'mINP')


def compare(history: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The rows of the start and of the best epoch after it; None where a run did not evaluate both."""
    start = [row for row in history if row['epoch'] == 0]
    tuned = [row for row in history if row['epoch'] > 0]
    return (start[0], max(tuned, key=lambda row: row['mAP'])) if start and tuned else None


def comparison_table(start: dict[str, Any], tuned: dict[str, Any]) -> str:
    """Lines with the metrics of both, and one that says so where the start is at least as good."""
    rows = [('in per cent', [METRICS[key] for key in _COLUMNS])]
    rows += [(name, [f'{100 * row[key]:.2f}' for key in _COLUMNS]) for name, row in _named(start, tuned)]
    lines = [f'{name:<16}' + ''.join(f'{value:>9}' for value in values) for name, values in rows]
    if tuned['mAP'] <= start['mAP']:
        lines.append(
            'Fine-tuning did not raise the mAP on the test part: model/ holds the weights that the run started from.'
        )
    return '\n'.join(lines)


def _named(start: dict[str, Any], tuned: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [('before training', start), (f'after epoch {tuned["epoch"]}' if tuned['step'] else 'whitened', tuned)]
