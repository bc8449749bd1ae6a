"""Figures: what was drawn, read back from the files, against the numbers; rankings and heat maps against formulas."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from tests.support.layouts import vehicle_folders, veri_uav
from tests.support.models import tiny
from timm_dpa import FeatureExtractor
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.figures.curves import cmc_figure, run_figures
from timm_dpa.train.figures.heat_maps import heat_map, heat_map_figure
from timm_dpa.train.figures.ranked_lists import rank_list_figure, rank_lists

RIGHT, WRONG, QUERY = ((0, 122, 61), (232, 55, 44), (31, 78, 156))


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


# --- ranked lists -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return load_data(draw_data_set(tmp_path_factory.mktemp('drawn') / 'set', 12, 8, cameras=3, size=32))


@pytest.fixture(scope='module')
def extractors():
    return [
        FeatureExtractor(tiny(name, seed), image_size=32, precision='fp32') for seed, name in enumerate(['dpa', 'se'])
    ]


def vehicle_and_camera(path: str) -> tuple[str, str]:
    return tuple(os.path.basename(path).split('_')[:2])


def plain_ranking(extractor, data, query: str) -> tuple[list[str], list[bool], float]:
    """Paths in order, whether they are right, and average precision; all from the names of the files."""
    gallery = sorted(str(path) for path in (data.root / 'image_test').iterdir())
    vector, vectors = extractor([query]).astype(np.float64)[0], extractor(gallery).astype(np.float64)
    vehicle, camera = vehicle_and_camera(query)
    entries = []
    for path, other in zip(gallery, vectors, strict=True):
        if vehicle_and_camera(path) != (vehicle, camera):
            entries.append((-float(vector @ other), path, vehicle_and_camera(path)[0] == vehicle))
    entries.sort()
    hits = [k for k, entry in enumerate(entries, start=1) if entry[2]]
    precision = sum(k / rank for k, rank in enumerate(hits, start=1)) / len(hits)
    return [entry[1] for entry in entries], [entry[2] for entry in entries], precision


def frames(path: Path, *colors) -> list[tuple[int, ...]]:
    """Colors of the frames in a picture, row by row from left to right."""
    pixels = np.asarray(Image.open(path).convert('RGB'))
    found = []
    for color in colors:
        labels, _ = ndimage.label((pixels == color).all(axis=-1))
        for rows, columns in ndimage.find_objects(labels):
            if rows.stop - rows.start > 130 and columns.stop - columns.start > 130:
                found.append((rows.start // 20, columns.start, color))
    return [color for _, _, color in sorted(found)]


class TestRankLists:
    def test_against_a_plain_ranking(self, drawn, extractors):
        ranked = rank_lists(extractors, drawn, queries=3, top=7, seed=5)
        assert len({query.pid for query in ranked}) == 3
        for query in ranked:
            assert drawn.identities[query.pid] == vehicle_and_camera(query.path)[0]
            for k, extractor in enumerate(extractors):
                paths, correct, precision = plain_ranking(extractor, drawn, query.path)
                assert [match.name for match in query.matches[k]] == paths[:7]
                assert [match.rank for match in query.matches[k]] == list(range(1, 8))
                assert query.correct[k] == correct[:7]
                assert query.ap[k] == pytest.approx(precision, abs=1e-6)

    def test_frames_in_the_picture(self, drawn, extractors, tmp_path):
        names = [os.path.basename(path) for path in drawn.query.paths[::5]]
        models = [('first', extractors[0]), ('a second model with a rather long name that wraps', extractors[1])]
        out = rank_list_figure(models, drawn, tmp_path / 'ranks.png', top=6, query_names=names)
        expected = [
            RIGHT if correct else WRONG
            for name in names
            for extractor in extractors
            for correct in plain_ranking(extractor, drawn, str(drawn.root / 'image_query' / name))[1][:6]
        ]
        assert set(expected) == {RIGHT, WRONG}
        assert frames(out, RIGHT, WRONG) == expected
        assert frames(out, QUERY) == [QUERY] * len(names)
        assert os.listdir(tmp_path) == ['ranks.png']

    def test_signs_beside_the_colors(self, drawn, extractors, tmp_path):
        out = rank_list_figure([('m', extractors[0])], drawn, tmp_path / 'ranks.svg', queries=2, top=4)
        written = texts(out.read_text())
        ranked = rank_lists(extractors[:1], drawn, queries=2, top=4)
        signs = [f'{k}  {"✔" if c else "✘"}' for query in ranked for k, c in enumerate(query.correct[0], start=1)]
        assert [text for text in written if '✔' in text or '✘' in text] == signs
        similarities = [f'{match.similarity:.3f}' for query in ranked for match in query.matches[0]]
        assert [text for text in written if re.fullmatch(r'-?\d\.\d{3}', text)] == similarities
        assert [text for text in written if text.startswith('AP')] == [f'AP {100 * q.ap[0]:.1f} %' for q in ranked]

    def test_long_names_stay_in_their_column(self, drawn, extractors, tmp_path):
        name = 'dpa_resnet50.rendered'
        out = rank_list_figure([(name, extractors[0])], drawn, tmp_path / 'ranks.png', queries=1, top=1)
        short = rank_list_figure([('m', extractors[0])], drawn, tmp_path / 'short.png', queries=1, top=1)
        # one tile is the query, one the match: what differs is the name alone
        pixels, plain = (np.asarray(Image.open(path).convert('L'), int) for path in (out, short))
        changed = np.nonzero((pixels != plain).any(axis=0))[0]
        tiles = np.nonzero((pixels < 200).sum(axis=0) > 130)[0]
        column = tiles[np.diff(tiles, append=tiles[-1]).argmax()], tiles[np.diff(tiles).argmax() + 1]
        assert column[0] < changed.min()
        assert changed.max() < column[1] - 5

    def test_seed(self, drawn, extractors):
        def shown(seed, **options):
            return [query.path for query in rank_lists(extractors[:1], drawn, queries=3, seed=seed, **options)]

        assert shown(0) == shown(0)
        assert len({tuple(shown(seed)) for seed in range(4)}) > 1
        assert len(rank_lists(extractors[:1], drawn, queries=1000)) == len(drawn.query)
        drawn_gallery = rank_lists(extractors[:1], drawn, protocol='vru', queries=2, top=50)
        # one image of each of the 6 vehicles, whichever camera took it
        assert [len(query.matches[0]) for query in drawn_gallery] == [6, 6]
        assert [sum(query.correct[0]) for query in drawn_gallery] == [1, 1]

    def test_images_that_cannot_be_read(self, tmp_path, extractors, caplog):
        data = load_data(veri_uav(tmp_path))
        for name in ('image_query/0003_01_1.jpg', 'image_test/0005_01_2.jpg'):
            (tmp_path / name).write_bytes(b'broken')
        ranked = rank_lists(extractors[:1], data, queries=10, top=20)
        assert sorted(os.path.basename(query.path) for query in ranked) == [
            '0003_03_1.jpg',
            '0005_01_1.jpg',
            '0005_03_1.jpg',
        ]
        assert not any('0005_01_2' in match.name for query in ranked for match in query.matches[0])
        assert '0003_01_1.jpg' in caplog.text
        assert '0005_01_2.jpg' in caplog.text

    def test_proportions_and_images_that_have_gone(self, tmp_path, extractors):
        data = load_data(veri_uav(tmp_path))
        query, other = data.query.paths[0], data.gallery.paths[0]
        Image.new('RGB', (90, 30), (255, 0, 255)).save(query, quality=100)

        class Removing(FeatureExtractor):
            def __call__(self, images, **options):
                Path(other).unlink()
                return super().__call__(images, **options)

        extractor = Removing(extractors[0].model, image_size=32)
        name = os.path.basename(query)
        out = rank_list_figure([('m', extractor)], data, tmp_path / 'a.png', query_names=[name], top=50)
        pixels = np.asarray(Image.open(out).convert('RGB')).astype(int)
        found = np.argwhere((np.abs(pixels - (254, 0, 254)) < 8).all(axis=-1))
        height, width = np.ptp(found, axis=0) + 1
        assert width == pytest.approx(138, abs=3)
        assert height == pytest.approx(46, abs=3)
        # all but those of the query's own camera; the one that has gone is of it or shows as an empty tile
        kept = [path for path in data.gallery.paths if vehicle_and_camera(path) != vehicle_and_camera(query)]
        assert len(frames(out, RIGHT, WRONG)) == len(kept)

    def test_gray_tile(self, tmp_path, extractors):
        data = load_data(veri_uav(tmp_path))
        sizes = []
        for gone in (False, True):

            class Removing(FeatureExtractor):
                def __call__(self, images, gone=gone, **options):
                    if gone:
                        Path(data.gallery.paths[-1]).unlink()
                    return super().__call__(images, **options)

            extractor = Removing(extractors[0].model, image_size=32)
            query = os.path.basename(data.query.paths[0])
            out = rank_list_figure([('m', extractor)], data, tmp_path / 'a.png', query_names=[query], top=50)
            pixels = np.asarray(Image.open(out).convert('RGB'))
            sizes.append(((pixels == 0xE4).all(axis=-1)).sum())
        assert sizes[1] - sizes[0] > 0.5 * 142 * 95  # noise of 12 x 8 pixels was there

    def test_wrong_use(self, drawn, extractors, tmp_path):
        for options, message in (
            ({'queries': 0}, 'at least 1'),
            ({'top': 0}, 'at least 1'),
            ({'query_names': ['nobody.jpg']}, 'nobody.jpg is no query of this protocol'),
            ({'protocol': 'sideways'}, 'unknown protocol'),
        ):
            with pytest.raises(ValueError, match=message):
                rank_lists(extractors[:1], drawn, **options)
        with pytest.raises(ValueError, match='models is empty'):
            rank_lists([], drawn)
        with pytest.raises(ValueError, match=r'a\.gif: a figure'):
            rank_list_figure([('m', extractors[0])], drawn, tmp_path / 'a.gif')
        assert os.listdir(tmp_path) == []

    def test_queries_of_a_table_are_named_as_there(self, tmp_path, extractors):
        vehicle_folders(tmp_path / 'images', {'a': 2, 'b': 2})
        rows = [f'images/{v}/00{n}.jpg,{v},{part}' for v in 'ab' for n, part in enumerate(('query', 'gallery'))]
        (tmp_path / 'table.csv').write_text('path,pid,split\n' + '\n'.join(rows))
        found = rank_lists(extractors[:1], load_data(tmp_path / 'table.csv'), query_names=['images/b/000.jpg'])
        assert [query.path for query in found] == [str(tmp_path / 'images/b/000.jpg')]

    def test_query_without_a_match(self, tmp_path, extractors):
        data = load_data(veri_uav(tmp_path))
        for path in (tmp_path / 'image_test').glob('0003_03_*'):
            path.unlink()
        data = load_data(tmp_path)
        with pytest.raises(ValueError, match=r'0003_01_1\.jpg has no match'):
            rank_lists(extractors[:1], data, query_names=['0003_01_1.jpg'])
        shown = [os.path.basename(query.path) for query in rank_lists(extractors[:1], data, queries=10)]
        assert sorted(shown) == ['0003_03_1.jpg', '0005_01_1.jpg', '0005_03_1.jpg']


# --- heat maps --------------------------------------------------------------------------------------------------------


def textured(left: int, top: int, size: tuple[int, int] = (96, 96), side: int = 32) -> Image.Image:
    """A colored pattern on gray."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    pixels[top : top + side, left : left + side] = np.random.default_rng(3).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels)


