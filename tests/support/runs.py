"""Short training runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.run.task import ReIDTask
from timm_dpa.train.run.trainer import train

#: a shallow and narrow dpa_resnet18 at 32 px: an epoch of tests.support.vehicles takes a fraction of a second
QUICK = (
    'model.name=dpa_resnet18',
    'model.args={layers: [1, 1, 1, 1], channels: [8, 16, 32, 64], attn_args: {grid_size: 4}}',
    'data.image_size=32',
    'data.workers=0',
    'augment.pad=2',
    'batch.size=16',
    'batch.images_per_identity=4',
    'optim.lr=0.01',
    'optim.name=adamw',
    'schedule.epochs=3',
    'run.precision=fp32',
    'run.evaluate_every=1',
    'run.checkpoint_every=2',
    'run.log_every=1',
    'run.tensorboard=false',
)


def quick(*settings: str) -> Recipe:
    return Recipe().override([*QUICK, *settings])


def interrupted(recipe: Recipe, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A run that is stopped after a number of batches, and resumes."""
    forward, seen = ReIDTask.forward, []

    def stop(task, *batch):
        if len(seen) == step:
            raise KeyboardInterrupt
        seen.append(1)
        return forward(task, *batch)

    monkeypatch.setattr(ReIDTask, 'forward', stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, out)
    monkeypatch.setattr(ReIDTask, 'forward', forward)
    train(recipe, data, out)
