"""Annotated sequences as data sets: their crops, what is read from them, and the protocols that know time."""

import csv
import os
import random
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import layouts, sequences
from timm_dpa.embedding.crop_files import CropOptions, write_crops
from timm_dpa.embedding.sequences import find_sequences
from timm_dpa.train.data.check import check_data
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.layouts import find_layout
from timm_dpa.train.data.query_gallery import check_evaluable, pick_query_gallery, warn_about


def names(split) -> list[str]:
    return ['/'.join(Path(path).parts[-2:]) for path in split.paths]


@pytest.fixture(scope='module')
def mot(tmp_path_factory):
    return layouts.mot(tmp_path_factory.mktemp('sets') / 'mot')


class TestLayout:
    @pytest.mark.parametrize('layout', ['mot', 'auto'])
    def test_motchallenge(self, mot, layout):
        data = load_data(mot, layout, test_fraction=1)
        assert (data.layout, data.protocol, data.has_cameras) == ('mot', 'vru', False)
        assert data.identities == sorted(
            f'{name}_{10 * k + t}' for k, name in enumerate(('north', 'south')) for t in range(4)
        )
        assert len(data.test) == 8 * 4  # frames 10, 20, 30, 40
        assert os.path.isfile(data.test.paths[0])
        with Image.open(next(path for path in data.test.paths if path.endswith('north_2/north_000030.jpg'))) as crop:
            assert np.abs(np.asarray(crop, float) - sequences.texture(2)).mean() < 12

    def test_visdrone_and_uavdt(self, tmp_path):
        layouts.visdrone_mot(tmp_path / 'VisDrone2019-MOT-train')
        data = load_data(tmp_path, test_fraction=0)
        assert data.identities == [f'uav{k}_v_{t}' for k in (1, 2) for t in (0, 1)]  # neither persons nor regions
        data = load_data(layouts.uavdt(tmp_path / 'uavdt'), test_fraction=0)
        assert (data.layout, len(data.train)) == ('mot', 2 * 3 * 2)

    def test_parts_are_kept(self, tmp_path):
        layouts.mot(tmp_path / 'MOT/train', names=('a', 'b'))
        layouts.mot(tmp_path / 'MOT/test', names=('c',))
        data = load_data(tmp_path / 'MOT')
        assert {name.split('_')[0] for name in names(data.train)} == {'a', 'b'}
        assert {name.split('_')[0] for name in names(data.test)} == {'c'}
        shutil.rmtree(tmp_path / 'MOT/test')  # a part alone is split like others
        assert len(load_data(tmp_path / 'MOT').test)

    def test_crops_are_made_once_and_again_when_boxes_change(self, tmp_path):
        root = layouts.mot(tmp_path / 'mot', names=('a',))
        first = load_data(root, test_fraction=1)
        before = os.stat(first.test.paths[0]).st_mtime_ns
        again = load_data(root, test_fraction=1)
        assert again.test.paths == first.test.paths
        assert os.stat(first.test.paths[0]).st_mtime_ns == before
        boxes = root / 'a/gt/gt.txt'
        boxes.write_text(''.join(line + '\n' for line in boxes.read_text().splitlines() if line.split(',')[1] != '2'))
        assert load_data(root, test_fraction=1).identities == ['a_0', 'a_1', 'a_3']
        assert 'every 10th frame of 1 sequences' in ' '.join(again.notes)

    def test_detectors_of_mot17_count_once(self, tmp_path):
        layouts.mot(tmp_path, names=('MOT17-02-DPM', 'MOT17-02-SDP'))
        assert [sequence.name for sequence in find_sequences(tmp_path)] == ['MOT17-02']

    def test_refused(self, mot, tmp_path):
        with pytest.raises(ValueError, match=r'not the layout mot.*expected mot: frames with boxes'):
            load_data(layouts.vehicle_folders(tmp_path / 'f', {'a': 2, 'b': 2}), 'mot')
        assert find_layout(mot) == (mot, 'mot')
        shutil.copytree(mot / 'north', tmp_path / 's/north')
        shutil.rmtree(tmp_path / 's/north/img1')
        with pytest.raises(ValueError, match='no such folder, where the frames of'):
            load_data(tmp_path / 's')
        (tmp_path / 's/north/seqinfo.ini').write_text('[Sequence]\nseqLength=many\n')
        with pytest.raises(ValueError, match=r'seqinfo\.ini: expected \[Sequence\] with name'):
            load_data(tmp_path / 's')

    def test_check(self, mot):
        report = check_data(load_data(mot), protocol=None)
        assert report.ready
        assert any('neighbors in time' in text for text in report.warnings)


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    """Vehicles that come and go: a track is seen in some of the frames, one in a single frame."""
    folder = tmp_path_factory.mktemp('gaps')
    root = layouts.mot(folder / 'mot', frames=range(41))
    for name in ('north', 'south'):
        path = root / name / 'gt/gt.txt'
        rows = [line.split(',') for line in path.read_text().splitlines()]
        kept = [row for row in rows if int(row[0]) % 11 != int(row[1]) % 7 and not (row[1] == '3' and row[0] != '12')]
        sequences.write_rows(path, kept)
    return write_crops(find_sequences(root), folder / 'crops', CropOptions()).table.parent


