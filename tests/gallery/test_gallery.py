"""A gallery in a folder, and in a server: what goes in comes out, filters and rankings are those of plain loops."""

import dataclasses
import itertools
import json
import os

import numpy as np
import pytest

from tests.support.galleries import HOUR, ORIGIN, gallery_rows, open_gallery, unit
from tests.support.milvus_server import MilvusServer, given_server
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.rows import COLUMNS, GalleryRow
from timm_dpa.train.evaluation.reranking import rerank


@pytest.fixture
def rows():
    return gallery_rows()


@pytest.fixture(scope='module', params=['LanceDB', pytest.param('Milvus', marks=pytest.mark.integrations)])
def places(request, tmp_path_factory):
    """Addresses for new galleries of an engine."""
    folder = tmp_path_factory.mktemp('places')
    if request.param == 'LanceDB':
        yield (str(folder / f'{number}') for number in itertools.count())
    elif given := given_server():
        yield (f'{given}/test_{os.getpid()}_{number}' for number in itertools.count())
    else:
        with MilvusServer(folder) as server:
            yield (f'{server.url}/test_{number}' for number in itertools.count())


@pytest.fixture
def gallery(places, rows):
    return open_gallery(next(places), rows)


def as_dicts(rows):
    return {row.key: {**dataclasses.asdict(row), 'vector': row.vector.tolist()} for row in rows}


def ranked(rows, query, where=None, left_out=()):
    """Keys in the order of a plain sort."""
    chosen = [row for row in rows if (where is None or where.matches(row)) and row.key not in left_out]
    cosine = {row.key: float(row.vector.astype(np.float64) @ query) for row in chosen}
    return sorted(cosine, key=lambda key: -cosine[key])


def keys(ranking):
    return [match.row.key for match in ranking]


class TestRows:
    def test_all_columns_come_back(self, gallery, rows):
        assert as_dicts(gallery.rows(columns=COLUMNS)) == as_dicts(rows)

    def test_float16_rounds_vectors_only(self, tmp_path, rows):
        gallery = open_gallery(tmp_path / 'half', rows, dtype='float16')
        stored = {row.key: row for row in Gallery(gallery.uri).rows(columns=COLUMNS)}
        for row in rows:
            np.testing.assert_array_equal(stored[row.key].vector, row.vector.astype(np.float16).astype(np.float32))
            assert stored[row.key].thumbnail == row.thumbnail

    def test_second_day(self, gallery, rows):
        """Known rows stay, changed rows are replaced, new ones are added."""
        assert gallery.add(rows) == type(gallery.add([]))(0, 0, 60)
        moved = dataclasses.replace(rows[3], camera='camera x')
        repainted = dataclasses.replace(rows[4], vector=unit(1, seed=9)[0], mtime_ns=5)
        new = dataclasses.replace(rows[5], key='new.jpg')
        report = gallery.add([*rows[:3], moved, repainted, new])
        assert (report.added, report.updated, report.unchanged) == (1, 2, 3)
        expected = {**as_dicts(rows), **as_dicts([moved, repainted, new])}
        assert as_dicts(Gallery(gallery.uri).rows(columns=COLUMNS)) == expected

    def test_last_of_one_key_counts(self, gallery, rows):
        twice = [dataclasses.replace(rows[0], camera=name, mtime_ns=3) for name in ('a', 'b')]
        assert gallery.add(twice).updated == 1
        assert [row.camera for row in gallery.rows(Filter(keys=[rows[0].key]))] == ['b']

    def test_names_with_quotes_and_other_alphabets(self, gallery):
        names = ["it's.jpg", '"; DROP TABLE gallery; --', "' OR '1'='1", 'ö 車 \\ %_.jpg', 'a\nb']
        gallery.add([GalleryRow(name, unit(1)[0], camera=name, track=name) for name in names])
        for name in names:
            for where in (Filter(keys=[name]), Filter(cameras=[name]), Filter(tracks=[name])):
                assert [row.key for row in gallery.rows(where)] == [name]
        assert gallery.remove(Filter(keys=names)) == len(names)
        assert len(gallery) == 60

    def test_vehicles_of_tracks_and_keys(self, gallery, rows):
        changed = gallery.set_vehicles({'track 3': 77, rows[13].key: 78, 'no such track': 1})
        after = {row.key: row for row in gallery.rows(columns=COLUMNS)}
        for row in rows:
            vehicle = 78 if row is rows[13] else 77 if row.track == 'track 3' else row.vehicle
            assert after[row.key].vehicle == vehicle
            np.testing.assert_array_equal(after[row.key].vector, row.vector)
            assert after[row.key].thumbnail == row.thumbnail
        assert changed == 4

    def test_vehicles_of_more_tracks_and_keys_than_one_filter_names(self, gallery):
        gallery.add([GalleryRow(f'{index}.png', vector, track=f't{index}') for index, vector in enumerate(unit(1500))])
        assert gallery.set_vehicles({f't{index}': index % 7 for index in range(1200)}) == 1200
        assert gallery.set_vehicles({f't{index}': index % 7 for index in range(1200)}) == 0
        assert gallery.set_vehicles({f'{index}.png': None for index in range(700)}) == 700
        found = {row.key: row.vehicle for row in gallery.rows() if row.key.endswith('.png')}
        expected = {f'{i}.png': None if i < 700 or i >= 1200 else i % 7 for i in range(1500)}
        assert found == expected

    def test_remove_and_info(self, gallery):
        assert gallery.remove(Filter(cameras=['camera 1'])) == 20
        info = json.loads(json.dumps(gallery.info()))
        assert info['rows'] == 40
        assert info['cameras'] == {'camera 0': 20, 'camera 2': 20}
        assert (info['first'], info['last']) == ('1970-01-01T00:00:00Z', '1970-01-03T11:00:00Z')
        assert info['network_sha256'] == ORIGIN['network_sha256']
        with pytest.raises(ValueError, match='would remove all rows'):
            gallery.remove(Filter())

    def test_export(self, gallery, rows, tmp_path):
        parquet = pytest.importorskip('pyarrow.parquet')
        assert gallery.export(tmp_path / 'out.parquet') == 60
        table = {row['key']: row for row in parquet.read_table(tmp_path / 'out.parquet').to_pylist()}
        assert table['0007.jpg']['vector'] == pytest.approx(rows[7].vector.tolist())
        assert table['0007.jpg']['thumbnail'] == rows[7].thumbnail
        assert gallery.export(tmp_path / 'out.safetensors', Filter(cameras=['camera 2'])) == 20
        content = load_embeddings(tmp_path / 'out.safetensors')
        assert content.metadata == ORIGIN
        expected = {row.key: row for row in rows if row.camera == 'camera 2'}
        assert sorted(content.names) == sorted(expected)
        for name, vector, stamp in zip(content.names, content.vectors, content.stamps, strict=True):
            np.testing.assert_array_equal(vector, expected[name].vector)
            assert tuple(stamp) == (expected[name].size, expected[name].mtime_ns)


