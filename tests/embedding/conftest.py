"""An extractor, images, and their embeddings."""

import numpy as np
import pytest
from PIL import Image

from tests.support.extractors import SIZE, make_model, reference
from tests.support.pictures import HEIGHT, WIDTH
from timm_dpa.embedding.extractor import FeatureExtractor


@pytest.fixture(scope='module')
def model():
    return make_model()


@pytest.fixture(scope='module')
def extractor(model):
    return FeatureExtractor(model, precision='fp32', batch_size=3, image_size=SIZE, workers=3)


@pytest.fixture(scope='module')
def images():
    """Crops as detectors give them: of all shapes."""
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (64, 64), (90, 30), (17, 200), (64, 48), (120, 121), (33, 33), (8, 8)]
    return [
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(s, Image.Resampling.BICUBIC)
        for s in shapes
    ]


@pytest.fixture(scope='module')
def expected(model, images):
    rows = reference(model, images)
    assert (rows @ rows.T - np.eye(len(rows))).max() < 0.9999  # or the order of rows could not be seen
    return rows


@pytest.fixture
def folder(tmp_path, images):
    for index, image in enumerate(images):
        image.save(tmp_path / f'{index}.png')
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