class TestProtocols:
    def test_gap_as_loops(self, crops):
        data = load_data(crops, 'folders', test_fraction=1)
        parts = pick_query_gallery(data, 'gap', gap=6, stride=3)
        frames = defaultdict(dict)
        for row in csv.DictReader(open(crops / 'crops.csv', newline='')):  # noqa: SIM115
            frames[row['sequence'], int(row['frame'])][row['track']] = row['path']
        expected = {}
        for (sequence, frame), there in frames.items():
            later = frames.get((sequence, frame + 6), {})
            for track, path in there.items():
                if frame % 3 == 0 and track in later and len(later) > 1:
                    expected[path] = sorted(later.values())
        assert sorted(names(parts.query)) == sorted(expected)
        assert 'north_3/north_000012.jpg' in names(parts.gallery)  # a vehicle with one image is a candidate
        for path, group in zip(names(parts.query), parts.query.groups, strict=True):
            mine = [other for other, k in zip(names(parts.gallery), parts.gallery.groups, strict=True) if k == group]
            assert sorted(mine) == expected[path]
        assert parts.matches().tolist() == [1] * len(expected)
        assert parts.negatives().tolist() == [len(expected[path]) - 1 for path in names(parts.query)]
        assert not any('neighbors in time' in text for text in warn_about(data, parts, log=False))

    def test_gap_refused(self, crops, tmp_path):
        data = load_data(crops, 'folders', test_fraction=1)
        with pytest.raises(ValueError, match='no image is in a frame divisible by the stride, 50'):
            check_evaluable(load_data(_renamed(crops, tmp_path), 'folders', test_fraction=1), 'gap', stride=50)
        with pytest.raises(
            ValueError, match=r'among two or more 41 frames later; give other numbers \(--gap, --stride\)'
        ):
            pick_query_gallery(data, 'gap', gap=41, stride=3)
        with pytest.raises(ValueError, match='gap must be at least 1 frame'):
            pick_query_gallery(data, 'gap', gap=0)
        other = load_data(layouts.vehicle_folders(tmp_path / 'f', {'a': 3, 'b': 3}), test_fraction=1)
        with pytest.raises(ValueError, match='needs names <sequence>_<track>'):
            pick_query_gallery(other, 'gap')

    def test_one_query(self, crops):
        data = load_data(crops, 'folders', test_fraction=1)
        parts = pick_query_gallery(data, 'one-query', seed=5)
        rng, expected = random.Random(5), []
        for vehicle in sorted(path.name for path in crops.iterdir() if path.is_dir()):
            images = sorted(path.name for path in (crops / vehicle).iterdir())
            if len(images) > 1:
                rng.shuffle(images)
                expected.append(f'{vehicle}/{images[0]}')
        assert names(parts.query) == expected
        assert len(parts.query) + len(parts.gallery) == len(data.test)
        drawn = {tuple(names(pick_query_gallery(data, 'one-query', (5, draw)).query)) for draw in range(4)}
        assert len(drawn) == 4
        assert tuple(expected) in drawn

    def test_sequence_as_camera_names_the_remedy(self, crops, tmp_path):
        rows = list(csv.DictReader(open(crops / 'crops.csv', newline='')))  # noqa: SIM115
        lines = [f'{crops / row["path"]},{row["pid"]},{row["sequence"]}' for row in rows]
        (tmp_path / 'all.csv').write_text('path,pid,camid\n' + '\n'.join(lines) + '\n')
        report = check_data(load_data(tmp_path / 'all.csv', test_fraction=0.9))
        assert '--same-camera keep' in report.not_evaluable


def _renamed(crops: Path, folder: Path) -> Path:
    """The crops of the frames that are not divisible by 10."""
    for path in crops.glob('*/*.jpg'):
        if int(path.stem[-6:]) % 10:
            (folder / 'some' / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / 'some' / path.parent.name)
    return folder / 'some'
