"""examples/tracker.py, compared with what a brute-force tracker gives."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.support.examples import load, program, read, refused, write
from timm_dpa.embedding.boxes import crop_boxes

#: of random weights no threshold is known
SIMILAR = ('--min-similarity', '0.5')


@pytest.fixture(scope='module')
def tracker():
    return load('tracker')


@pytest.fixture(scope='module')
def demo(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tracker')
    done = program('tracker', '--demo', 'drawn', '--model', run_folder, *SIMILAR, cwd=folder)
    assert (done.returncode, done.stderr) == (0, '')
    return folder / 'drawn', done.stdout


class TestTracker:
    def test_demo_tracks_the_drawn_sequence(self, demo):
        folder, printed = demo
        truth, tracks = read(folder / 'boxes.csv'), read(folder / 'tracks.csv')
        columns = ['frame', 'x', 'y', 'w', 'h']
        assert [[row[c] for c in columns] for row in tracks] == [[row[c] for c in columns] for row in truth]
        assert len({(row['frame'], row['track']) for row in tracks}) == len(tracks)  # one vehicle is not in two places
        frames = sorted({row['frame'] for row in truth})
        near, away = [], []
        for vehicle in {row['vehicle'] for row in truth}:
            own = [
                (frames.index(a['frame']), b['track'])
                for a, b in zip(truth, tracks, strict=True)
                if a['vehicle'] == vehicle
            ]
            for (time, track), (later, other) in pairwise(own):
                (near if later == time + 1 else away).append(track == other)
        count = len({row['track'] for row in tracks})
        assert printed == (
            f'{len(tracks)} detections in 36 frames, {count} tracks: drawn/tracks.csv\n'
            f'6 vehicles; right links: {sum(near)} of {len(near)} from frame to frame, {sum(away)} of {len(away)} '
            'after an absence\n'
        )
        assert away  # they do come back
        assert sum(near) > len(near) / 2  # random weights; by chance it is about a quarter

    def test_boxes_of_a_detector_give_the_same_tracks(self, demo, run_folder, call, tmp_path):
        folder, _ = demo
        rows = [list(row.values())[:5] for row in read(folder / 'boxes.csv')]
        boxes = write(tmp_path / 'boxes.csv', [['frame', 'x', 'y', 'w', 'h'], *rows])
        out = tmp_path / 'mine.csv'
        options = ['--frames', folder / 'frames', '--boxes', boxes, '--model', run_folder / 'model', '--out', out]
        status, printed, _ = call('tracker', *options, *SIMILAR)
        assert (status, printed.count('\n')) == (0, 1)
        assert out.read_text() == (folder / 'tracks.csv').read_text()

    def test_right_vehicles(self, tracker, call, tmp_path, monkeypatch):
        """Vehicles of one color each: an extractor that sees the color must make perfect tracks."""
        scenes = ['RG', 'GRB', '', 'BR', 'GB', 'G']  # what a frame shows, from left to right
        rows = [['x', 'frame', 'y', 'w', 'h', 'vehicle']]
        (tmp_path / 'frames').mkdir()
        for time, scene in enumerate(scenes):
            frame = np.zeros((20, 60, 3), np.uint8)
            for place, color in enumerate(scene):
                frame[4:12, 20 * place : 20 * place + 9, 'RGB'.index(color)] = 200
                rows.append([20 * place, f'{time}.png', 4, 9, 8, color])
            Image.fromarray(frame).save(tmp_path / 'frames' / f'{time}.png')

        class Extractor:
            thresholds = {0.01: 0.5}  # noqa: RUF012

            def __init__(self, model):
                assert model == 'dpa_resnet50'

            def embed_frames(self, pairs):
                for frame, boxes in pairs:
                    crops, valid = crop_boxes(frame, boxes)
                    vectors = [crop.reshape(-1, 3).mean(0) / 200 for crop in crops]
                    yield np.array(vectors, np.float32).reshape(-1, 3), valid

        monkeypatch.setattr(tracker, 'FeatureExtractor', Extractor)
        boxes, out = write(tmp_path / 'boxes.csv', rows), tmp_path / 'tracks.csv'
        status, printed, _ = call(
            'tracker', '--frames', tmp_path / 'frames', '--boxes', boxes, '--out', out, module=tracker
        )
        assert status == 0
        assert printed.endswith('3 vehicles; right links: 4 of 4 from frame to frame, 3 of 3 after an absence\n')
        assert ''.join('RGB'[int(row['track']) - 1] for row in read(out)) == ''.join(scenes)

    def test_a_threshold_must_be_known(self, call, demo, run_folder, tmp_path):
        options = ['--frames', demo[0] / 'frames', '--boxes', demo[0] / 'boxes.csv', '--out', tmp_path / 'a.csv']
        refused(call('tracker', *options, '--model', run_folder), 'tracker', 'no threshold is known .*--min-similarity')

    def test_rows_of_motchallenge_in_and_out(self, call, demo, run_folder, tmp_path):
        """The same boxes in another file give the same tracks."""
        truth, expected = read(demo[0] / 'boxes.csv'), read(demo[0] / 'tracks.csv')
        frames = sorted({row['frame'] for row in truth})
        lines = [
            f'{frames.index(row["frame"]) + 1},-1,{row["x"]}.0,{row["y"]},{row["w"]},{row["h"]},0.75,-1,-1,-1'
            for row in truth
        ]
        bad = ['3,-1,nan,5,20,20,0.5', '3,-1,5,5,20,0,0.5', '2,-1,9000,5,20,20,0.5', '2,-1,5,inf,20,20,0.5']
        (tmp_path / 'det.txt').write_text('\n'.join([*bad, *lines]))
        out = tmp_path / 'tracks.txt'
        options = ['--frames', demo[0] / 'frames', '--boxes', tmp_path / 'det.txt', '--model', run_folder, *SIMILAR]
        status, printed, errors = call('tracker', *options, '--out', out, '--picture', tmp_path / 'a.png')
        assert (status, errors) == (0, '4 boxes are damaged or outside of their frame and were left out\n')
        assert printed.count('\n') == 1
        found = [line.split(',') for line in out.read_text().splitlines()]
        assert [[int(row[0]), row[1]] for row in found] == [
            [frames.index(row['frame']) + 1, row['track']] for row in expected
        ]
        assert [[float(v) for v in row[2:6]] for row in found] == [
            [float(row[column]) for column in 'xywh'] for row in expected
        ]
        assert {tuple(row[6:]) for row in found} == {('0.75', '-1', '-1', '-1')}
        with Image.open(tmp_path / 'a.png') as picture, Image.open(demo[0] / 'frames' / frames[0]) as frame:
            assert picture.width > 2 * frame.width
            drawn = np.abs(np.asarray(picture.crop((0, 0, *frame.size))).astype(int) - np.asarray(frame)).max(-1) > 60
        assert 0.005 < drawn.mean() < 0.3

    def test_links_are_the_best_pairs_in_turn(self, tracker):
        rng = np.random.default_rng(1)
        ours, tracks = tracker.Tracker(min_similarity=0.2), {}
        linked = 0
        for number in rng.permutation(list(range(6)) * 5):  # 0 detections, too
            vectors = rng.standard_normal((number, 4)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            pairs = []
            for track, members in tracks.items():
                mean = np.mean(members, axis=0)
                pairs += [(float(v @ mean / np.linalg.norm(mean)), track, k) for k, v in enumerate(vectors)]
            expected = {}
            for cosine, track, k in sorted(pairs, reverse=True):
                if cosine >= 0.2 and k not in expected and track not in expected.values():
                    expected[k] = track
            linked += len(expected)
            for k in range(number):
                expected.setdefault(k, max([*tracks, *expected.values()], default=0) + 1)
            for k, vector in enumerate(vectors):
                tracks.setdefault(expected[k], []).append(vector)
            assert ours.update(vectors) == [expected[k] for k in range(number)]
        assert linked > 30
        assert len(tracks) > 5

    def test_patience(self, tracker):
        one, none = np.array([[1.0, 0.0]]), np.empty((0, 2))
        for absent, expected in ((3, [1]), (4, [2])):
            ours = tracker.Tracker(patience=4)
            assert ours.update(one) == [1]
            for _ in range(absent):
                assert ours.update(none) == []
            assert ours.update(one) == expected

    @pytest.mark.parametrize(
        ('rows', 'message'),
        [
            ([['frame', 'x', 'y', 'w'], ['0.png', 1, 1, 5]], 'boxes.csv: no column h; it needs frame,x,y,w,h'),
            ([], 'no column frame, x, y, w, h'),
            ([[1, 'two', 3, 4]], 'boxes.csv, line 2: frame,x,y,w,h must be numbers'),
            ([[1, 2, 3, 4], [1, 2, 3]], 'line 3: frame,x,y,w,h must be numbers'),
        ],
    )
    def test_wrong_boxes(self, call, tmp_path, run_folder, rows, message):
        (tmp_path / 'frames').mkdir()
        Image.new('RGB', (64, 48)).save(tmp_path / 'frames/0.png')
        if rows and rows[0][0] != 'frame':
            rows = [['frame', 'x', 'y', 'w', 'h'], *([f'{0}.png', *row] for row in rows)]
        boxes = write(tmp_path / 'boxes.csv', rows)
        options = ['--frames', tmp_path / 'frames', '--boxes', boxes, '--out', tmp_path / 'tracks.csv']
        refused(call('tracker', *options, '--model', run_folder), 'tracker', message)
        assert not (tmp_path / 'tracks.csv').exists()

    @pytest.mark.parametrize('inside', [[[30, 20, 9, 9], [60, 40, 50, 50], [-7, -7, 9, 9]], []])
    def test_bad_boxes_are_left_out(self, call, tmp_path, run_folder, inside):
        (tmp_path / 'frames').mkdir()
        Image.new('RGB', (64, 48), 'red').save(tmp_path / 'frames/0.png')
        outside = [[70, 2, 9, 9], [64, 0, 1, 1], [-9, 2, 9, 9], [2, 48, 3, 3], ['nan', 'inf', 3, 0]]
        rows = [['0.png', *box] for box in [*outside[:2], *inside, *outside[2:]]]
        boxes = write(tmp_path / 'boxes.csv', [['frame', 'x', 'y', 'w', 'h'], *rows])
        options = ['--frames', tmp_path / 'frames', '--boxes', boxes, '--out', tmp_path / 'tracks.csv']
        status, printed, errors = call('tracker', *options, '--model', run_folder, *SIMILAR)
        assert (status, errors) == (0, '5 boxes are damaged or outside of their frame and were left out\n')
        assert printed.startswith(f'{len(inside)} detections in 1 frames')
        kept = [[int(row[column]) for column in 'xywh'] for row in read(tmp_path / 'tracks.csv')]
        assert kept == inside

    def test_wrong_places(self, call, demo, tmp_path, run_folder, monkeypatch):
        folder, _ = demo
        monkeypatch.chdir(tmp_path)
        frames, boxes, model = (
            ['--frames', folder / 'frames'],
            ['--boxes', folder / 'boxes.csv'],
            ['--model', run_folder, *SIMILAR],
        )
        refused(call('tracker', *frames, '--boxes', 'none.csv', *model), 'tracker', 'none.csv')
        refused(call('tracker', '--frames', 'none', *boxes, *model), 'tracker', 'none')
        refused(call('tracker', *frames, *boxes, '--model', folder), 'tracker', 'no model in this folder')
        refused(call('tracker', *frames, *boxes, '--model', 'dpa_resnet19'), 'tracker', 'dpa_resnet19')
        refused(call('tracker', *frames, *boxes, *model, '--out', 'none/a.csv'), 'tracker', 'none: no such folder')
        other = write(tmp_path / 'other.csv', [['frame', 'x', 'y', 'w', 'h'], ['9.png', 1, 1, 5, 5]])
        refused(call('tracker', *frames, '--boxes', other, *model), 'tracker', 'line 2: there is no frame 9.png')
        (tmp_path / 'mine/frames').mkdir(parents=True)
        refused(call('tracker', '--demo', 'mine', *model), 'tracker', 'mine/frames')
        with pytest.raises(SystemExit) as ended:
            call('tracker', *frames)
        assert ended.value.code == 2

    def test_error_of_the_process(self, tmp_path):
        done = program('tracker', '--frames', 'frames', '--boxes', 'boxes.csv', cwd=tmp_path)
        refused((done.returncode, done.stdout, done.stderr), 'tracker', 'frames')
