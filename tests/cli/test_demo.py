"""`timm-dpa demo` as a real process, on a few vehicles and with random weights."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_dpa.cli.main import main
from timm_dpa.embedding.extractor import FeatureExtractor

#: two models, the second with one vehicle only
SMALL = ['demo', '--out', 'new/demo', '--model', 'cpa_resnet18', '--ids', '6', '--images-per-id', '8']
PICTURES = ('cmc.png', 'heat_maps.png', 'ranks.png', 'vehicles.png')


def timm_dpa(*arguments: str, cwd: Path, before: str = '') -> subprocess.CompletedProcess:
    code = f'import sys\n{before}\nfrom timm_dpa.cli.main import main\nsys.exit(main())'
    return subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'LC_ALL': 'C.UTF-8'},
        timeout=500,
        check=False,
    )


@pytest.fixture(scope='module')
def first(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run that tests read only, but for the one that runs it again."""
    folder = tmp_path_factory.mktemp('demo')
    done = timm_dpa(*SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_files_and_what_is_said_of_them(first):
    folder, done = first
    out = folder / 'new/demo'
    assert sorted(os.listdir(out)) == sorted([*PICTURES, 'evaluation.json', 'evaluation.md', 'vehicles'])
    assert len(os.listdir(out / 'vehicles/image_query')) == 6 * 6
    assert len(os.listdir(out / 'vehicles/image_test')) == 6 * 2
    for name in PICTURES:
        with Image.open(out / name) as picture:
            assert picture.width > 400
            assert np.asarray(picture.convert('L')).std() > 20
        assert re.search(rf'^new/demo/{name}: \w', done.stdout, re.MULTILINE)
    assert done.stdout.endswith('\nresults: new/demo\n')
    assert done.stderr.count('random weights') == done.stderr.count('\n') == 3  # of the commands that use the model


def test_it_is_honest(first):
    printed = first[1].stdout
    assert 'on 6 rendered vehicles: synthetic images' in printed
    assert 'cpa_resnet18 has no released weights. These are random: ' in printed
    assert printed.count("--names 'cpa_resnet18, random weights'") == 3  # the figures say so, too


def test_metrics_are_those_of_the_pictures(first):
    """From the embeddings, by the definitions."""
    folder, done = first
    root = folder / 'new/demo/vehicles'
    paths = [sorted((root / f'image_{part}').iterdir()) for part in ('query', 'test')]
    vectors = FeatureExtractor('cpa_resnet18', False)([str(path) for part in paths for path in part])
    query, gallery = np.split(vectors.astype(np.float64), [len(paths[0])])
    names = [np.array([path.name.split('_')[:2] for path in part]) for part in paths]
    ranks, precisions, penalties = [], [], []
    for vector, (vehicle, camera) in zip(query, names[0], strict=True):
        same = names[1][:, 0] == vehicle
        kept = np.flatnonzero(~(same & (names[1][:, 1] == camera)))
        places = 1 + np.flatnonzero(same[kept[np.argsort(-gallery[kept] @ vector)]])
        counts = np.arange(1, len(places) + 1)
        ranks.append(places[0])
        precisions.append(np.mean(counts / places))
        penalties.append(len(places) / places[-1])
    expected = {'rank1': np.mean(np.array(ranks) == 1), 'mAP': np.mean(precisions), 'mINP': np.mean(penalties)}
    written = json.loads((folder / 'new/demo/evaluation.json').read_text())
    assert written['metrics']['valid_queries'] == len(ranks) == 36
    for key, value in expected.items():
        assert written['metrics'][key] == pytest.approx(value, abs=0.002), key
    printed = ', '.join(
        f'{name} {100 * written["metrics"][key]:.1f} %'
        for name, key in (('Rank-1', 'rank1'), ('mAP', 'mAP'), ('mINP', 'mINP'))
    )
    assert f'\ncpa_resnet18: {printed}\n' in done.stdout


def test_again_renders_nothing_and_leaves_other_files_alone(first):
    folder, done = first
    out = folder / 'new/demo'
    (out / 'mine.txt').write_text('mine')
    images = {path: path.stat().st_mtime_ns for path in out.glob('vehicles/image_*/*')}
    (out / 'ranks.png').unlink()
    again = timm_dpa(*SMALL, cwd=folder)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert {path: path.stat().st_mtime_ns for path in out.glob('vehicles/image_*/*')} == images
    assert (out / 'mine.txt').read_text() == 'mine'
    assert (out / 'ranks.png').is_file()


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        (['--model', 'dpa_resnet19'], 'dpa_resnet19: no such model'),
        (['--model', '.'], 'no model in this folder'),
        (['--images-per-id', '7'], '--images-per-id must be at least 8'),
        (['--ids', '1'], 'ids must be at least 2, not 1'),
    ],
)
def test_wrong_use(tmp_path, monkeypatch, capsys, wrong, reason):
    monkeypatch.chdir(tmp_path)
    assert main(['demo', *wrong]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith('timm-dpa demo: ')
    assert reason in line
    assert not list(tmp_path.glob('demo/*'))


def test_without_the_extras_one_line_says_how_to_get_them(tmp_path):
    done = timm_dpa('demo', cwd=tmp_path, before="sys.modules['embreex'] = sys.modules['matplotlib'] = None")
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == "timm-dpa demo: the demo needs embreex, matplotlib: pip install 'timm-dpa[synth,train]'\n"
    assert not os.listdir(tmp_path)
