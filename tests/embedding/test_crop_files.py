"""Crops with identities out of sequences: pixels, names and table, resumed after a stop, never over something else."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.support import layouts, sequences
from timm_dpa.cli.main import main
from timm_dpa.embedding.box_files import read_boxes
from timm_dpa.embedding.crop_files import COLUMNS, CropOptions, write_crops
from timm_dpa.embedding.sequences import find_sequences, named_sequence
from timm_dpa.train.data.datasets import load_data

TRACKS = range(3)


def table(folder) -> list[dict]:
    with open(folder / 'crops.csv', newline='') as file:
        return list(csv.DictReader(file))


def near(path, track: int) -> bool:
    """Whether the crop shows the vehicle, but for JPEG; other vehicles are more than 50 away."""
    with Image.open(path) as image:
        return image.size == sequences.SIDES and np.abs(np.asarray(image, float) - sequences.texture(track)).mean() < 10


@pytest.fixture
def folder(tmp_path):
    """A folder of frames from 1, and its boxes as a tracker writes them."""
    sequences.write_frames(tmp_path / 'seq', range(1, 9), TRACKS)
    sequences.write_rows(tmp_path / 'tracks.txt', sequences.boxes(range(1, 9), TRACKS), 0.8)
    return tmp_path


def cut(folder, out='crops', boxes='tracks.txt', frames='seq', **options):
    sequence = named_sequence(folder / frames, folder / boxes, rate=4)
    return write_crops([sequence], folder / out, CropOptions(**options))


class TestCrops:
    def test_names_pixels_and_table(self, folder):
        report = cut(folder)
        assert (report.crops, report.vehicles, report.sequences, report.skipped) == (24, 3, 1, 0)
        rows = table(folder / 'crops')
        assert tuple(rows[0]) == COLUMNS
        for row in rows:
            track, frame = int(row['track']), int(row['frame'])
            assert row['path'] == f'seq_{track}/seq_{frame:06d}.jpg'
            assert (row['pid'], row['sequence'], row['score']) == (f'seq_{track}', 'seq', '0.8')
            assert float(row['time']) == (frame - 1) / 4
            assert tuple(float(row[key]) for key in 'xywh') == (*sequences.place(track, frame), *sequences.SIDES)
            assert near(folder / 'crops' / row['path'], track)
        assert len(rows) == 24
        data = load_data(folder / 'crops', test_fraction=1)  # which the other commands read
        assert (data.layout, data.identities) == ('csv', ['seq_0', 'seq_1', 'seq_2'])

    def test_a_video(self, folder):
        sequences.write_video(folder / 'clip.mp4', range(1, 9), TRACKS, quarter_turns=1)
        report = cut(folder, frames='clip.mp4')
        assert report.first_frames == {'clip': 1}
        rows = table(folder / 'crops')
        assert [float(row['time']) for row in rows[:3]] == [0, 0.1, 0.2]
        with Image.open(folder / 'crops/clip_1/clip_000005.jpg') as image:
            assert np.abs(np.asarray(image, float) - sequences.texture(1)).mean() < 40

    def test_oriented_boxes_are_turned_upright(self, folder):
        rows = []
        for frame, track, x, y, w, h in sequences.boxes(range(1, 9), TRACKS):
            rows.append(
                (f'{frame:06d}.png', track, x + w, y, x + w, y + h, x, y + h, x, y)
            )  # from the upper right corner
        header = 'frame,id,x1,y1,x2,y2,x3,y3,x4,y4'
        sequences.write_rows(folder / 'corners.csv', rows, header=header)
        cut(folder, boxes='corners.csv')
        with Image.open(folder / 'crops/seq_2/seq_000003.jpg') as image:
            assert np.abs(np.asarray(image, float) - np.rot90(sequences.texture(2))).mean() < 15
        row = table(folder / 'crops')[0]
        assert tuple(float(row[key]) for key in 'xywh') == (*sequences.place(0, 1), *sequences.SIDES)

    def test_options(self, folder, tmp_path):
        root = layouts.mot(tmp_path / 'mot', names=('a',))
        found = find_sequences(root)
        write_crops(found, tmp_path / 'some', CropOptions(every=7, min_visibility=0.9, half='second'))
        # even tracks are seen as a whole; the half of 40 frames ends with frame 21
        expected = {(track, frame) for track in ('0', '2') for frame in (28, 35)}
        assert {(row['track'], int(row['frame'])) for row in table(tmp_path / 'some')} == expected
        report = cut(folder, 'wide', margin=0.5)
        with Image.open(folder / 'wide/seq_1/seq_000001.jpg') as image:
            assert image.size == (2 * 16, 5 + 12 + 6)  # cut off at the upper border of the frame
        assert report.skipped == 0
        report = cut(folder, 'tall', min_side=12)
        assert (report.crops, report.skipped) == (24, 0)
        with pytest.raises(ValueError, match='all lie outside of their frames or are smaller'):
            cut(folder, 'none', min_side=13)
        with pytest.raises(ValueError, match=r"half must be 'first' or 'second'"):
            CropOptions(half='third')

    def test_refused(self, folder):
        sequences.write_rows(folder / 'det.txt', [(1, -1, 4, 4, 16, 12, 0.8, -1, -1, -1)])
        with pytest.raises(ValueError, match=r'det\.txt, line 1: no id of a track'):
            cut(folder, boxes='det.txt')
        sequences.write_rows(folder / 'late.txt', [(99, 1, 4, 4, 16, 12)])
        with pytest.raises(ValueError, match='has no frame 99, which the boxes name'):
            cut(folder, 'late', boxes='late.txt')
        sequences.write_rows(folder / 'bad.csv', [(1, '../x', 4, 4, 16, 12)], header='frame,id,x,y,w,h')
        with pytest.raises(
            ValueError, match=r"bad\.csv, line 2: the track '\.\./x' cannot be part of the name of a file"
        ):
            cut(folder, boxes='bad.csv')
        (folder / 'other').mkdir()
        (folder / 'other/mine.txt').write_text('mine')
        with pytest.raises(FileExistsError, match='has something else than crops of this command'):
            cut(folder, 'other')
        assert sorted(path.name for path in (folder / 'other').iterdir()) == ['mine.txt']
        cut(folder)
        with pytest.raises(ValueError, match='has crops of other options; name another folder'):
            cut(folder, every=2)


class TestResume:
    def test_a_killed_process(self, folder):
        frames = range(1, 150)
        sequences.write_frames(folder / 'long', frames, TRACKS)
        sequences.write_rows(folder / 'long.txt', sequences.boxes(frames, TRACKS), 1)
        words = ['crops', str(folder / 'long'), '--boxes', str(folder / 'long.txt'), '--out', str(folder / 'out')]
        words += ['--rate', '4']
        process = subprocess.Popen([sys.executable, '-m', 'timm_dpa.cli', *words])
        journal = folder / 'out/.crops.jsonl'
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > 3000):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / 'out/crops.csv').exists()
        with open(journal, 'a') as file:
            file.write('{"sequence": "long", "ke')  # as if it was cut off in a line
        before = {path: os.stat(path).st_mtime_ns for path in (folder / 'out').glob('*/long_*.jpg')}
        report = cut(folder, 'out', 'long.txt', 'long')
        assert 0 < report.written < report.crops == 3 * len(frames)
        kept = [path for path, changed in before.items() if os.stat(path).st_mtime_ns == changed]
        assert len(kept) >= report.crops - report.written > 0
        cut(folder, 'whole', 'long.txt', 'long')
        assert (folder / 'out/crops.csv').read_bytes() == (folder / 'whole/crops.csv').read_bytes()
        files = [sorted(path.relative_to(folder / k) for path in (folder / k).rglob('*')) for k in ('out', 'whole')]
        assert files[0] == files[1]

    def test_done_is_done(self, folder):
        cut(folder)
        about = json.loads((folder / 'crops/crops.json').read_text())
        assert about['counts'] == {'crops': 24, 'vehicles': 3, 'sequences': 1, 'skipped': 0}
        (folder / 'seq/000001.png').unlink()  # no frame is opened again
        report = cut(folder)
        assert (report.crops, report.written) == (24, 0)


class TestCommand:
    def test_output(self, folder, capsys):
        sequences.write_video(folder / 'clip.mp4', range(8), TRACKS)
        words = ['crops', str(folder / 'clip.mp4'), '--boxes', str(folder / 'tracks.txt'), '--every', '2']
        assert main([*words, '--out', str(folder / 'out')]) == 0
        assert capsys.readouterr().out == (
            '12 crops of 3 vehicles in 1 sequence\n'
            'clip: the first frame is number 1, as the boxes count (--first-frame changes it)\n'
            f'table: {folder / "out/crops.csv"}\n'
        )
        assert main(['data', 'check', str(folder / 'out'), '--test-fraction', '0']) == 0

    @pytest.mark.parametrize(
        ('words', 'message'),
        [
            (['seq', 'seq', '--boxes', 'tracks.txt'], 'is of one video or folder, not of 2'),
            (['tracks.txt'], 'a video needs its boxes: --boxes FILE'),
            (['seq'], 'no sequence in this folder'),
            (['seq', '--format', 'mot'], '--format and --rate are for --boxes'),
            (['seq', '--boxes', 'none.txt'], 'no such file of boxes'),
            (['none', '--boxes', 'tracks.txt'], 'no such video, or folder of frames'),
            (['seq', '--boxes', 'tracks.txt', '--classes', 'car'], 'no box of the class car; it has no classes'),
            (['seq', '--boxes', 'tracks.txt', '--min-visibility', '0.5'], 'format mot without visibility'),
        ],
    )
    def test_wrong_use(self, folder, capsys, monkeypatch, words, message):
        monkeypatch.chdir(folder)
        assert main(['crops', *words, '--out', 'out']) == 2
        assert message in capsys.readouterr().err
        assert not (folder / 'out/crops.csv').exists()


def test_frames_count_as_the_boxes_do(folder):
    rows = [(f - 1, t, *box) for f, t, *box in sequences.boxes(range(1, 9), TRACKS)]
    zero = sequences.write_rows(folder / 'zero.txt', rows)
    assert (read_boxes(zero).first_frame, read_boxes(folder / 'tracks.txt').first_frame) == (0, 1)
