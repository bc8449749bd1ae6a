"""Layouts on disk, protocols, and items for training."""

import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.support import layouts
from timm_dpa.embedding.images import ImageError
from timm_dpa.train.data.datasets import ReIDData, Split, TrainImages, collate, load_data, train_labels
from timm_dpa.train.data.layouts import LAYOUTS
from timm_dpa.train.data.query_gallery import pick_query_gallery

COUNTS = {f'v{n:02d}': 3 + n % 4 for n in range(20)}


def names(split: Split) -> list[str]:
    return [Path(path).name for path in split.paths]


def owners(data: ReIDData, split: Split) -> list[str]:
    return [data.identities[pid] for pid in split.pids]


def write_csv(folder: Path, text: str) -> Path:
    path = folder / 'table.csv'
    path.write_text(text, encoding='utf-8')
    return path


class TestLayouts:
    @pytest.mark.parametrize('parent', [False, True])
    @pytest.mark.parametrize('layout', ['auto', 'veri_uav'])
    def test_veri_uav(self, tmp_path, parent, layout):
        # digits with underscores in a parent's name are not the vehicle's
        root = tmp_path / '0099_05_set'
        home = layouts.veri_uav(root / 'VeRi-UAV' if parent else root)
        data = load_data(root, layout)
        assert (data.layout, data.root, data.protocol, data.has_cameras) == ('veri_uav', home, 'fixed', True)
        assert (len(data.train), len(data.query), len(data.gallery), len(data.test)) == (8, 4, 12, 16)
        assert data.identities == ['0003', '0005', '0007', '0010']
        for split in (data.train, data.query, data.gallery, data.test):
            assert split.pids.dtype == split.camids.dtype == np.int64
            assert split.paths == sorted(split.paths)
            for path, vehicle, camera in zip(split.paths, owners(data, split), split.camids, strict=True):
                assert Path(path).is_file()
                assert Path(path).name.startswith(f'{vehicle}_{camera:02d}_')

    @pytest.mark.parametrize(('empty', 'sizes'), [(['train'], (0, 4, 12)), (['query', 'test'], (8, 0, 0))])
    def test_veri_uav_for_the_test_or_for_training_alone(self, tmp_path, empty, sizes):
        home = layouts.veri_uav(tmp_path)
        for part in empty:
            for path in home.glob(f'image_{part}/*'):
                path.unlink()
        data = load_data(home)
        assert data.layout == 'veri_uav'
        assert (len(data.train), len(data.query), len(data.gallery)) == sizes
        if sizes[0]:
            with pytest.raises(ValueError, match='no test images'):
                pick_query_gallery(data)

    def test_veri776(self, tmp_path):
        data = load_data(layouts.veri776(tmp_path / 'VeRi'))
        assert (data.layout, data.protocol, data.has_cameras) == ('veri776', 'fixed', True)
        assert (len(data.train), len(data.query), len(data.gallery)) == (4, 4, 8)
        assert set(data.query.camids) == {1, 20}
        # the queries lie in image_test, too: an image counts once among the test images
        assert len(data.test) == len(set(names(data.test))) == 8

    @pytest.mark.parametrize(('subset', 'images', 'vehicles'), [('small', 7, 3), ('medium', 8, 4)])
    def test_vru(self, tmp_path, subset, images, vehicles):
        layouts.vru(tmp_path / 'VRU')
        data = load_data(tmp_path, subset=subset)
        assert (data.layout, data.protocol, data.has_cameras) == ('vru', 'vru', False)
        assert (len(data.train), len(data.query), len(data.gallery), len(data.test)) == (5, 0, 0, images)
        assert len(set(data.test.pids)) == vehicles
        assert dict(zip(names(data.train), owners(data, data.train), strict=True)) == {
            'a1.jpg': '90', 'a2.jpg': '90', 'a3.jpg': '91', 'a4.jpg': '91', 'a5.jpg': '91',
        }  # fmt: skip

    def test_folders(self, tmp_path):
        root = layouts.vehicle_folders(tmp_path, COUNTS)
        layouts.write_image(tmp_path / '.cache' / 'hidden.jpg')
        (tmp_path / 'notes.txt').write_text('no image')
        data = load_data(root)
        assert (data.layout, data.protocol, data.has_cameras) == ('folders', 'vru', False)
        assert Counter(owners(data, data.train) + owners(data, data.test)) == COUNTS
        for split in (data.train, data.test):
            assert owners(data, split) == [Path(path).parent.name for path in split.paths]

    def test_folders_in_two_parts(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 3})
        layouts.vehicle_folders(tmp_path / 'test', {'c': 2, 'b': 1})
        data = load_data(tmp_path)
        assert (data.layout, data.protocol) == ('folders', 'vru')
        assert owners(data, data.train) == ['a', 'a', 'b', 'b', 'b']
        assert owners(data, data.test) == ['b', 'c', 'c']
        # the pid of b is the same in both
        assert data.test.pids[0] == data.train.pids[2]

    def test_folders_in_three_parts(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 3})
        layouts.vehicle_folders(tmp_path / 'query', {'c': 1, 'd': 1})
        layouts.vehicle_folders(tmp_path / 'gallery', {'c': 2, 'd': 4})
        data = load_data(tmp_path)
        assert (data.protocol, len(data.train), len(data.query), len(data.gallery)) == ('fixed', 5, 2, 6)
        assert len(data.test) == 8  # the same base names in query and gallery are other images
        assert pick_query_gallery(data).exclude_same_camera is False

    def test_flat(self, tmp_path):
        data = load_data(layouts.vehicle_folders(tmp_path, COUNTS, flat=True), test_fraction=1)
        assert (data.layout, len(data.train)) == ('flat', 0)
        assert Counter(owners(data, data.test)) == COUNTS
        assert data.identities == sorted(COUNTS)

    def test_csv(self, tmp_path):
        for name in ('x/1.jpg', 'x/2.jpg', 'y é.jpg', '4.jpg', '5.jpg', '6.jpg'):
            layouts.write_image(tmp_path / name)
        table = write_csv(
            tmp_path,
            '\ufeffpid, path,extra,camid,split\n'
            f'red van,x/1.jpg,,north,train\nred van,x/2.jpg,?,south,train\n"a,b",{tmp_path / "y é.jpg"},,north,query\n'
            '"a,b",4.jpg,,south,gallery\n7,5.jpg,,north,gallery\n\n07,6.jpg,,north,gallery\n',
        )
        for root in (tmp_path, table):
            data = load_data(root)
            assert (data.layout, data.root, data.protocol, data.has_cameras) == ('csv', table, 'fixed', True)
            assert data.identities == ['07', '7', 'a,b', 'red van']
            assert names(data.train) == ['1.jpg', '2.jpg']
            assert data.train.camids.tolist() == [0, 1]  # north, south
            assert names(data.query) == ['y é.jpg']
            assert owners(data, data.gallery) == ['a,b', '7', '07']

    def test_csv_without_split(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', COUNTS)
        rows = [f'images/{v}/{n:03d}.jpg,{v},{n % 2 + 4}\n' for v, count in COUNTS.items() for n in range(count)]
        data = load_data(write_csv(tmp_path, 'path,pid,camid\n' + ''.join(rows)))
        assert (data.protocol, data.has_cameras, set(data.train.camids)) == ('cross-camera', True, {4, 5})
        assert set(data.train.pids).isdisjoint(data.test.pids)
        assert len(set(data.test.pids)) == 6

    def test_csv_written_on_windows(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', {'a': 2, 'b': 2})
        data = load_data(write_csv(tmp_path, 'path,pid\nimages\\a\\000.jpg,a\nimages\\b\\001.jpg,b\n'), test_fraction=0)
        found = sorted(data.train.paths + data.test.paths)
        assert found == [str(tmp_path / f'images/{name}.jpg') for name in ('a/000', 'b/001')]

    def test_csv_with_queries_in_the_gallery_too(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'images', {'a': 2, 'b': 1})
        rows = ['a/000.jpg,a,query', 'a/000.jpg,a,gallery', 'a/001.jpg,a,gallery', 'b/000.jpg,b,gallery']
        data = load_data(write_csv(tmp_path, 'path,pid,split\n' + ''.join(f'images/{row}\n' for row in rows)))
        assert [len(split) for split in (data.query, data.gallery, data.test)] == [1, 3, 3]

    def test_junk_is_left_out(self, tmp_path):
        layouts.vehicle_folders(tmp_path, {'-1': 5, 'a': 2, 'b': 2})
        data = load_data(tmp_path, test_fraction=1)
        assert (data.identities, len(data.test)) == (['a', 'b'], 4)

    def test_a_training_part_alone(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 2})
        data = load_data(tmp_path)
        assert (data.identities, len(data.train), len(data.test)) == (['a', 'b'], 4, 0)

    def test_vru_names_with_suffix(self, tmp_path):
        table = layouts.vru(tmp_path) / 'train_test_split/train_list.txt'
        expected = load_data(tmp_path).train.paths
        table.write_text(table.read_text().replace(' ', '.jpg '))
        assert load_data(tmp_path).train.paths == expected

    def test_a_stray_name_does_not_change_the_layout(self, tmp_path):
        layouts.veri776(tmp_path)
        layouts.write_images(tmp_path, ['image_query/0000.jpg'])
        with pytest.raises(ValueError, match=r'1 of 5 names do not fit the layout veri776: 0000\.jpg'):
            load_data(tmp_path)

    def test_a_table_of_something_else_is_no_csv_layout(self, tmp_path):
        layouts.vehicle_folders(tmp_path, COUNTS)
        write_csv(tmp_path, 'name,color\nv00,red\n')
        assert load_data(tmp_path).layout == 'folders'

    def test_relative_root(self, tmp_path, monkeypatch):
        layouts.vehicle_folders(tmp_path / 'here', COUNTS)
        monkeypatch.chdir(tmp_path / 'here')
        assert load_data('.').train.paths == load_data(tmp_path / 'here').train.paths


class TestSplitByIdentity:
    def test_deterministic_and_independent_of_the_place(self, tmp_path):
        parts = []
        for root, seed in ((tmp_path / 'one', 0), (tmp_path / 'another/place', 0), (tmp_path / 'one', 1)):
            data = load_data(layouts.vehicle_folders(root, COUNTS), seed=seed)
            assert set(data.train.pids).isdisjoint(data.test.pids)
            parts.append(set(owners(data, data.test)))
        assert len(parts[0]) == 6  # 0.3 of 20
        assert parts[0] == parts[1] != parts[2]

    @pytest.mark.parametrize(('fraction', 'tested'), [(0, 0), (0.001, 2), (0.5, 10), (0.999, 18), (1, 20)])
    def test_fraction(self, tmp_path, fraction, tested):
        data = load_data(layouts.vehicle_folders(tmp_path, COUNTS, flat=True), test_fraction=fraction)
        assert len(set(data.test.pids)) == tested
        assert len(data.train) + len(data.test) == sum(COUNTS.values())

    def test_single_images_go_to_training(self, tmp_path):
        layouts.vehicle_folders(tmp_path, {'a': 1, 'b': 1, 'c': 2, 'd': 3})
        data = load_data(tmp_path, test_fraction=1)
        assert owners(data, data.train) == ['a', 'b']
        assert set(owners(data, data.test)) == {'c', 'd'}

    def test_a_new_vehicle_moves_few(self, tmp_path):
        before = load_data(layouts.vehicle_folders(tmp_path, COUNTS), test_fraction=0.5)
        after = load_data(layouts.vehicle_folders(tmp_path, {'v99': 4}), test_fraction=0.5)
        moved = set(owners(before, before.test)) ^ set(owners(after, after.test))
        assert len(moved - {'v99'}) <= 1


class TestErrors:
    def expect(self, root, *parts: str, error=ValueError, **options):
        with pytest.raises(error) as caught:
            load_data(root, **options)
        assert all(part in str(caught.value) for part in parts), str(caught.value)

    def test_no_such_root(self, tmp_path):
        self.expect(tmp_path / 'nowhere', 'nowhere', error=FileNotFoundError)

    @pytest.mark.parametrize(
        ('options', 'part'),
        [({'layout': 'market'}, 'veri_uav'), ({'test_fraction': 1.5}, '1.5'), ({'subset': 'tiny'}, 'small, medium')],
    )
    def test_options(self, tmp_path, options, part):
        self.expect(tmp_path, part, **options)

    @pytest.mark.parametrize('layout', ['auto', *LAYOUTS])
    def test_wrong_layout_says_what_is_there_and_what_would_do_in_few_words(self, tmp_path, layout):
        layouts.write_images(tmp_path, ['deep/er/and/deeper/1.jpg', 'deep/2.jpg', '3.jpg'])
        (tmp_path / 'readme.md').write_text('hello')
        expected = LAYOUTS if layout == 'auto' else [f'{layout}: {LAYOUTS[layout]}']
        self.expect(tmp_path, str(tmp_path), '3.jpg, deep/, readme.md', *expected, 'path,pid', layout=layout)
        with pytest.raises(ValueError, match='expected') as caught:
            load_data(tmp_path, layout)
        assert len(str(caught.value).replace(str(tmp_path), '')) < 400

    def test_a_large_folder_is_not_listed_whole(self, tmp_path):
        layouts.write_images(tmp_path, [f'images of the place/number {k}/of many/{k}.jpg' for k in range(3)])
        for k in range(200):
            (tmp_path / f'a folder with a rather long name {k:03d}').mkdir()
        with pytest.raises(ValueError, match=r'\.\.\. 201 in all') as caught:
            load_data(tmp_path)
        assert len(str(caught.value).replace(str(tmp_path), '')) < 700

    def test_empty_folder(self, tmp_path):
        self.expect(tmp_path, 'no image', 'holds nothing', *LAYOUTS)

    def test_a_file_that_is_no_table(self, tmp_path):
        self.expect(layouts.write_image(tmp_path / 'a.jpg'), 'a.jpg', *LAYOUTS)

    def test_veri_without_a_folder(self, tmp_path):
        for path in layouts.veri_uav(tmp_path).glob('image_query/*'):
            path.unlink()
        self.expect(tmp_path, 'image_query', 'no image')
        (tmp_path / 'image_query').rmdir()
        self.expect(tmp_path, 'no image_query')

    def test_veri_names(self, tmp_path):
        layouts.write_image(layouts.veri_uav(tmp_path) / 'image_test/a_0003_01_1.jpg')
        self.expect(tmp_path, '1 of 13', 'a_0003_01_1.jpg', '<vehicle>_<camera, two digits>')
        self.expect(tmp_path, '8 of 8', layout='veri776')

    def test_several_sets(self, tmp_path):
        layouts.veri_uav(tmp_path / 'VeRi-UAV')
        layouts.vru(tmp_path / 'VRU')
        self.expect(tmp_path, 'VRU, VeRi-UAV')
        assert load_data(tmp_path, 'vru').layout == 'vru'
        assert load_data(tmp_path, 'veri_uav').layout == 'veri_uav'

    @pytest.mark.parametrize(
        ('line', 'error', 'parts'),
        [
            ('b1', ValueError, ["not 'b1'"]),
            ('b1 7 8', ValueError, ['<image> <vehicle>']),
            ('a1 7', ValueError, ['a1', 'train_list.txt, line 1']),
            ('zz 7', FileNotFoundError, ['no image zz', '1 missing']),
        ],
    )
    def test_vru_lists(self, tmp_path, line, error, parts):
        with open(layouts.vru(tmp_path) / 'train_test_split/test_list_1200.txt', 'a') as file:
            file.write(line)
        self.expect(tmp_path, 'test_list_1200.txt, line 8', *parts, error=error)

    def test_vru_with_a_name_twice(self, tmp_path):
        layouts.write_images(layouts.vru(tmp_path), ['Pic/more/a1.jpg'])
        self.expect(tmp_path, 'called a1', 'Pic/a1.jpg', 'more/a1.jpg')

    def test_vru_without_its_list(self, tmp_path):
        self.expect(layouts.vru(tmp_path), 'test_list_8000.txt', subset='large')

    @pytest.mark.parametrize(
        ('text', 'error', 'parts'),
        [
            ('file,id\n1.jpg,a\n', ValueError, ['file,id', 'path,pid']),
            ('path,pid\n1.jpg,a\n2.jpg,\n', ValueError, ['line 3', 'no pid']),
            ('path,pid\n1.jpg,a\n\n2.jpg\n', ValueError, ['line 4', 'no pid']),
            ('path,pid,camid\n1.jpg,a,1\n2.jpg,b\n', ValueError, ['line 3', 'no camid', 'leave the column out']),
            ('path,pid,split\n1.jpg,a,train\n2.jpg,b,val\n', ValueError, ['line 3', "'val'"]),
            ('path,pid,split\n1.jpg,a,train\n2.jpg,b,query\n', ValueError, ['query, train']),
            ('path,pid\n1.jpg,a\n./1.jpg,b\n', ValueError, ['line 3', 'line 2']),
            ('path,pid\n1.jpg,a\n9.jpg,b\n8.jpg,b\n', FileNotFoundError, ['line 3', '9.jpg', '2 missing']),
            ('path,pid\n1.jpg,a\n2.jpg,a\n', ValueError, ["one vehicle, 'a'"]),
            ('path,pid\n', ValueError, ['no rows']),
            ('path;pid\n1.jpg;a\n', ValueError, ['path;pid', 'separated by commas']),
            ('path,pid,split\n1.jpg,a,train\n1.jpg,a,query\n2.jpg,b,gallery\n', ValueError, ['line 3', 'line 2']),
        ],
    )
    def test_csv(self, tmp_path, text, error, parts):
        layouts.write_images(tmp_path, ['1.jpg', '2.jpg'])
        self.expect(write_csv(tmp_path, text), 'table.csv', *parts, error=error)

    def test_csv_in_another_encoding(self, tmp_path):
        (tmp_path / 'a.csv').write_bytes('path,pid\nü.jpg,1\n'.encode('latin-1'))
        self.expect(tmp_path / 'a.csv', 'UTF-8')

    def test_several_tables(self, tmp_path):
        for name in ('a.csv', 'b.csv'):
            (tmp_path / name).write_text('path,pid\n')
        self.expect(tmp_path, 'a.csv, b.csv')

    def test_one_vehicle(self, tmp_path):
        layouts.write_images(tmp_path, ['images/1.jpg', 'images/2.jpg'])
        self.expect(tmp_path, "one vehicle, 'images'")

    def test_names_without_a_vehicle(self, tmp_path):
        layouts.write_images(tmp_path, ['a_1.jpg', 'b_1.jpg', 'img.jpg'])
        self.expect(tmp_path, '1 of 3', 'img.jpg', '<vehicle>_*.jpg')

    def test_parts_that_do_not_go_together(self, tmp_path):
        for part in ('train', 'test', 'query', 'gallery'):
            layouts.vehicle_folders(tmp_path / part, {'a': 2, 'b': 2})
        self.expect(tmp_path, 'gallery, query, test, train')


class TestSplit:
    def test_subset(self):
        split = Split(['a', 'b', 'c'], np.array([5, 6, 7]), np.array([0, 1, 2]))
        for which in ([2, 0], np.array([2, 0])):
            part = split.subset(which)
            assert (part.paths, part.pids.tolist(), part.camids.tolist()) == (['c', 'a'], [7, 5], [2, 0])
        assert split.subset(np.array([True, False, True])).paths == ['a', 'c']
        empty = split.subset([])
        assert len(empty) == len(empty.subset(np.zeros(0, bool))) == 0

    def test_train_labels(self):
        split = Split(['a', 'b', 'c', 'd'], np.array([9, 4, 9, 6]), np.zeros(4, np.int64))
        labels, pids = train_labels(split)
        assert labels.dtype == np.int64
        assert (labels.tolist(), pids.tolist()) == ([2, 0, 2, 1], [4, 6, 9])


def noisy(image) -> torch.Tensor:
    """A transform that draws from all three generators."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return pixels * random.random() + float(np.random.rand()) + torch.rand(pixels.shape)


class TestTrainImages:
    @pytest.fixture
    def split(self, tmp_path):
        return load_data(layouts.vehicle_folders(tmp_path, {'a': 3, 'b': 2, 'c': 2}), test_fraction=0).train

    def test_items(self, split):
        items = TrainImages(split, noisy)
        assert len(items) == 7
        pixels, label, row, message = items[4, 11]
        assert (pixels.shape, label, row, message) == ((3, 8, 12), 1, 4, '')
        assert [items[i, 0][1] for i in range(7)] == [0, 0, 0, 1, 1, 2, 2]

    def test_the_seed_decides_and_nothing_is_disturbed(self, split):
        items = TrainImages(split, noisy)
        expected = items[2, 7][0]
        torch.manual_seed(1)
        random.seed(2)
        np.random.seed(3)
        undisturbed = torch.rand(2).tolist(), random.random(), np.random.rand()
        torch.manual_seed(1)
        random.seed(2)
        np.random.seed(3)
        assert torch.equal(items[2, 7][0], expected)
        assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == undisturbed
        assert not torch.equal(items[2, 8][0], expected)
        items[0, 2**63 - 1]

    def test_the_same_in_worker_processes(self, split):
        items = TrainImages(split, noisy)
        keys = [[(0, 5), (3, 6)], [(1, 7), (1, 8), (6, 2**62)]]
        sent = pickle.loads(pickle.dumps(items))  # as to workers that are not forked
        loader = DataLoader(sent, batch_sampler=keys, num_workers=2, collate_fn=collate)
        for (pixels, labels, rows, messages), batch in zip(loader, keys, strict=True):
            assert torch.equal(pixels, torch.stack([items[key][0] for key in batch]))
            assert labels.dtype == torch.int64
            assert labels.tolist() == [items[key][1] for key in batch]
            assert rows.tolist() == [row for row, _ in batch]
            assert messages == []

    def test_an_unreadable_image_is_replaced(self, split):
        Path(split.paths[1]).write_bytes(b'not an image')
        items = TrainImages(split, noisy)
        pixels, label, row, message = items[1, 3]
        assert torch.equal(pixels, items[2, 3][0])
        assert row == 2
        assert label == 0
        assert split.paths[1] in message
        assert split.paths[2] in message
        assert 'not an image' in message
        Path(split.paths[2]).unlink()  # and round to the first
        pixels, label, row, message = items[1, 3]
        assert torch.equal(pixels, items[0, 3][0])
        assert row == 0
        assert split.paths[2] in message
        *_, messages = collate([items[0, 1], items[1, 1], items[3, 1]])
        assert messages == [message]

    def test_no_readable_image_of_a_vehicle(self, split):
        for path in split.paths[3:5]:
            Path(path).write_bytes(b'')
        items = TrainImages(split, noisy)
        assert items[0, 0][3] == ''
        with pytest.raises(ImageError, match='none of the 2 images'):
            items[4, 0]