def plain_grad_cam_plus_plus(model, x: torch.Tensor, split) -> np.ndarray:
    """Chattopadhay et al. 2018, eq. 10, 12 and 19, in float64; `split` makes the map and the rest of the model.

    As in the package, 1e-6 is added to the denominator.
    """
    maps, rest = split(model)
    activation = maps(x).detach().requires_grad_()
    embedding = rest(activation)[0]
    fixed = embedding.detach() / embedding.detach().norm()
    (gradient,) = torch.autograd.grad((embedding * fixed).sum(), activation)
    a, g = activation.detach()[0].numpy(), gradient[0].numpy()
    heat = np.zeros(a.shape[1:])
    for channel, slope in zip(a, g, strict=True):
        weight = 0.0
        for i, j in np.ndindex(slope.shape):
            if slope[i, j] > 0:
                alpha = slope[i, j] ** 2 / (2 * slope[i, j] ** 2 + channel.sum() * slope[i, j] ** 3 + 1e-6)
                weight += alpha * slope[i, j]
        heat += weight * channel
    heat = F.interpolate(torch.from_numpy(np.maximum(heat, 0))[None, None], x.shape[2:], mode='bilinear')[0, 0].numpy()
    return (heat - heat.min()) / (heat.max() - heat.min())


def after_stage_3(model):
    def maps(x):
        x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        return model.layer3(model.layer2(model.layer1(x)))

    return maps, lambda a: model.forward_head(model.layer4(a), pre_logits=True)


