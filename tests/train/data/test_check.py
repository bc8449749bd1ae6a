"""The report about a data set, on sets whose faults are known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import layouts
from timm_dpa.train.data.check import check_data
from timm_dpa.train.data.datasets import load_data


def table(report) -> dict[str, list[str]]:
    """The rows of the text's table."""
    lines = [line.split() for line in str(report).splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] in report.parts}


def verdict(report) -> str:
    return str(report).splitlines()[-1]


class TestGoodData:
    def test_numbers(self, tmp_path):
        layouts.veri_uav(tmp_path)
        layouts.write_image(tmp_path / 'image_train/0007_02_9.jpg', size=(31, 40))
        report = check_data(load_data(tmp_path), workers=2)
        parts = report.parts
        assert {name: (p.images, p.identities, p.cameras) for name, p in parts.items()} == {
            'train': (9, 2, 2), 'test': (16, 2, 2), 'query': (4, 2, 2), 'gallery': (12, 2, 2),
        }  # fmt: skip
        assert parts['train'].images_per_identity == (4, 4.5, 5)
        assert parts['train'].widths == (12, 12, 31)
        assert parts['train'].heights == (8, 8, 40)
        assert (report.unreadable, report.shared_identities, report.identical, report.without_positive) == ([],) * 4
        assert report.ready
        assert (report.layout, report.protocol, report.same_camera_rule) == ('veri_uav', 'fixed', True)

    def test_text(self, tmp_path):
        report = check_data(load_data(layouts.veri_uav(tmp_path)))
        assert str(report).startswith(f'{tmp_path}\nlayout veri_uav, protocol fixed with same-camera rule\n')
        assert ''.join(table(report)['query']) == '4222/2/212/12/128/8/8'
        assert verdict(report) == 'ready for training'
        assert max(len(line) for line in str(report).splitlines()[1:] if not line.startswith('note:')) <= 120

    def test_json(self, tmp_path):
        report = check_data(load_data(layouts.veri_uav(tmp_path)))
        found = json.loads(json.dumps(report.as_dict()))
        assert (found['ready'], found['problems'], found['parts']['train']['images']) == (True, [], 8)

    def test_drawn_protocol(self, tmp_path):
        data = load_data(layouts.vru(tmp_path))
        report = check_data(data)
        assert (report.parts['query'].images, report.parts['gallery'].images) == (4, 3)
        assert report.parts['query'].cameras == 0
        assert table(report)['query'][:3] == ['4', '3', '-']
        report = check_data(data, protocol='first-last')
        assert (report.protocol, report.parts['query'].images) == ('first-last', 3)
        with pytest.raises(ValueError, match='no cameras'):
            check_data(data, protocol='cross-camera')

    def test_queries_in_the_gallery_are_no_fault(self, tmp_path):
        report = check_data(load_data(layouts.veri776(tmp_path)))
        assert report.ready
        assert (report.parts['gallery'].images, report.parts['test'].images) == (8, 8)


class TestFaults:
    def test_unreadable(self, tmp_path):
        layouts.veri_uav(tmp_path)
        text = tmp_path / 'image_train/0007_01_1.jpg'
        text.write_text('hello')
        short = tmp_path / 'image_test/0003_01_2.jpg'
        short.write_bytes(short.read_bytes()[:-200])
        data = load_data(tmp_path)
        gone = tmp_path / 'image_query/0003_01_1.jpg'
        gone.unlink()
        report = check_data(data)
        assert len(report.unreadable) == 3
        for path in (text, short, gone):
            (line,) = (line for line in report.unreadable if str(path) in line)
            assert line in str(report)
        assert verdict(report) == 'not ready: 3 images cannot be read'
        assert (report.parts['train'].images, report.parts['train'].widths) == (8, (12, 12, 12))

    def test_shared_identities(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 2, 'c': 3})
        layouts.vehicle_folders(tmp_path / 'test', {'b': 2, 'x': 2, 'c': 3})
        for seed, path in enumerate(tmp_path.glob('test/*/*.jpg')):
            layouts.write_image(path, seed=seed)
        report = check_data(load_data(tmp_path))
        assert report.shared_identities == ['b', 'c']
        assert '2 identities in train and in test' in verdict(report)

    def test_identical_files(self, tmp_path):
        layouts.veri_uav(tmp_path)
        trained, tested = tmp_path / 'image_train/0010_02_2.jpg', tmp_path / 'image_test/0005_03_4.jpg'
        shutil.copy(trained, tested)
        report = check_data(load_data(tmp_path))
        assert report.identical == [(str(trained), str(tested))]
        assert f'{tested} = {trained}' in str(report)
        assert verdict(report) == 'not ready: 1 test image identical to a training image'

    @pytest.mark.parametrize('rule', [True, False])
    def test_queries_without_a_positive(self, tmp_path, rule):
        """Vehicle a is seen by two cameras, b by one, c is not in the gallery."""
        rows = ['q1,a,1,query', 'q2,b,1,query', 'q3,c,2,query', 'g1,a,1,gallery', 'g2,a,2,gallery', 'g3,b,1,gallery']
        rows += ['t1,d,1,train', 't2,d,1,train', 't3,e,2,train']
        if not rule:
            rows = [f'{path},{pid},1,{part}' for path, pid, _, part in (row.split(',') for row in rows)]
        for row in rows:
            layouts.write_image(tmp_path / row.split(',')[0])
        (tmp_path / 'a.csv').write_text('path,pid,camid,split\n' + '\n'.join(rows))
        report = check_data(load_data(tmp_path))
        assert report.same_camera_rule is rule
        assert [Path(path).name for path in report.without_positive] == (['q2', 'q3'] if rule else ['q3'])
        assert report.ready
        assert 'queries with nothing to find do not count' in str(report)
        assert 'a single image' in str(report)  # vehicle e

    def test_no_query_finds_anything(self, tmp_path):
        layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 2})
        layouts.vehicle_folders(tmp_path / 'query', {'c': 1})
        layouts.vehicle_folders(tmp_path / 'gallery', {'d': 2, 'e': 1})
        assert 'none of the 1 queries has an image' in verdict(check_data(load_data(tmp_path), quick=True))

    def test_one_part_only(self, tmp_path):
        layouts.vehicle_folders(tmp_path, {'a': 2, 'b': 2, 'c': 2})
        report = check_data(load_data(tmp_path, test_fraction=0))
        assert report.ready
        assert 'cannot be evaluated' in str(report)
        report = check_data(load_data(tmp_path, test_fraction=1))
        assert report.ready
        assert verdict(report) == 'ready for evaluation only: no training images'

    def test_long_lists_are_cut(self, tmp_path):
        layouts.vehicle_folders(tmp_path, {'a': 6, 'b': 6})
        for path in tmp_path.rglob('*.jpg'):
            path.write_bytes(b'')
        report = check_data(load_data(tmp_path, test_fraction=0))
        assert len(report.unreadable) == 12
        assert '... and 7 more' in str(report)


