"""Ranked lists: what was drawn, read back from the files, against a plain ranking."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support.layouts import vehicle_folders, veri_uav
from tests.support.models import tiny
from tests.train.figures.test_curves import texts
from timm_dpa import FeatureExtractor
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.figures.ranked_lists import rank_list_figure, rank_lists

RIGHT, WRONG, QUERY = ((0, 122, 61), (232, 55, 44), (31, 78, 156))


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


def test_a_query_is_not_shown_as_its_own_match(tmp_path, extractors):
    data = load_data(veri_uav(tmp_path))
    query = Path(data.query.paths[0])
    twin = query.parent.parent / 'image_test' / query.name.replace('_01_1', '_03_9')  # as if by another camera
    shutil.copy(query, twin)
    (ranked,) = rank_lists(extractors[:1], load_data(tmp_path), query_names=[query.name], top=50)
    assert str(twin) not in [match.name for match in ranked.matches[0]]
    assert all(match.similarity < 0.999999 for match in ranked.matches[0])
