"""Short training runs that the tests of this folder publish."""

import shutil
from pathlib import Path

import pytest

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.train.data.provenance import write_about
from timm_dpa.train.run.trainer import train


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> Path:
    """Two epochs on generated patterns, which their data set calls synthetic."""
    folder = tmp_path_factory.mktemp('trained')
    data = write_vehicles(folder / 'patterns')
    write_about(data, 'noisy | patterns', 'Colored squares under noise.', synthetic=True)
    train(quick('schedule.epochs=2', 'run.evaluate_every=1'), data, folder / 'run')
    shutil.rmtree(folder / 'run' / 'checkpoints')
    return folder / 'run'


@pytest.fixture(scope='session')
def standard(trained, tmp_path_factory) -> Path:
    """An epoch of an architecture as it is, which a tag can stand for, on the same patterns."""
    run = tmp_path_factory.mktemp('standard') / 'run'
    recipe = quick('schedule.epochs=1', 'model.name=reid_resnet18', 'model.args={}')
    train(recipe, trained.parent / 'patterns', run)
    shutil.rmtree(run / 'checkpoints')
    return run
