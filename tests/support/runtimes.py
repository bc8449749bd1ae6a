"""A thin model and crops, for the runtimes of the extractor."""

from pathlib import Path

import numpy as np

from tests.support.models import TINY, tiny
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder


def thin_run(folder: Path) -> Path:
    """Make the run folder of a thin network."""
    recipe = ModelRecipe(name='dpa_resnet18', args={key: list(value) for key, value in TINY.items()})
    save_model_folder(recipe, (64, 96), tiny('dpa').state_dict(), folder / 'model')
    return folder


def odd_crops() -> list[np.ndarray]:
    """Five vehicles, each of another width."""
    return [np.asarray(draw_vehicle(k, k).resize((50 + 9 * k, 70))) for k in range(5)]
