"""Rankings, compared with a plain sort, and the picture of the ranks, compared with the pixels that belong there."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from timm_dpa.embedding.search import Match, nearest, rank_figure, same_files

NO_PICTURE = (0xEE, 0xEE, 0xEE)


def unit(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows(rankings: list[list[Match]]) -> list[list[int]]:
    return [[int(match.name) for match in ranking] for ranking in rankings]


def plain(queries, gallery, top, excluded=None) -> list[list[int]]:
    expected = []
    for index, query in enumerate(queries.astype(np.float64)):
        order = np.argsort(-(gallery.astype(np.float64) @ query).round(9), kind='stable').tolist()
        expected.append([row for row in order if excluded is None or row not in excluded[index]][:top])
    return expected


class TestNearest:
    @pytest.fixture
    def gallery(self):
        return unit((300, 32))

    @pytest.fixture
    def names(self):
        return [str(index) for index in range(300)]

    @pytest.mark.parametrize('top', [1, 7, 299, 300, 1000])
    def test_as_a_plain_sort(self, gallery, names, top):
        queries = unit((5, 32), seed=1)
        rankings = nearest(queries, gallery, names, top)
        assert rows(rankings) == plain(queries, gallery, top)
        for query, ranking in zip(queries, rankings, strict=True):
            assert [match.rank for match in ranking] == list(range(1, min(top, 300) + 1))
            for match in ranking[:3]:
                assert match.similarity == pytest.approx(float(gallery[int(match.name)] @ query), abs=1e-6)

    def test_many_queries_and_a_long_gallery(self):
        """More than one block of both."""
        queries, gallery = unit((300, 8), seed=1), unit((9000, 8))
        assert rows(nearest(queries, gallery, [str(i) for i in range(9000)], 4)) == plain(queries, gallery, 4)

    @pytest.mark.parametrize('length', [639, 640, 641, 703])
    def test_wherever_the_best_stand(self, length):
        """Blocks of rows are looked at by their peaks: the best may be in one block, apart, or behind the last."""
        for places in (range(128, 139), range(0, length, 63), range(length - 11, length), [0, 63, 64, length - 1]):
            gallery, (query,) = unit((length, 16)), unit((1, 16), seed=1)
            gallery[places] = unit((len(places), 16), seed=2) * 0.05 + query
            gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
            for top in (1, 5, 9, 10, 11):
                found = rows(nearest(query[None], gallery, [str(i) for i in range(length)], top))
                assert found == plain(query[None], gallery, top)

    @pytest.mark.parametrize('queries', [1, 3])
    @pytest.mark.parametrize('top', [1, 2, 5, 40])
    def test_ties_are_in_the_order_of_the_gallery(self, queries, top):
        """float32 products of equal vectors differ by where they stand, as blocks of rows are summed differently."""
        copies = [1, 3, 500, 997, 1002]
        for seed in range(1, 6):
            gallery, asked = unit((1003, 512)), unit((queries, 512), seed)
            gallery[copies] = unit((1, 512), seed + 10) * 0.6 + asked[0] * 0.8
            order = rows(nearest(asked, gallery, [str(i) for i in range(1003)], top))
            assert order == plain(asked, gallery, top)
            assert order[0][:5] == copies[:top]

    def test_few_different_ones(self):
        few = unit((3, 16))
        gallery = few[np.random.default_rng(0).integers(0, 3, 2000)]
        names = [str(i) for i in range(2000)]
        assert rows(nearest(few, gallery, names, 1500)) == plain(few, gallery, 1500)
        assert rows(nearest(few[:1], np.tile(few[:1], (500, 1)), names[:500], 3)) == [[0, 1, 2]]

    def test_excluded(self, gallery, names):
        queries = unit((3, 32), seed=1)
        first = rows(nearest(queries, gallery, names, 4))
        excluded = [frozenset(first[0][:2]), frozenset(), frozenset(range(298))]
        rankings = nearest(queries, gallery, names, 4, excluded)
        assert rows(rankings) == plain(queries, gallery, 4, excluded)
        assert rows(rankings)[0][:2] == first[0][2:]
        assert [match.rank for match in rankings[0]] == [1, 2, 3, 4]
        assert len(rankings[2]) == 2
        assert nearest(queries[:1], gallery, names, 4, [frozenset(range(300))]) == [[]]

    def test_nothing(self, gallery, names):
        assert nearest(np.empty((0, 32), np.float32), gallery, names) == []
        assert nearest(unit((2, 32)), np.empty((0, 32), np.float32), []) == [[], []]

    def test_wrong_use(self, gallery, names):
        bad = gallery.copy()
        bad[3, 4] = np.nan
        with pytest.raises(ValueError, match='top must be at least 1'):
            nearest(gallery, gallery, names, 0)
        with pytest.raises(ValueError, match='queries have 16 numbers, the gallery 32'):
            nearest(unit((1, 16)), gallery, names)
        with pytest.raises(ValueError, match='2 names for 300'):
            nearest(gallery, gallery, names[:2])
        with pytest.raises(ValueError, match=r'\(N, D\)'):
            nearest(gallery[0], gallery, names)
        for queries, where in ((bad, gallery), (gallery, bad)):
            with pytest.raises(ValueError, match='not finite'):
                nearest(queries, where, names)


class TestSameFiles:
    def test_whatever_it_is_called(self, tmp_path, monkeypatch):
        for name in ('a.jpg', 'b.jpg', 'c.jpg'):
            (tmp_path / name).write_bytes(b'equal')
        (tmp_path / 'link.jpg').symlink_to(tmp_path / 'b.jpg')
        monkeypatch.chdir(tmp_path)
        names = ['a.jpg', str(tmp_path / 'b.jpg'), 'gone.jpg', './b.jpg', 'link.jpg']
        paths = [tmp_path / 'b.jpg', 'a.jpg', 'c.jpg']
        assert same_files(paths, names) == [frozenset({1, 3, 4}), frozenset({0}), frozenset()]

    def test_names_from_another_folder(self, tmp_path):
        (tmp_path / 'crops').mkdir()
        (tmp_path / 'crops/a.jpg').touch()
        assert same_files([tmp_path / 'crops/a.jpg'], ['crops/a.jpg']) == [frozenset()]
        assert same_files([tmp_path / 'crops/a.jpg'], ['crops/a.jpg'], [tmp_path]) == [frozenset({0})]


class TestFigure:
    TILE = 100

    @pytest.fixture
    def crops(self, tmp_path):
        """Files of one colour each: wide, high and square."""
        colours = {'query': (200, 30, 30), 'wide': (30, 200, 30), 'high': (30, 30, 200), 'square': (200, 200, 30)}
        sizes = {'query': (60, 60), 'wide': (200, 100), 'high': (25, 50), 'square': (8, 8)}
        for name, colour in colours.items():
            Image.new('RGB', sizes[name], colour).save(tmp_path / f'{name}.png')
        return {name: (str(tmp_path / f'{name}.png'), colour) for name, colour in colours.items()}

    def draw(self, query, *names, **options) -> np.ndarray:
        ranking = [Match(k, 1 - k / 10, name) for k, name in enumerate(names, start=1)]
        return np.asarray(rank_figure([query], [ranking], tile=self.TILE, **options)).astype(int)

    @staticmethod
    def box(figure: np.ndarray, colour) -> tuple[int, int]:
        """Height and width of what has a colour."""
        found = np.argwhere((np.abs(figure - colour) <= 2).all(axis=-1))
        return tuple(np.ptp(found, axis=0) + 1) if len(found) else (0, 0)

    def test_pictures_in_the_order_of_the_ranks_with_their_proportions(self, crops):
        figure = self.draw(*(crops[name][0] for name in ('query', 'wide', 'high', 'square')))
        left = [np.argwhere((figure == crops[name][1]).all(axis=-1))[:, 1].min() for name in crops]
        assert left == sorted(left)
        # a frame is drawn over the border
        for name, (height, width) in {
            'query': (94, 94),
            'wide': (50, 98),
            'high': (98, 50),
            'square': (98, 98),
        }.items():
            assert self.box(figure, crops[name][1]) == (height, width), name

    def test_size(self, crops):
        name = crops['query'][0]
        one = rank_figure([name], [[Match(1, 0.5, name)]], tile=self.TILE)
        more = rank_figure([name] * 3, [[Match(k, 0.5, name) for k in range(1, 6)], [], []], tile=self.TILE)
        assert one.mode == 'RGB'
        assert 2 * self.TILE < one.width < 2 * self.TILE + 60
        assert self.TILE < one.height < self.TILE + 80
        assert more.width - one.width == 4 * (self.TILE + 8)
        assert 2 * self.TILE < more.height - one.height < 2 * (self.TILE + 80)

    def test_many_queries(self, crops):
        names = [crops[name][0] for name in crops]
        figure = np.asarray(rank_figure(names, [[]] * 4, tile=self.TILE)).astype(int)
        tops = [np.argwhere((figure == colour).all(axis=-1))[:, 0].min() for _, colour in crops.values()]
        assert tops == sorted(tops)
        assert rank_figure([], []).height > 0

    def test_images_that_have_moved(self, crops, tmp_path):
        (tmp_path / 'text.jpg').write_bytes(b'text')
        for gone in ('no/such.png', str(tmp_path / 'text.jpg')):
            figure = self.draw(crops['query'][0], gone, crops['wide'][0])
            assert (figure == NO_PICTURE).all(axis=-1).sum() > 0.5 * self.TILE**2
            assert self.box(figure, crops['wide'][1]) == (50, 98)

    def test_relative_names(self, crops, tmp_path, monkeypatch):
        (tmp_path / 'elsewhere').mkdir()
        monkeypatch.chdir(tmp_path / 'elsewhere')
        assert self.box(self.draw(crops['query'][0], 'wide.png'), crops['wide'][1]) == (0, 0)
        assert self.box(self.draw(crops['query'][0], 'wide.png', folders=[tmp_path]), crops['wide'][1]) == (50, 98)

    @pytest.mark.parametrize('name', [b'new\nline\t.png', b'caf\xe9.png', 'ж 車 🚗.png'.encode(), b'a' * 240 + b'.png'])
    def test_odd_names(self, crops, tmp_path, name):
        path = os.path.join(tmp_path, os.fsdecode(name))
        try:
            shutil.copy(crops['wide'][0], path)
        except OSError:
            pytest.skip('no such names on this file system')
        figure = self.draw(path, path)
        assert self.box(figure[:, : self.TILE + 8], crops['wide'][1])[0] > 40
        gap = figure[self.TILE + 30 :, self.TILE + 9 : self.TILE + 20]  # right of the query's name, which is shortened
        assert (gap == 255).all()