def after_features(model):
    return model.forward_features, lambda a: model.forward_head(a, pre_logits=True)


def channels_last_features(model):
    return (
        lambda x: model.forward_features(x).permute(0, 3, 1, 2),
        lambda a: model.forward_head(a.permute(0, 2, 3, 1), pre_logits=True),
    )


def other_models(name: str):
    torch.manual_seed(0)
    if name == 'backbone':
        return timm.create_model('reid_timm', backbone='resnet10t', num_classes=0).eval()
    return timm.create_model(
        'swin_tiny_patch4_window7_224', img_size=64, embed_dim=24, depths=(1, 1), num_heads=(2, 2), window_size=4,
        num_classes=0,
    ).eval()  # fmt: skip


class TestHeatMap:
    @pytest.mark.parametrize('name', ['dpa', 'nl', None, 'backbone', 'swin'])
    def test_formula(self, name):
        small = name not in ('backbone', 'swin')
        model = tiny(name) if small else other_models(name)
        split = after_stage_3 if small else channels_last_features if name == 'swin' else after_features
        image = textured(10, 20, (64, 64))
        heat = heat_map(model, image, image_size=64)
        config = timm.data.resolve_data_config(model=model)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255.0
        mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
        expected = plain_grad_cam_plus_plus(model.double(), (x.double() - mean) / std, split)
        assert heat.shape == (64, 64)
        assert heat.dtype == np.float32
        assert (heat.min(), heat.max()) == (0, pytest.approx(1, abs=1e-4))
        np.testing.assert_allclose(heat, expected, atol=1e-3)
        assert heat.std() > 0.1

    def test_follows_the_object(self):
        model = tiny('dpa')
        centers = {}
        for place in ((0, 0), (64, 0), (0, 64), (64, 64)):
            heat = heat_map(model, textured(*place), image_size=96)
            centers[place] = np.array(ndimage.center_of_mass(heat))[::-1]
        for (x, y), center in centers.items():
            assert (center[0] > 48) == (x > 0)
            assert (center[1] > 48) == (y > 0)

    def test_the_model_stays_as_it_was(self):
        model = tiny('dpa', num_classes=5).train()
        model.layer1.eval()
        model.conv1.weight.requires_grad_(False)
        model.fc.weight.grad = gradient = torch.ones_like(model.fc.weight)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        with torch.no_grad():
            first = heat_map(model, textured(10, 20), image_size=64)
        assert [module.training for module in model.modules()] == modes
        assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['conv1.weight']
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ['fc.weight']
        assert model.fc.weight.grad is gradient
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
        for key, value in model.state_dict().items():
            assert torch.equal(value, weights[key]), key
        with torch.autocast('cpu', torch.bfloat16):
            assert np.array_equal(heat_map(model, textured(10, 20), image_size=64), first)

    def test_other_layers(self):
        model = tiny('dpa', num_classes=3)
        image = textured(10, 20)
        assert heat_map(model, image, image_size=(64, 96)).shape == (64, 96)
        maps = [heat_map(model, image, layer=layer, image_size=64) for layer in ('layer3', None, 'layer3.0', 'layer4')]
        assert np.array_equal(maps[0], maps[1])
        assert not np.allclose(maps[0], maps[2], atol=0.01)  # without the attention
        assert not np.allclose(maps[0], maps[3], atol=0.01)
        # an activation that works in place afterwards does not reach into the map
        before = heat_map(model, image, layer='layer3.0.bn1', image_size=64)
        assert model.layer3[0].act1.inplace
        model.layer3[0].act1.inplace = False
        assert np.array_equal(heat_map(model, image, layer='layer3.0.bn1', image_size=64), before)
        for layer, message in (
            ('layer9', 'layer=layer9: the model has no such module; it has conv1,'),
            ('neck', r'layer=neck gives an output of shape \(1, 128\), no map'),
            ('fc', 'layer=fc plays no part'),
        ):
            with pytest.raises(ValueError, match=message):
                heat_map(model, image, layer=layer, image_size=64)

    def test_tokens(self):
        model = timm.create_model('vit_tiny_patch16_224', depth=1, img_size=32, num_classes=0)
        with pytest.raises(ValueError, match=r'VisionTransformer without layer= .*\(1, 5, 192\).* name a layer'):
            heat_map(model, textured(10, 20), image_size=32)

    def test_damaged_weights(self):
        model = tiny(None)
        with torch.no_grad():
            model.layer4[0].conv1.weight.fill_(float('nan'))
        with pytest.raises(RuntimeError, match='not finite'):
            heat_map(model, textured(10, 20), image_size=64)

    def test_picture(self, tmp_path):
        """Image and overlay side by side, in the proportions of the image, colored as the map says."""
        color = (20, 160, 60)
        image = Image.new('RGB', (96, 48), color)
        image.paste(textured(0, 0, (20, 20), 20), (60, 10))
        image.save(tmp_path / 'wide.png')
        model = tiny('dpa')
        out = heat_map_figure([('DpA', model)], [tmp_path / 'wide.png'], tmp_path / 'cam.png', image_size=64)
        assert sorted(os.listdir(tmp_path)) == ['cam.png', 'wide.png']
        pixels = np.asarray(Image.open(out).convert('RGB')).astype(int)
        rows, columns = np.nonzero((np.abs(pixels - color) < 3).all(axis=-1))
        top, left = rows.min(), columns.min()
        height, width = rows.max() + 1 - top, columns.max() + 1 - left
        assert width == pytest.approx(240, abs=2)
        assert height == pytest.approx(120, abs=2)
        heat = heat_map(model, image, image_size=64)
        step = width + 15
        for y, x in ((8, 8), (8, 40), (56, 8), (56, 56), (32, 20)):
            place = (top + round((y + 0.5) * height / 64), left + step + round((x + 0.5) * width / 64))
            expected = 0.5 * np.array(color) + 127.5 * np.array(colormaps['RdYlBu_r'](float(heat[y, x]))[:3])
            assert np.abs(pixels[place] - expected).max() < 12, (y, x)

    def test_wrong_use(self, tmp_path):
        textured(0, 0).save(tmp_path / 'a.png')
        (tmp_path / 'b.png').write_bytes(b'text')
        model = tiny(None)
        for models, images, name, message in (
            ([], ['a.png'], 'cam.png', 'models is empty'),
            ([('m', model)], [], 'cam.png', 'images is empty'),
            ([('m', model)], ['a.png'] * 51, 'cam.png', 'at most 50'),
            ([('m', model)], ['a.png'], 'cam.bmp', r'cam\.bmp: a figure'),
            ([('m', model)], ['b.png'], 'cam.png', r'b\.png: not an image'),
        ):
            with pytest.raises(ValueError, match=message):
                heat_map_figure(models, [tmp_path / image for image in images], tmp_path / name, image_size=64)
        assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.png']
