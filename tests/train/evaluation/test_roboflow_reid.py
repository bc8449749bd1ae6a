"""The protocols of tracking against the package that has them: roboflow's reid, on the crops that it cuts itself."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import layouts, sequences
from tests.support.extractors import SIZE, make_model
from timm_dpa.embedding.crop_files import CropOptions, write_crops
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.sequences import find_sequences
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.evaluation.evaluate import evaluate_model

pytestmark = pytest.mark.integrations
reid = pytest.importorskip('reid')


class Backbone(nn.Module):
    """A model as reid takes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)


@pytest.fixture(scope='module')
def mot(tmp_path_factory):
    """Vehicles that come and go before noise, so that no score is perfect; one is seen once."""
    root = layouts.mot(tmp_path_factory.mktemp('reid') / 'mot', frames=range(1, 41))
    for name in ('north', 'south'):
        path = root / name / 'gt/gt.txt'
        rows = [line.split(',') for line in path.read_text().splitlines()]
        rows = [row for row in rows if int(row[0]) % 11 != int(row[1]) % 7 and (row[1] != '3' or row[0] == '12')]
        rng = np.random.default_rng(1)
        for row in rows:  # boxes that are off by half a vehicle mix the looks of neighbors
            row[2:4] = [f'{float(value) + rng.uniform(-6, 6):.2f}' for value in row[2:4]]
        sequences.write_rows(path, rows)
    return root


@pytest.fixture(scope='module')
def patches(mot):
    reid.data.mot.generate_mot_patches(mot, mot.parent / 'patches', split='full', image_ext='png')
    return mot.parent / 'patches'


@pytest.fixture(scope='module')
def models():
    model = make_model()
    preprocessing = reid.ReIDPreprocessing(input_size=(SIZE, SIZE), interpolation='bicubic')
    theirs = reid.ReIDModel(Backbone(model), torch.device('cpu'), preprocessing)
    return theirs, FeatureExtractor(model, precision='fp32', image_size=SIZE)


@pytest.mark.parametrize(('gap', 'stride'), [(6, 3), (7, 5), (30, 2)])
def test_gap(patches, models, gap, stride):
    theirs, extractor = models
    split = reid.load_identity_folders(patches)
    protocol = reid.ReassociationProtocol(gap_frames=gap, query_stride=stride)
    expected = theirs.evaluate(split, protocol=protocol, verbose=False)
    data = load_data(patches, 'folders', test_fraction=1)
    result = evaluate_model(extractor, data, 'gap', gap=gap, stride=stride)
    assert 0.2 < result.metrics['rank1'] < 1
    assert result.metrics['valid_queries'] == expected.num_queries
    assert 100 * result.metrics['rank1'] == pytest.approx(expected.metrics['rank1'], abs=1e-9)
    assert 100 * result.metrics['mAP'] == pytest.approx(expected.metrics['mrr'], abs=1e-9)
    assert result.settings['gallery'] == expected.metadata['num_gallery_crops']


@pytest.mark.parametrize('seed', [0, 3])
def test_one_query(patches, models, seed, tmp_path):
    theirs, extractor = models
    for path in patches.glob('*/*_00000?.png'):  # few enough that no two cosines are the same but for rounding
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name)
    split = reid.load_identity_folders(tmp_path)
    expected = theirs.evaluate(split, protocol=reid.RetrievalProtocol(seed=seed), verbose=False)
    data = load_data(tmp_path, 'folders', test_fraction=1)
    result = evaluate_model(extractor, data, 'one-query', seed=seed)
    for ours, name in (('mAP', 'map'), ('mINP', 'minp'), ('rank1', 'rank1'), ('rank5', 'rank5'), ('rank10', 'rank10')):
        assert 100 * result.metrics[ours] == pytest.approx(expected.metrics[name], abs=1e-9)
    assert result.metrics['valid_queries'] == expected.num_queries


@pytest.mark.parametrize(('half', 'split'), [(None, 'full'), ('first', 'train_half'), ('second', 'val_half')])
def test_crops_are_called_as_its_own(mot, tmp_path, half, split):
    reid.data.mot.generate_mot_patches(mot, tmp_path / 'theirs', split=split, image_ext='png', min_side=4)
    write_crops(find_sequences(mot), tmp_path / 'ours', CropOptions(half=half, min_side=4))
    names = [
        {f'{path.parent.name}/{path.stem}' for path in (tmp_path / side).glob('*/*.*')} for side in ('theirs', 'ours')
    ]
    # it rounds boxes to whole pixels before it compares; no box here is so near the least side that this matters
    assert names[0] == names[1]
    assert reid.load_identity_folders(tmp_path / 'ours').image_paths
