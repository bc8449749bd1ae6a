"""examples/rendered_traffic.py and the files that it writes."""

import configparser

import numpy as np
import pytest
from PIL import Image

OPTIONS = ('--vehicles', '4', '--frames', '4', '--size', '420', '120', '--seed', '3')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('rendered') / 'traffic'


def test_a_sequence_of_motchallenge(call, folder):
    status, printed, errors = call('rendered_traffic', '--out', folder, *OPTIONS)
    assert (status, printed, errors) == (0, f'4 frames: {folder}\n', '')
    frames = sorted((folder / 'img1').iterdir())
    assert [path.name for path in frames] == [f'{n:06d}.jpg' for n in (1, 2, 3, 4)]
    with Image.open(frames[0]) as image:
        assert (image.size, image.mode) == ((420, 120), 'RGB')
    truth = np.loadtxt(folder / 'gt' / 'gt.txt', delimiter=',', ndmin=2)
    found = np.loadtxt(folder / 'det' / 'det.txt', delimiter=',', ndmin=2)
    assert (truth.shape[1], found.shape[1]) == (9, 10)
    assert ((truth[:, 8] >= 0.8) & (truth[:, 8] <= 1)).all()
    assert (truth[:, 2:4] >= 0).all()
    assert ((truth[:, 2:4] + truth[:, 4:6]) <= [420.1, 120.1]).all()
    good = found[(found[:, 5] > 0) & (found[:, 2] < 420)]
    assert len(good) == len(truth)
    assert (found[:, 1] == -1).all()
    info = configparser.ConfigParser()
    info.read(folder / 'seqinfo.ini')
    assert dict(info['Sequence'])['seqlength'] == '4'
    status, printed, errors = call('rendered_traffic', '--out', folder, *OPTIONS)
    assert (status, printed) == (2, '')
    assert 'is there already' in errors


@pytest.mark.parametrize(
    ('option', 'message'),
    [(['--frames', '0'], 'frames must be at least 1'), (['--size', '9', '99'], 'at least 64 x 64 pixels, not 9 x 99')],
)
def test_wrong_numbers(call, tmp_path, option, message):
    status, printed, errors = call('rendered_traffic', '--out', tmp_path / 'a', *OPTIONS, *option)
    assert (status, printed) == (2, '')
    assert message in errors
