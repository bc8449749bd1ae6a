"""examples/rendered_traffic.py and the footage that it writes."""

import configparser

import numpy as np
import pytest
from PIL import Image

from timm_dpa.synth.footage import Footage, render_footage

OPTIONS = ('--vehicles', '3', '--frames', '4', '--size', '160', '96', '--seed', '3')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('rendered') / 'traffic'


def test_a_sequence_of_motchallenge(call, folder):
    status, printed, errors = call('rendered_traffic', '--out', folder, *OPTIONS)
    assert (status, printed, errors) == (0, f'4 frames: {folder}\n', '')
    frames = sorted((folder / 'img1').iterdir())
    assert [path.name for path in frames] == [f'{n:06d}.jpg' for n in (1, 2, 3, 4)]
    with Image.open(frames[0]) as image:
        assert (image.size, image.mode) == ((160, 96), 'RGB')
    truth = np.loadtxt(folder / 'gt' / 'gt.txt', delimiter=',', ndmin=2)
    found = np.loadtxt(folder / 'det' / 'det.txt', delimiter=',', ndmin=2)
    assert (truth.shape[1], found.shape[1]) == (9, 10)
    assert ((truth[:, 8] > 0.3) & (truth[:, 8] <= 1)).all()
    assert (truth[:, 2:4] >= 0).all()
    assert ((truth[:, 2:4] + truth[:, 4:6]) <= [160.1, 96.1]).all()
    good = found[(found[:, 5] > 0) & (found[:, 2] < 160)]
    assert len(good) == len(truth)
    assert (found[:, 1] == -1).all()
    info = configparser.ConfigParser()
    info.read(folder / 'seqinfo.ini')
    assert dict(info['Sequence'])['seqlength'] == '4'
    status, printed, errors = call('rendered_traffic', '--out', folder, *OPTIONS)
    assert (status, printed) == (2, '')
    assert 'is there already' in errors


def test_boxes_are_where_the_vehicles_are():
    """Without the vehicles the same frames differ inside of the boxes, and hardly outside, where only shadows fall."""
    footage = Footage(4, 3, (220, 140), scale=6, seed=5)
    frames = list(render_footage(footage))
    again = list(render_footage(footage))
    assert sum(len(frame.boxes) for frame in frames) >= 3
    for frame, same in zip(frames, again, strict=True):
        np.testing.assert_array_equal(frame.pixels, same.pixels)
        gray = frame.pixels.astype(int).mean(-1)
        for (x1, y1, x2, y2), visible in zip(frame.boxes.round().astype(int), frame.visible, strict=True):
            assert x2 - x1 >= 2
            if visible > 0.95:  # windows, roof and edges: more contrast than a road
                assert gray[y1:y2, x1:x2].std() > 8


@pytest.mark.parametrize(
    ('option', 'message'),
    [(['--frames', '0'], 'frames must be at least 1'), (['--size', '9', '99'], 'at least 64 x 64 pixels, not 9 x 99')],
)
def test_wrong_numbers(call, tmp_path, option, message):
    status, printed, errors = call('rendered_traffic', '--out', tmp_path / 'a', *OPTIONS, *option)
    assert (status, printed) == (2, '')
    assert message in errors