FILTERS = [
    Filter(cameras=['camera 0', 'camera 2']),
    Filter(after=10 * HOUR, before=30 * HOUR),
    Filter(tracks=['track 1', 'track 2', 'track 9']),
    Filter(exclude_tracks=['track 1', 'track 2']),
    Filter(vehicles=[1, 3]),
    Filter(cameras=['camera 1'], after='1970-01-01T10:00+02:00', exclude_tracks=['track 5']),
    Filter(cameras=[]),
]


class TestSearch:
    @pytest.mark.parametrize('where', [None, *FILTERS])
    @pytest.mark.parametrize('queries', [1, 3, 25])
    def test_as_a_plain_sort(self, gallery, rows, where, queries):
        asked = unit(queries, seed=3)
        rankings = gallery.search(asked, top=7, where=where)
        for query, ranking in zip(asked, rankings, strict=True):
            assert keys(ranking) == ranked(rows, query, where)[:7]
            for rank, match in enumerate(ranking, 1):
                vector = rows[int(match.row.key[:4])].vector
                assert match.rank == rank
                assert match.similarity == pytest.approx(float(vector @ query), abs=1e-5)

    def test_by_track(self, gallery, rows):
        asked = unit(4, seed=5)
        for query, ranking in zip(asked, gallery.search(asked, top=6, by='track'), strict=True):
            tracks = {}
            for row in rows:
                tracks.setdefault(row.track or row.key, []).append(float(row.vector @ query))
            expected = sorted(tracks, key=lambda name: -max(tracks[name]))[:6]
            assert [match.row.track or match.row.key for match in ranking] == expected
            for match, name in zip(ranking, expected, strict=True):
                assert match.similarity == pytest.approx(max(tracks[name]), abs=1e-5)
                assert match.mean == pytest.approx(np.mean(tracks[name]), abs=1e-5)
                assert match.images == len(tracks[name])

    def test_excluded_keys(self, gallery, rows):
        left_out = ranked(rows, rows[5].vector)[:3]
        (ranking,) = gallery.search(rows[5].vector, top=4, exclude=[left_out])
        assert keys(ranking) == ranked(rows, rows[5].vector, left_out=left_out)[:4]

    def test_reranked(self, gallery, rows):
        query = unit(1, seed=8)
        (ranking,) = gallery.search(query, top=10, rerank=30, reranker=rerank)
        first = ranked(rows, query[0])[:30]
        vectors = np.stack([rows[int(key[:4])].vector for key in first])
        order = np.argsort(rerank(query, vectors)[0].numpy(), kind='stable')
        assert keys(ranking) == [first[place] for place in order[:10]]

    def test_copies_are_in_the_order_of_their_keys(self, places):
        vector = unit(1)[0]
        gallery = open_gallery(next(places), [GalleryRow(name, vector) for name in 'dbca'])
        for queries in (1, 2, 30):
            assert keys(gallery.search(np.tile(vector, (queries, 1)), top=4)[0]) == list('abcd')

    def test_empty_gallery_and_no_queries(self, places, gallery):
        assert open_gallery(next(places)).search(unit(2)) == [[], []]
        assert gallery.search(np.empty((0, 16), np.float32)) == []
