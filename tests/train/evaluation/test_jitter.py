"""Loose boxes: what moves, that a seed decides it, and that a score falls by it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.support import sequences
from timm_dpa.cli.main import main
from timm_dpa.embedding.images import ImageItem
from timm_dpa.train.evaluation.jitter import jittered


@pytest.fixture(scope='module')
def ramp(tmp_path_factory):
    """An image whose pixels tell their place: red is the column, green the row."""
    path = tmp_path_factory.mktemp('ramp') / 'car/a.png'
    path.parent.mkdir()
    columns, rows = np.meshgrid(np.arange(100), np.arange(50))
    Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)).save(path)
    return path


def sides(image: Image.Image) -> tuple[int, ...]:
    """How far the left, right, upper and lower side have moved outward, from what the pixels tell."""
    pixels = np.asarray(image).astype(int)
    columns, rows = pixels[0, :, 0], pixels[:, 0, 1]
    left = np.count_nonzero(columns == 0) - 1 if columns[0] == 0 else -columns[0]
    right = np.count_nonzero(columns == 99) - 1 if columns[-1] == 99 else columns[-1] - 99
    top = np.count_nonzero(rows == 0) - 1 if rows[0] == 0 else -rows[0]
    bottom = np.count_nonzero(rows == 49) - 1 if rows[-1] == 49 else rows[-1] - 49
    return left, right, top, bottom


def test_each_side_moves_by_itself(ramp):
    moved = []
    for seed in range(200):
        ((item),) = jittered([str(ramp)], 0.1, seed)
        assert item.name == str(ramp)
        left, right, top, bottom = sides(item.source)
        assert item.source.size == (100 + left + right, 50 + top + bottom)
        moved.append((left / 100, right / 100, top / 50, bottom / 50))
    moved = np.array(moved)
    assert np.abs(moved).max() <= 0.1
    # uniform -0.1..0.1 has a standard deviation of 0.0577; four independent sides
    np.testing.assert_allclose(moved.std(axis=0), 0.0577, atol=0.008)
    np.testing.assert_allclose(np.corrcoef(moved.T), np.eye(4), atol=0.25)


def test_seed_and_name_decide(ramp):
    def sizes(paths, seed=1):
        return [item.source.size for item in jittered(paths, 0.2, seed)]

    other = ramp.with_name('b.png')
    other.write_bytes(ramp.read_bytes())
    both = [str(ramp), str(other)]
    assert sizes(both) == sizes(both[:1]) + sizes(both[1:])
    assert len({*sizes(both), *sizes(both, 2)}) == 4


def test_what_cannot_be_read_is_passed_on(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'text')
    assert list(jittered([str(tmp_path / 'a.jpg')], 0.1)) == [
        ImageItem(str(tmp_path / 'a.jpg'), str(tmp_path / 'a.jpg'))
    ]


def test_command(tmp_path, capsys):
    for track in range(6):
        for view in range(3):
            pixels = sequences.texture(track).astype(float)
            pixels += np.random.default_rng(view).normal(0, 12, pixels.shape)
            path = tmp_path / f'data/{track}/{view}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    model = ['--model', 'dpa_resnet18', '--image-size', '64', '--precision', 'fp32', '--device', 'cpu']
    words = ['eval', '--data', str(tmp_path / 'data'), '--test-fraction', '1', '--draws', '2', *model]
    out = ['--out', str(tmp_path / 'out')]
    assert main([*words, *out, '--jitter', '0.3']) == 0
    assert 'boxes off by up to 30 %' in capsys.readouterr().out
    numbers = json.loads((tmp_path / 'out/evaluation.json').read_text())
    assert numbers['settings']['jitter'] == 0.3
    assert numbers['loose']['metrics']['mAP'] < numbers['metrics']['mAP']
    lines = (tmp_path / 'out/evaluation.md').read_text().splitlines()
    assert sum('boxes off by' in line for line in lines) == 1
    before = numbers['loose']['metrics']
    assert main([*words, *out, '--jitter', '0.3', '--overwrite']) == 0
    assert json.loads((tmp_path / 'out/evaluation.json').read_text())['loose']['metrics'] == before
    capsys.readouterr()
    assert main([*words, *out, '--jitter', '0.2']) == 2
    assert 'another jitter' in capsys.readouterr().err
    assert main([*words, '--jitter', '0.5']) == 2
    assert 'jitter must be in 0..0.4' in capsys.readouterr().err


def test_gap_on_the_command_line(tmp_path, capsys):
    sequences.write_frames(tmp_path / 'seq', range(1, 21), range(4))
    rows = sequences.write_rows(tmp_path / 't.txt', sequences.boxes(range(1, 21), range(4)))
    assert main(['crops', str(tmp_path / 'seq'), '--boxes', str(rows), '--out', str(tmp_path / 'crops')]) == 0
    with open(tmp_path / 'crops/crops.csv', newline='') as file:
        assert len(list(csv.DictReader(file))) == 80
    model = ['--model', 'dpa_resnet18', '--image-size', '64', '--precision', 'fp32', '--device', 'cpu']
    words = ['eval', '--data', str(tmp_path / 'crops'), '--test-fraction', '1', *model, '--out', str(tmp_path / 'e')]
    assert main([*words, '--protocol', 'gap', '--gap', '7', '--stride', '5']) == 0
    assert '8 queries, gallery of 8, protocol gap' in capsys.readouterr().out  # frames 5 and 10; 12 and 17
    assert json.loads((tmp_path / 'e/evaluation.json').read_text())['settings']['stride'] == 5
    assert main([*words, '--protocol', 'gap', '--gap', '7', '--stride', '5', '--rerank', '--overwrite']) == 2
    assert 'too few to re-rank' in capsys.readouterr().err
    assert main([*words, '--protocol', 'vru', '--gap', '7']) == 2
    assert '--gap and --stride are for --protocol gap, not for vru' in capsys.readouterr().err
