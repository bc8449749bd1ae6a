"""Figures of numbers: what was drawn, read back from the files, against the numbers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from timm_dpa.train.figures.curves import cmc_figure, run_figures


def write_evaluation_file(path: Path, cmc, name='model', mean_ap=0.5, **settings) -> Path:
    content = {
        'name': name,
        'metrics': {'mAP': mean_ap, 'rank1': float(cmc[0]), 'valid_queries': 40.0, 'queries': 40.0},
        'deviation': {},
        'settings': {'protocol': 'fixed', 'draws': 1, 'gallery': 300, 'same_camera_excluded': True, **settings},
        'cmc': [float(value) for value in cmc],
        'skipped': {},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def curve(low: float, length: int = 50) -> np.ndarray:
    return 1 - (1 - low) * np.exp(-np.arange(length) / 7)


def texts(svg: str) -> list[str]:
    """What is written in a figure; matplotlib notes it beside the outlines of the letters."""
    return [text.strip().replace('\u2007', '') for text in re.findall(r'<!--(.*?)-->', svg, re.DOTALL)]


def polylines(svg: str, points: int) -> list[np.ndarray]:
    """Lines of so many points, as `(points, 2)`."""
    lines = [re.findall(r'[ML] (\S+) (\S+)', path) for path in re.findall(r'<path d="([^"]*)"[^>]*stroke: #', svg)]
    return [np.array(line, float) for line in lines if len(line) == points]


class TestCmc:
    def test_curves_are_those_of_the_files(self, tmp_path):
        curves = {'a': curve(0.6), 'b': curve(0.3), 'c': np.full(50, 0.45)}
        runs = [(name, write_evaluation_file(tmp_path / name / 'evaluation.json', c)) for name, c in curves.items()]
        out = cmc_figure([(runs[0][0], runs[0][1].parent), *runs[1:]], tmp_path / 'cmc.svg')
        drawn = polylines(out.read_text(), 20)
        assert len(drawn) == 3
        x, y = np.concatenate(drawn).T
        ranks, rates = np.tile(np.arange(1, 21), 3), np.concatenate([c[:20] for c in curves.values()])
        # one scale for all
        for where, values, sign in ((x, ranks, 1), (y, rates, -1)):
            slope, offset = np.polyfit(values, where, 1)
            assert np.sign(slope) == sign
            np.testing.assert_allclose(slope * values + offset, where, atol=0.01)

    def test_labels(self, tmp_path):
        files = [
            write_evaluation_file(tmp_path / f'{k}.json', curve(low), name, mean_ap)
            for k, (low, name, mean_ap) in enumerate([(0.25, '_in the file', 0.125), (0.9, 'x', 0.8), (0.25, 'y', 0.5)])
        ]
        out = cmc_figure([('', files[0]), ('cost $5 and $6', files[1]), ('', files[2])], tmp_path / 'cmc.svg', 50)
        written = texts(out.read_text())
        labels = [text for text in written if ' / ' in text]
        assert labels == [
            'Rank-1 / mAP, in %',
            '90.00 / 80.00   cost $5 and $6',
            '25.00 / 50.00   y',
            '25.00 / 12.50   _in the file',
        ]
        assert '40 queries' in ' '.join(written)
        assert '50' in written

    def test_many_runs_with_long_names(self, tmp_path):
        runs = [
            ('ж' * 60 + f'\n\udcff{k}', write_evaluation_file(tmp_path / f'{k}.json', curve(0.1 + 0.08 * k)))
            for k in range(11)
        ]
        out = cmc_figure(runs, tmp_path / 'cmc.png')
        pixels = np.asarray(Image.open(out).convert('L'))
        # nothing is cut off at the border
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border == 255).all()
        styles = re.findall(r'stroke: (#\w+)', cmc_figure(runs, tmp_path / 'cmc.svg').read_text())
        assert len(set(styles)) >= 7

    @pytest.mark.parametrize(
        ('other', 'message'),
        [
            ({'protocol': 'vru'}, 'protocol is fixed in the one, vru'),
            ({'gallery': 299}, 'gallery is 300'),
            ({'same_camera_excluded': False}, 'same_camera_excluded'),
            ({'query_identities': ['7']}, 'query_identities'),
        ],
    )
    def test_not_comparable(self, tmp_path, other, message):
        one = write_evaluation_file(tmp_path / 'one.json', curve(0.5))
        two = write_evaluation_file(tmp_path / 'two.json', curve(0.5), **other)
        with pytest.raises(ValueError, match=message) as error:
            cmc_figure([('', one), ('', two)], tmp_path / 'cmc.png')
        assert 'one.json' in str(error.value)
        assert 'two.json' in str(error.value)
        # how the same images were ranked may differ
        reranked = write_evaluation_file(tmp_path / 'three.json', curve(0.6), rerank=True, flip=True)
        cmc_figure([('', one), ('', reranked)], tmp_path / 'cmc.png')

    def test_draws_have_to_be_the_same(self, tmp_path):
        one, two, three = (
            write_evaluation_file(tmp_path / f'{k}.json', curve(0.5), protocol='vru', **draws)
            for k, draws in enumerate(({'seed': 0, 'draws': 1}, {'seed': 7, 'draws': 1}, {'seed': 0, 'draws': 10}))
        )
        for other, message in ((two, 'seed is 0 in the one, 7'), (three, 'draws is 1 in the one, 10')):
            with pytest.raises(ValueError, match=message):
                cmc_figure([('', one), ('', other)], tmp_path / 'cmc.png')

    def test_the_legend_says_how_it_was_ranked(self, tmp_path):
        file = write_evaluation_file(tmp_path / 'a.json', curve(0.5), rerank=True, flip=True, expand=0)
        plain = write_evaluation_file(tmp_path / 'b.json', curve(0.4))
        text = cmc_figure([('ours', file), ('base', plain)], tmp_path / 'cmc.svg').read_text()
        assert 'ours, re-ranked, flip' in text
        assert 'base, ' not in text

    @pytest.mark.parametrize(
        'content',
        ['{"name": "a"', '[]', '{}', '"text"', '{"settings": {}, "metrics": {}, "cmc": []}', b'\xff\xfe'],
    )
    def test_damaged(self, tmp_path, content):
        file = tmp_path / 'evaluation.json'
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=r'evaluation\.json: not an evaluation'):
            cmc_figure([('', tmp_path)], tmp_path / 'cmc.png')

    def test_wrong_use(self, tmp_path):
        file = write_evaluation_file(tmp_path / 'evaluation.json', curve(0.5, 30))
        bad = write_evaluation_file(tmp_path / 'bad.json', [0.5, float('nan')] + [1.0] * 30)
        for arguments, kind, message in (
            (([('', tmp_path / 'gone')], tmp_path / 'a.png'), FileNotFoundError, 'gone: no such file'),
            (([], tmp_path / 'a.png'), ValueError, 'runs is empty'),
            (([('', file)], tmp_path / 'a.jpg'), ValueError, r'a\.jpg: a figure is written as \.png'),
            (([('', file)], tmp_path / 'a.png', 40), ValueError, 'max_rank=40: .* ends at rank 30'),
            (([('', file)], tmp_path / 'a.png', 1), ValueError, 'max_rank must be at least 2'),
            (([('', bad)], tmp_path / 'a.png'), ValueError, r'bad\.json: cmc is not'),
        ):
            with pytest.raises(kind, match=message):
                cmc_figure(*arguments)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['bad.json', 'evaluation.json']

    def test_files(self, tmp_path):
        """Whole, reproducible, in folders that are made, and nothing else is left or changed."""
        file = write_evaluation_file(tmp_path / 'evaluation.json', curve(0.5))
        settings = dict(matplotlib.rcParams)
        starts = {'png': b'\x89PNG', 'svg': b'<?xml', 'pdf': b'%PDF'}
        for kind, start in starts.items():
            out = tmp_path / 'new' / f'cmc.{kind}'
            assert cmc_figure([('', file)], out) == out
            first = out.read_bytes()
            assert first.startswith(start)
            if kind == 'png':
                cmc_figure([('', file)], out)
                assert out.read_bytes() == first
        assert sorted(os.listdir(tmp_path / 'new')) == ['cmc.pdf', 'cmc.png', 'cmc.svg']
        assert dict(matplotlib.rcParams) == settings


class TestRun:
    STEPS = 'step,epoch,lr,loss,classifier,metric,images_per_second\n'
    METRICS = 'epoch,step,loss,classifier,metric,mAP,rank1,rank5,rank10,mINP\n'

    def test_nothing_yet(self, tmp_path):
        assert run_figures(tmp_path) == []
        (tmp_path / 'steps.csv').write_text(self.STEPS)
        assert run_figures(tmp_path) == []
        assert os.listdir(tmp_path) == ['steps.csv']

    @pytest.mark.parametrize('kept', [('metrics',), ('steps', 'metrics'), ('metrics', 'evaluation')])
    def test_what_there_is(self, tmp_path, kept):
        if 'steps' in kept:
            (tmp_path / 'steps.csv').write_text(self.STEPS + '20,1,0.001,5.1,3.1,2,44\n40,2,0.0005,4.1,3,1.1,45\n41,2')
        if 'metrics' in kept:
            (tmp_path / 'metrics.csv').write_text(self.METRICS + '2,40,4.6,3.05,1.55,0.4,0.5,0.6,0.7,0.3\n')
        names = ['training.png']
        if 'evaluation' in kept:
            write_evaluation_file(tmp_path / 'evaluation.json', curve(0.5))
            names.append('cmc.png')
        assert run_figures(tmp_path) == [tmp_path / 'figures' / name for name in names]
        assert sorted(os.listdir(tmp_path / 'figures')) == sorted(names)
        assert np.asarray(Image.open(tmp_path / 'figures/training.png').convert('L')).std() > 10

    def test_the_loss_goes_down(self, tmp_path):
        """The black line, read from the picture."""
        rows = [f'{step},1,0.001,{10 - 0.02 * step},1,1,44' for step in range(0, 400, 2)]
        (tmp_path / 'steps.csv').write_text(self.STEPS + '\n'.join(rows) + '\n')
        pixels = np.asarray(Image.open(run_figures(tmp_path)[0]).convert('RGB')).astype(int)
        height, width = pixels.shape[:2]
        part = pixels[: height // 2, width // 5 : width * 3 // 5]
        y = [np.flatnonzero((part[:, x] == 0).all(axis=1)) for x in range(0, part.shape[1], 40)]
        middles = [found.mean() for found in y if len(found)]
        assert len(middles) >= 5
        assert (np.diff(middles) > 0).all()

    def test_a_metric_that_was_not_measured(self, tmp_path):
        (tmp_path / 'metrics.csv').write_text('epoch,loss,mAP,rank1,mINP\n1,4,,,\n2,3,0.2,0.3,0.1\n3,2,,,\n')
        assert len(run_figures(tmp_path)) == 1
        (tmp_path / 'metrics.csv').write_text('epoch,loss,mAP\n1,4,\n')
        assert len(run_figures(tmp_path)) == 1

    def test_damaged(self, tmp_path):
        (tmp_path / 'steps.csv').write_text(self.STEPS + '20,1,0.001,oops,3.1,2,44\n')
        with pytest.raises(ValueError, match=r'steps\.csv: not a table of numbers'):
            run_figures(tmp_path)

    def test_without_the_extra(self, tmp_path):
        """Importing needs no extra; drawing says what to install, before anything is computed."""
        code = (
            'import sys\n'
            'sys.modules["matplotlib"] = sys.modules["pytorch_grad_cam"] = None\n'
            'from pathlib import Path\n'
            'import torch\n'
            'from timm_dpa.train.figures import heat_maps, curves, ranked_lists\n'
            'for call in (lambda: curves.run_figures(Path(sys.argv[1])),\n'
            '             lambda: ranked_lists.rank_list_figure([], None, "a.png"),\n'
            '             lambda: heat_maps.heat_map_figure([("", None)], ["a.jpg"], "a.png"),\n'
            '             lambda: heat_maps.heat_map(None, None)):\n'
            '    try:\n'
            '        call()\n'
            '    except ImportError as error:\n'
            '        print(error)\n'
        )
        (tmp_path / 'steps.csv').write_text(self.STEPS + '20,1,0.001,5.1,3.1,2,44\n')
        done = subprocess.run([sys.executable, '-c', code, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("pip install 'timm-dpa[train]'") == 4
        assert os.listdir(tmp_path) == ['steps.csv']
