"""Protocols: query and gallery, and what is refused or said before an evaluation."""

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support import layouts
from tests.train.data.test_datasets import COUNTS, names, write_csv
from timm_dpa.train.data.copies import file_numbers
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.protocols import PROTOCOLS
from timm_dpa.train.data.query_gallery import check_evaluable, pick_query_gallery, resolve_protocol, warn_about


class TestProtocols:
    @pytest.fixture
    def data(self, tmp_path):
        return load_data(layouts.vehicle_folders(tmp_path, COUNTS), test_fraction=1)

    @pytest.fixture
    def with_cameras(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', COUNTS)
        rows = [f'images/{v}/{n:03d}.jpg,{v},{n % 2},test\n' for v, count in COUNTS.items() for n in range(count)]
        return load_data(write_csv(tmp_path, 'path,pid,camid,split\n' + ''.join(rows)))

    def test_fixed(self, tmp_path):
        data = load_data(layouts.veri_uav(tmp_path))
        query, gallery, exclude_same_camera = pick_query_gallery(data)
        assert (query, gallery, exclude_same_camera) == (data.query, data.gallery, True)

    def test_the_rule_needs_cameras_in_query_and_gallery(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', {'a': 2, 'b': 2})
        rows = ['a/000.jpg,a,1,train', 'a/001.jpg,a,2,train', 'b/000.jpg,b,1,query', 'b/001.jpg,b,1,gallery']
        data = load_data(write_csv(tmp_path, 'path,pid,camid,split\n' + ''.join(f'images/{row}\n' for row in rows)))
        assert pick_query_gallery(data).exclude_same_camera is False
        with pytest.raises(ValueError, match='no cameras that a rule'):
            pick_query_gallery(data, exclude_same_camera=True)

    def test_the_rule_on_or_off(self, tmp_path):
        data = load_data(layouts.veri_uav(tmp_path))
        assert pick_query_gallery(data, exclude_same_camera=False).exclude_same_camera is False
        assert pick_query_gallery(data, 'vru', exclude_same_camera=True).exclude_same_camera is True

    def test_cameras_with_large_numbers(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', {'a': 2, 'b': 1})
        rows = ['a/000.jpg,a,' + 25 * '9', 'a/001.jpg,a,7', 'b/000.jpg,b,7']
        data = load_data(
            write_csv(tmp_path, 'path,pid,camid\n' + ''.join(f'images/{row}\n' for row in rows)), test_fraction=0
        )
        assert len(set(data.train.camids.tolist() + data.test.camids.tolist())) == 2

    def test_vru(self, data):
        query, gallery, exclude_same_camera = pick_query_gallery(data)
        assert not exclude_same_camera
        assert sorted(query.paths + gallery.paths) == data.test.paths
        assert sorted(gallery.pids) == list(range(20))
        assert pick_query_gallery(data).gallery.paths == gallery.paths
        assert pick_query_gallery(data, seed=1).gallery.paths != gallery.paths

    def test_first_last(self, tmp_path):
        counts = {'a': 1, 'b': 2, 'c': 3, 'd': 7, 'e': 9}
        rows = ''.join(f'{v}_{n:03d}.jpg,{v},test\n' for v, count in counts.items() for n in range(count))
        data = load_data(write_csv(layouts.vehicle_folders(tmp_path, counts, flat=True), 'path,pid,split\n' + rows))
        query, gallery, exclude_same_camera = pick_query_gallery(data, 'first-last')
        assert not exclude_same_camera
        assert names(query) == ['b_000.jpg', 'c_000.jpg', 'd_000.jpg', 'e_000.jpg']
        assert names(gallery) == [
            'a_000.jpg', 'b_001.jpg', 'c_002.jpg', *(f'd_00{n}.jpg' for n in (4, 5, 6)),
            *(f'e_00{n}.jpg' for n in (6, 7, 8)),
        ]  # fmt: skip

    def test_cross_camera(self, with_cameras):
        data = with_cameras
        assert data.protocol == 'cross-camera'
        query, gallery, exclude_same_camera = pick_query_gallery(data)
        assert exclude_same_camera
        assert sorted(query.paths + gallery.paths) == data.test.paths
        assert Counter(zip(query.pids, query.camids, strict=True)) == {(p, c): 1 for p in range(20) for c in range(2)}
        assert pick_query_gallery(data).query.paths == query.paths
        assert pick_query_gallery(data, seed=1).query.paths != query.paths

    def test_draws_do_not_depend_on_the_place(self, tmp_path):
        drawn = []
        for root in (tmp_path / 'one', tmp_path / 'z/other'):
            data = load_data(layouts.vehicle_folders(root, COUNTS), test_fraction=1)
            drawn.append([Path(p).relative_to(root) for p in pick_query_gallery(data).gallery.paths])
        assert drawn[0] == drawn[1]

    @pytest.mark.parametrize(
        ('protocol', 'part'), [('market', 'cross-camera'), ('fixed', 'protocol vru'), ('cross-camera', 'no cameras')]
    )
    def test_not_possible(self, data, protocol, part):
        with pytest.raises(ValueError, match=part):
            pick_query_gallery(data, protocol)

    def test_no_test_images(self, tmp_path):
        data = load_data(layouts.vehicle_folders(tmp_path, COUNTS), test_fraction=0)
        with pytest.raises(ValueError, match='test_fraction'):
            pick_query_gallery(data)


def table_of(folder: Path, rows: list[str], columns: str = 'path,pid,camid,split') -> Path:
    """A CSV of `name,pid,camid,split` rows whose images are made."""
    for row in rows:
        if not (folder / row.split(',')[0]).exists():
            layouts.write_image(folder / row.split(',')[0])
    return write_csv(folder, columns + '\n' + '\n'.join(rows) + '\n')


def matches_by_loops(parts, files) -> list[int]:
    """Plain loops over all pairs."""
    rows = []
    for path, pid, camid in zip(parts.query.paths, parts.query.pids, parts.query.camids, strict=True):
        gallery = zip(parts.gallery.paths, parts.gallery.pids, parts.gallery.camids, strict=True)
        rows.append(
            sum(
                p == pid and files[other] != files[path] and not (parts.exclude_same_camera and c == camid)
                for other, p, c in gallery
            )
        )
    return rows


class TestOwnFiles:
    @pytest.fixture
    def copies(self, tmp_path):
        """Vehicle a: two queries that are copies, links or the same path as gallery images; b: different images."""
        rows = ['q1.jpg,a,1,query', 'q1.jpg,a,1,gallery', 'q2.jpg,a,2,query', 'g2.jpg,a,1,gallery']
        rows += ['q3.jpg,b,1,query', 'g3.jpg,b,2,gallery', 'g4.jpg,b,1,gallery', 'q5.jpg,c,1,query']
        rows += ['g5.jpg,c,2,gallery', 'g6.jpg,c,2,gallery', 'g7.jpg,d,1,gallery']
        layouts.write_image(tmp_path / 'q2.jpg')
        shutil.copy(tmp_path / 'q2.jpg', tmp_path / 'g2.jpg')
        layouts.write_image(tmp_path / 'q5.jpg')
        os.symlink(tmp_path / 'q5.jpg', tmp_path / 'g5.jpg')
        os.link(tmp_path / 'q5.jpg', tmp_path / 'g6.jpg')
        return load_data(table_of(tmp_path, rows))

    @pytest.mark.parametrize('rule', [True, False])
    def test_numbers_as_loops(self, copies, rule):
        parts = pick_query_gallery(copies, exclude_same_camera=rule)
        assert parts.matches(copies.files).tolist() == matches_by_loops(parts, copies.files)
        expected = {'q1.jpg': 1 * (not rule), 'q2.jpg': 1, 'q3.jpg': 2 - rule, 'q5.jpg': 0}
        assert dict(zip(names(parts.query), parts.matches(copies.files).tolist(), strict=True)) == expected
        own = dict(zip(names(parts.query), parts.own_files(copies.files).tolist(), strict=True))
        assert own == {'q1.jpg': 0 if rule else 1, 'q2.jpg': 1, 'q3.jpg': 0, 'q5.jpg': 2}

    def test_said_once(self, copies, caplog):
        parts = check_evaluable(copies)
        with caplog.at_level(logging.WARNING):
            first, second = warn_about(copies, parts), warn_about(copies, parts)
        assert first == second
        assert any('2 of 4 queries are in the gallery as the same file' in text for text in first)
        assert len(caplog.records) == len(first)

    def test_file_numbers(self, tmp_path):
        paths = [str(layouts.write_image(tmp_path / f'{k}.png', k)) for k in range(5)]
        head = b'x' * 10000
        for name, content in (
            ('a', head + b'1'),
            ('b', head + b'2'),
            ('c', b'y' + head),
            ('d', head + b'1'),
            ('e', b''),
        ):
            (tmp_path / name).write_bytes(content)
            paths.append(str(tmp_path / name))
        os.symlink(tmp_path / 'e', tmp_path / 'f')
        paths += [str(tmp_path / 'f'), str(tmp_path / 'gone'), str(tmp_path / 'gone too'), paths[0]]
        numbers = file_numbers(paths)
        same = {frozenset(Path(p).name for p in numbers if numbers[p] == n) for n in numbers.values()}
        assert {group for group in same if len(group) > 1} == {frozenset('ad'), frozenset('ef')}
        # ends agree, beginnings do not
        (tmp_path / 'g').write_bytes(b'1' * 6000 + b'z' * 6000)
        (tmp_path / 'h').write_bytes(b'2' * 6000 + b'z' * 6000)
        assert len(set(file_numbers([str(tmp_path / 'g'), str(tmp_path / 'h')]).values())) == 2


class TestEvaluable:
    """What would be found after the training only is refused before, with what helps."""

    def test_one_image_for_each_vehicle_and_camera(self, tmp_path):
        rows = [f'{v}{c}.jpg,{v},{c},test' for v in 'abcdef' for c in (1, 2, 3)]
        data = load_data(table_of(tmp_path, rows))
        assert data.protocol == 'cross-camera'
        kept = set()
        for seed in range(6):
            parts = pick_query_gallery(data, seed=seed)
            assert (len(parts.query), len(parts.gallery)) == (12, 6)
            assert parts.has_match(data.files).all()
            kept.add(tuple(parts.gallery.camids))
        assert len(kept) > 1
        check_evaluable(data)

    def test_vehicles_that_leave_a_match_anyway_are_picked_as_ever(self, tmp_path):
        rows = [f'{v}{c}{n}.jpg,{v},{c},test' for v in 'abcdef' for c in (1, 2) for n in range(3)]
        parts = pick_query_gallery(load_data(table_of(tmp_path, rows)), seed=3)
        rng = np.random.default_rng(3)
        places = [3 * pair + int(rng.choice(range(3))) for pair in range(12)]
        assert parts.query.paths == [sorted(str(tmp_path / row.split(',')[0]) for row in rows)[k] for k in places]

    def test_one_camera_a_vehicle(self, tmp_path):
        rows = [f'{v}{n}.jpg,{v},{c},test' for c, v in enumerate('abcd') for n in range(4)]
        data = load_data(table_of(tmp_path, rows))
        assert data.protocol == 'cross-camera'
        with pytest.raises(ValueError, match=r'by another camera .*data\.exclude_same_camera=false'):
            check_evaluable(data)
        check_evaluable(data, exclude_same_camera=False)
        check_evaluable(data, 'vru')

    def test_fixed_parts_with_one_camera_a_vehicle(self, tmp_path):
        rows = [f'{v}{n}.jpg,{v},{c},{("query", "gallery")[n > 0]}' for c, v in enumerate('abcd') for n in range(3)]
        data = load_data(table_of(tmp_path, rows))
        with pytest.raises(ValueError, match=r'data\.exclude_same_camera=false \(eval: --same-camera keep\)'):
            check_evaluable(data)
        check_evaluable(data, exclude_same_camera=False)

    def test_disjoint_query_and_gallery(self, tmp_path):
        rows = [f'{v}{n}.jpg,{v},{n},{"query" if v < "c" else "gallery"}' for v in 'abcd' for n in range(3)]
        data = load_data(table_of(tmp_path, rows))
        with pytest.raises(ValueError, match=r'none of the 6 queries .*data\.protocol=cross-camera'):
            check_evaluable(data)
        check_evaluable(data, 'cross-camera')
        single = [f'{v}.jpg,{v},0,{"query" if v < "c" else "gallery"}' for v in 'abcd']
        with pytest.raises(ValueError, match='several different images of each vehicle'):
            check_evaluable(load_data(table_of(tmp_path / 'single', single)))

    def test_copies_alone_are_nothing_to_find(self, tmp_path):
        rows = [f'{v}{n}.jpg,{v},0,{part}' for v in 'abc' for n, part in enumerate(('query', 'gallery'))]
        for vehicle in 'abc':
            for n in range(2):
                layouts.write_image(tmp_path / f'{vehicle}{n}.jpg', seed=ord(vehicle))
        with pytest.raises(ValueError, match='none of the 3 queries'):
            check_evaluable(load_data(table_of(tmp_path, rows)))

    @pytest.mark.parametrize('protocol', ['fixed', 'vru', 'first-last', 'cross-camera'])
    def test_a_test_of_one_vehicle(self, tmp_path, protocol):
        rows = [f'a{n}.jpg,a,{n % 2},{("query", "gallery")[n > 1]}' for n in range(6)]
        data = load_data(table_of(tmp_path, [*rows, *(f'{v}{n}.jpg,{v},0,train' for v in 'bc' for n in range(2))]))
        with pytest.raises(ValueError, match="show one vehicle, 'a'"):
            check_evaluable(data, protocol)

    def test_cameras_of_the_part_that_is_meant(self, tmp_path):
        """Training images by several cameras say nothing about the test."""
        rows = [f'{v}{n}.jpg,{v},{n},train' for v in 'ab' for n in range(3)]
        rows += [f'{v}{n}.jpg,{v},7,test' for v in 'cd' for n in range(3)]
        data = load_data(table_of(tmp_path, rows))
        assert (data.has_cameras, data.protocol) == (True, 'vru')
        check_evaluable(data)
        with pytest.raises(ValueError, match='test part knows one camera only; use the protocol vru'):
            check_evaluable(data, 'cross-camera')

    def test_protocol_and_draws_have_one_default(self, tmp_path):
        data = load_data(layouts.vehicle_folders(tmp_path, COUNTS))
        assert resolve_protocol(data) == ('vru', 10)
        assert [resolve_protocol(data, protocol)[1] for protocol in PROTOCOLS] == [1, 10, 1, 1, 1, 1]
        assert resolve_protocol(data, 'cross-camera', 3) == ('cross-camera', 3)
        for arguments, message in ((('vru', 0), 'at least 1'), (('first-last', 2), 'random'), (('x', 1), 'unknown')):
            with pytest.raises(ValueError, match=message):
                resolve_protocol(data, *arguments)


class TestWarnings:
    def test_shared_identities(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 2, 'c': 3})
        layouts.vehicle_folders(tmp_path / 'test', {'b': 2, 'c': 2, 'd': 20, **{f'e{k}': 2 for k in range(10)}})
        data = load_data(tmp_path)
        assert data.shared_identities == ['b', 'c']
        (text,) = warn_about(data, check_evaluable(data))
        assert text.startswith('2 of 13 test identities are in the training part too, such as b, c')

    @pytest.mark.parametrize(('vehicles', 'said'), [(2, 'Rank-5, Rank-10'), (6, 'Rank-10'), (11, None)])
    def test_ranks_that_cannot_fail(self, tmp_path, vehicles, said):
        layouts.vehicle_folders(tmp_path, {f'v{k:02d}': 3 for k in range(vehicles)})
        data = load_data(tmp_path, test_fraction=1)
        found = warn_about(data, check_evaluable(data))
        assert [text.partition(' cannot fall')[0] for text in found] == [said] * (said is not None)

    def test_few_queries_that_count(self, tmp_path):
        rows = [f'{v}{n}.jpg,{v},0,{part}' for v in 'abcdefghijkl' for n, part in enumerate(('query', 'gallery'))]
        rows = [row for row in rows if 'query' in row or row[0] in 'ab'] + [
            f'x{k}.jpg,x{k},0,gallery' for k in range(20)
        ]
        data = load_data(table_of(tmp_path, rows))
        assert any('only 2 of 12 queries' in text for text in warn_about(data, check_evaluable(data)))