class TestHow:
    def test_quick_opens_nothing(self, tmp_path):
        layouts.veri_uav(tmp_path)
        for path in tmp_path.rglob('*.jpg'):
            path.write_bytes(b'')
        report = check_data(load_data(tmp_path), quick=True)
        assert (report.decoded, report.unreadable, report.identical) == (False, [], [])
        assert report.parts['train'].widths is None
        assert 'no image was opened' in str(report)
        assert not check_data(load_data(tmp_path)).ready

    def test_bar(self, tmp_path):
        """In a process of its own: rows and switches of bars belong to the whole process."""
        code = (
            'import sys\n'
            'from timm_dpa.train.data.check import check_data\n'
            'from timm_dpa.train.data.datasets import load_data\n'
            'check_data(load_data(sys.argv[1]), progress={"None": None, "True": True}[sys.argv[2]])\n'
        )
        root = layouts.veri_uav(tmp_path)
        shown = {}
        for progress in ('None', 'True'):
            command = [sys.executable, '-c', code, root, progress]
            shown[progress] = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert '24/24' not in shown['None']
        assert '24/24' in shown['True']

    def test_workers(self, tmp_path):
        data = load_data(layouts.veri_uav(tmp_path))
        with pytest.raises(ValueError, match='workers'):
            check_data(data, workers=0)
        assert check_data(data, workers=1) == check_data(data, workers=5)


def test_copies_of_queries_in_the_gallery_are_said_and_no_obstacle(tmp_path):
    layouts.veri776(tmp_path / 'veri')
    assert check_data(load_data(tmp_path / 'veri')).warnings[0].startswith('Rank-5')
    images = tmp_path / 'images'
    rows = (('query', 'a', 1), ('gallery', 'a', 1), ('gallery', 'a', 2), ('gallery', 'b', 3))
    for part, vehicle, seed in rows:
        layouts.write_image(images / part / vehicle / f'{part}{seed}.jpg', seed)
    report = check_data(load_data(images))
    assert '1 of 1 queries are in the gallery as the same file or a copy of it' in str(report)
    assert report.ready


def test_one_image_under_two_identities_is_said(tmp_path):
    for vehicle, seed in (('a', 1), ('a', 2), ('b', 2), ('b', 3)):
        layouts.write_image(tmp_path / vehicle / f'{seed}.jpg', seed)
    report = check_data(load_data(tmp_path, test_fraction=0))
    assert [[Path(path).parent.name for path in pair] for pair in report.conflicting] == [['b', 'a']]
    assert 'note: 1 image identical to one of another identity' in str(report)


def test_what_was_left_out_is_reported(tmp_path):
    layouts.vehicle_folders(tmp_path, {'a': 3, 'b': 3, '-1': 2})
    (tmp_path / 'a' / 'c.heic_').write_bytes(b'x')
    layouts.write_image(tmp_path / '@eaDir' / 'a' / '000.jpg')
    layouts.write_image(tmp_path / 'b' / '.thumbnails' / '000.jpg')
    text = str(check_data(load_data(tmp_path, test_fraction=0)))
    assert '2 images are left out: 2 junk (identity -1)' in text
    assert '1 file that Pillow cannot open (1 .heic_) and 2 hidden folders (1 @eaDir, 1 .thumbnails)' in text


def test_a_test_that_cannot_fail_is_not_ready(tmp_path):
    layouts.vehicle_folders(tmp_path / 'train', {'a': 2, 'b': 2})
    layouts.vehicle_folders(tmp_path / 'test', {'c': 4})
    assert "show one vehicle, 'c'" in verdict(check_data(load_data(tmp_path)))
