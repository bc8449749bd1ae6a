"""The programs of examples/, run as a user runs them; numbers are compared with FeatureExtractor and by brute force."""

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.support.models import TINY, tiny
from timm_dpa.embedding.export import export_model
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder

FOLDER = Path(__file__).parents[1] / 'examples'
PROGRAMS = sorted(path.stem for path in FOLDER.glob('*.py'))
SIZE = (64, 96)  # sides that differ cannot be confused


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    """What `timm-dpa train` leaves behind, as far as a model goes."""
    folder = tmp_path_factory.mktemp('runs') / 'dpa'
    folder.mkdir()
    recipe = ModelRecipe(name='dpa_resnet18', args={key: list(value) for key, value in TINY.items()})
    save_model_folder(recipe, SIZE, tiny('dpa').state_dict(), folder / 'model')
    return folder


@pytest.fixture(scope='module')
def extractor(run_folder):
    return FeatureExtractor(f'local-dir:{run_folder / "model"}', device='cpu', precision='fp32')


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    """Drawn vehicles of several sizes, among them a gray one, a palette, and one that its EXIF data turn."""
    folder = tmp_path_factory.mktemp('data') / 'crops'
    folder.mkdir()
    for k in range(5):
        draw_vehicle(k, k).resize((60 + 30 * k, 150 - 20 * k)).save(folder / f'{k}.png')
    draw_vehicle(5, 0).convert('L').save(folder / 'gray.png')
    draw_vehicle(6, 0).quantize(64).save(folder / 'palette.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_vehicle(7, 0).resize((150, 70)).save(folder / 'turned.jpg', exif=exif)
    return folder


@pytest.fixture(scope='module')
def onnx_file(extractor, tmp_path_factory):
    path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    export_model(extractor.model, path)
    return path


def program(name: str, *arguments, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(FOLDER / f'{name}.py'), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def load(name: str):
    if name == 'transformers_pipeline':
        pytest.importorskip('transformers')
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tracker():
    return load('tracker')


@pytest.fixture(scope='module')
def demo(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tracker')
    done = program('tracker', '--demo', 'drawn', '--model', run_folder, cwd=folder)
    assert (done.returncode, done.stderr) == (0, '')
    return folder / 'drawn', done.stdout


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """Environment of a process in which only onnxruntime, Pillow and numpy are to be had."""
    folder = tmp_path_factory.mktemp('bare')
    code = "import sys\nfor name in ('torch', 'torchvision', 'timm', 'timm_dpa'):\n    sys.modules[name] = None\n"
    (folder / 'sitecustomize.py').write_text(code)
    environment = {'PYTHONPATH': str(folder)}
    for name in ('torch', 'timm_dpa'):
        done = subprocess.run(
            [sys.executable, '-c', f'import {name}'],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 'ModuleNotFoundError' in done.stderr
    return environment


@pytest.fixture(scope='module')
def gallery(bare, crops, onnx_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp('gallery')
    done = program('onnx_service', 'embed', onnx_file, crops, '--out', 'crops.npz', cwd=folder, **bare)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == '8 images, embeddings of 128 numbers: crops.npz\n'
    return folder / 'crops.npz'


@pytest.fixture
def call(monkeypatch, capsys):
    """The same in this process, which has timm loaded: (status, stdout, stderr)."""

    def call(name, *arguments, module=None):
        module = module or load(name)
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        capsys.readouterr()
        return module.main(), *capsys.readouterr()

    return call


def refused(result, name: str, message: str) -> None:
    status, printed, errors = result
    assert (status, printed) == (2, '')
    assert re.fullmatch(rf'{name}\.py: .*{message}.*\n', errors), errors


def read(path: Path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[list]) -> Path:
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize('name', PROGRAMS)
class TestAll:
    def test_the_command_line_is_not_imported(self, name):
        """Examples show the library; the command line has no interface for programs."""
        assert 'timm_dpa.cli' not in (FOLDER / f'{name}.py').read_text()

    def test_help_says_what_is_needed_and_how_to_run_it(self, name, call, capsys):
        with pytest.raises(SystemExit) as ended:
            call(name, '--help')
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert 'pip install' in printed
        assert f'python examples/{name}.py ' in printed

    def test_examples_of_the_docstring_are_understood(self, name, call, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        module = load(name)
        examples = re.findall(rf'^    python examples/{name}\.py (.*)$', module.__doc__, flags=re.M)
        assert len(examples) == 2
        for example in examples:  # wrong use would be a SystemExit, here only files are missing
            refused(call(name, *shlex.split(example), module=module), name, '')


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
        status, printed, _ = call('tracker', *options)
        assert (status, printed.count('\n')) == (0, 1)
        assert out.read_text() == (folder / 'tracks.csv').read_text()

    def test_one_call_a_frame_and_the_right_vehicles(self, tracker, call, tmp_path, monkeypatch):
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
        calls = []

        class Extractor:
            def __init__(self, model):
                assert model == 'dpa_resnet50'

            def __call__(self, crops):
                calls.append([crop.shape for crop in crops])
                vectors = np.array([crop.reshape(-1, 3).mean(0) / 200 for crop in crops], np.float32)
                return vectors.reshape(-1, 3)

        monkeypatch.setattr(tracker, 'FeatureExtractor', Extractor)
        boxes, out = write(tmp_path / 'boxes.csv', rows), tmp_path / 'tracks.csv'
        status, printed, _ = call(
            'tracker', '--frames', tmp_path / 'frames', '--boxes', boxes, '--out', out, module=tracker
        )
        assert status == 0
        assert printed.endswith('3 vehicles; right links: 4 of 4 from frame to frame, 3 of 3 after an absence\n')
        assert calls == [[(8, 9, 3)] * len(scene) for scene in scenes]
        assert ''.join('RGB'[int(row['track']) - 1] for row in read(out)) == ''.join(scenes)

    def test_crops_are_what_of_a_box_lies_in_the_frame(self, tracker):
        rng = np.random.default_rng(0)
        frame = rng.integers(0, 256, (12, 17, 3), np.uint8)
        corners = rng.integers(-9, 19, (200, 2)), rng.integers(1, 30, (200, 2))
        outside = 0
        for box in np.concatenate(corners, axis=1).tolist():
            x, y, w, h = box
            rows = [i for i in range(12) if y <= i < y + h]
            columns = [j for j in range(17) if x <= j < x + w]
            if not rows or not columns:
                outside += 1
                assert tracker.cut(frame, [box])[0].size == 0
                continue
            expected = frame[np.ix_(rows, columns)]
            np.testing.assert_array_equal(tracker.cut(frame, [box])[0], expected)
            np.testing.assert_array_equal(tracker.cut(frame, [box], bgr=True)[0], expected[..., [2, 1, 0]])
        assert 5 < outside < 100
        assert tracker.cut(frame, []) == []

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
            ([[1, 'two', 3, 4]], 'boxes.csv, line 2: x,y,w,h must be numbers'),
            ([[1, 2, 3]], 'line 2: x,y,w,h must be numbers'),
            ([[1, 2, 3, 4], [1, 2, 0, 4]], 'line 3: .* above 0'),
            ([[1, 2, 'inf', 4]], 'line 2: .* must be numbers'),
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

    @pytest.mark.parametrize('inside', [[[30, 20, 9, 9], [60, 40, 50, 50], [-8, -8, 9, 9]], []])
    def test_boxes_outside_of_the_frame_are_left_out(self, call, tmp_path, run_folder, inside):
        (tmp_path / 'frames').mkdir()
        Image.new('RGB', (64, 48), 'red').save(tmp_path / 'frames/0.png')
        outside = [[70, 2, 9, 9], [64, 0, 1, 1], [-9, 2, 9, 9], [2, 48, 3, 3], [5, -20, 3, 3]]
        rows = [['0.png', *box] for box in [*outside[:2], *inside, *outside[2:]]]
        boxes = write(tmp_path / 'boxes.csv', [['frame', 'x', 'y', 'w', 'h'], *rows])
        options = ['--frames', tmp_path / 'frames', '--boxes', boxes, '--out', tmp_path / 'tracks.csv']
        status, printed, errors = call('tracker', *options, '--model', run_folder)
        assert (status, errors) == (0, '5 boxes are outside of their frame and were left out\n')
        assert printed.startswith(f'{len(inside)} detections in 1 frames')
        kept = [[int(row[column]) for column in 'xywh'] for row in read(tmp_path / 'tracks.csv')]
        assert kept == inside

    def test_wrong_places(self, call, demo, tmp_path, run_folder, monkeypatch):
        folder, _ = demo
        monkeypatch.chdir(tmp_path)
        frames, boxes, model = (
            ['--frames', folder / 'frames'],
            ['--boxes', folder / 'boxes.csv'],
            ['--model', run_folder],
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


class TestTransformersPipeline:
    """TimmWrapper on a folder of ours."""

    #: float32 sums in another order; the weights and pixels are equal
    TOLERANCE = 1e-5

    def test_same_embeddings_as_the_extractor(self, crops, run_folder, extractor, tmp_path):
        pytest.importorskip('transformers')
        done = program(
            'transformers_pipeline', crops, '--model', run_folder, '--out', 'a.npy', '--compare', cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        files = sorted(map(str, crops.iterdir()))
        expected = extractor(files)
        vectors = np.load(tmp_path / 'a.npy')
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=self.TOLERANCE)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.abs(expected - expected.mean(0)).max() > 100 * self.TOLERANCE  # the images do differ
        *nearest, count, compared = done.stdout.splitlines()
        similarity = expected.astype(np.float64) @ expected.T.astype(np.float64) - 2 * np.eye(len(files))
        for file, line, row in zip(files, nearest, similarity, strict=True):
            found, cosine = re.fullmatch(rf'{re.escape(file)}: most similar is (.*), (\S+)', line).groups()
            assert float(cosine) == pytest.approx(row.max(), abs=1e-4)
            assert row[files.index(found)] == pytest.approx(row.max(), abs=1e-5)
        assert count == '8 images, embeddings of 128 numbers: a.npy'
        printed = float(compared.removeprefix('largest difference from timm_dpa.FeatureExtractor: '))
        assert printed == pytest.approx(np.abs(vectors - expected).max(), abs=1e-6)

    def test_num_classes_must_not_be_in_the_arguments_of_the_model(self, call, crops, run_folder, tmp_path):
        """Why `save_model_folder` takes it out of what timm writes."""
        folder = tmp_path / 'model'
        shutil.copytree(run_folder / 'model', folder)
        config = json.loads((folder / 'config.json').read_text())
        config['model_args']['num_classes'] = 0
        (folder / 'config.json').write_text(json.dumps(config))
        result = call('transformers_pipeline', crops, '--model', folder)
        refused(result, 'transformers_pipeline', "multiple values for keyword argument 'num_classes'")

    def test_wrong_use(self, call, crops, run_folder, tmp_path):
        module, name = load('transformers_pipeline'), 'transformers_pipeline'
        image, text = crops / '0.png', tmp_path / 'a.png'
        text.write_text('text')

        def wrong(message, *arguments):
            refused(call(name, *arguments, module=module), name, message)

        wrong('none.jpg: no such file or folder', 'none.jpg', '--model', run_folder)
        wrong('none: no such folder, and no org/name', image, '--model', 'none')
        wrong('no model in this folder', image, '--model', crops)
        wrong('must end in .npy', image, '--model', run_folder, '--out', tmp_path / 'a.csv')
        wrong('no such folder', image, '--model', run_folder, '--out', tmp_path / 'b/a.npy')
        wrong('cannot identify image file', text, '--model', run_folder)


class TestOnnxService:
    def test_same_embeddings_as_the_extractor(self, gallery, crops, extractor):
        with np.load(gallery) as file:
            vectors, names = file['vectors'], file['names'].tolist()
        assert names == sorted(map(str, crops.iterdir()))
        expected = extractor(names)
        assert vectors.dtype == np.float32
        assert (vectors * expected).sum(1).min() > 0.9999
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)

    def test_pixels_are_those_of_timm(self, onnx_file, crops, extractor, tmp_path):
        """Also of a transparent image, whose hidden colors must not show."""
        rgba = np.dstack([np.asarray(draw_vehicle(3, 0)), np.full((128, 128), 255, np.uint8)])
        rgba[:40, :, 3] = 0
        rgba[40:60, :, 3] = 99
        Image.fromarray(rgba).save(tmp_path / 'clear.png')
        embedder = load('onnx_service').Embedder(str(onnx_file))
        for path in [*crops.iterdir(), tmp_path / 'clear.png']:
            (item,) = extractor_items(path)
            expected = (extractor.transform(item).float() - extractor.mean[0]) / extractor.std[0]
            with Image.open(path) as image:
                np.testing.assert_allclose(embedder.prepare(image), expected.numpy(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize('stored', [True, False])
    def test_search_ranks_the_gallery(self, bare, gallery, crops, onnx_file, extractor, tmp_path, stored):
        query = tmp_path / 'query.png'
        draw_vehicle(2, 9).save(query)
        options = ['--query', query, '--gallery', gallery if stored else crops, '--top', 5]
        done = program('onnx_service', 'search', onnx_file, *options, cwd=tmp_path, **bare)
        assert (done.returncode, done.stderr) == (0, '')
        first, *lines = done.stdout.splitlines()
        assert first == str(query)
        names = sorted(map(str, crops.iterdir()))
        cosines = dict(zip(names, (extractor(names) @ extractor(query)[0]).tolist(), strict=True))
        ranks, similarities, found = zip(*(line.split() for line in lines), strict=True)
        assert ranks == ('1', '2', '3', '4', '5')
        assert list(found) == sorted(names, key=cosines.get, reverse=True)[:5]
        assert [float(s) for s in similarities] == pytest.approx([cosines[name] for name in found], abs=1e-4)

    def test_crops_of_a_request(self, onnx_file, extractor):
        embedder = load('onnx_service').Embedder(str(onnx_file))
        images = [draw_vehicle(k, 1).crop((0, 0, 60 + k, 80)) for k in range(40)]
        np.testing.assert_allclose(embedder(images), extractor(images), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ('entries', 'message'),
        [
            ({'crop_mode': '"center"'}, 'wants other images'),
            ({'crop_pct': '0.9'}, 'wants other images'),
            ({'input_size': '[1, 64, 96]'}, 'wants other images'),
            ({'interpolation': '"random"'}, 'wants other images'),
            ({'mean': None}, 'no metadata of timm-dpa'),
            ({'model': '"another one"'}, r'crops\.npz: made by another model'),
        ],
    )
    def test_other_models(self, call, onnx_file, gallery, crops, tmp_path, entries, message):
        model = onnx.load(onnx_file)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        changed = {key: value for key, value in {**properties, **entries}.items() if value is not None}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, changed)
        onnx.save(model, tmp_path / 'other.onnx')
        options = ['--query', crops / '0.png', '--gallery', gallery]
        refused(call('onnx_service', 'search', tmp_path / 'other.onnx', *options), 'onnx_service', message)

    def test_wrong_use(self, call, onnx_file, gallery, crops, tmp_path, bare):
        name, image = 'onnx_service', crops / '0.png'
        (tmp_path / 'empty').mkdir()
        text = tmp_path / 'text.jpg'
        text.write_text('text')
        deep = tmp_path / 'deep.png'
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(deep)

        def wrong(message, *arguments):
            refused(call(name, *arguments), name, message)

        out = ['--out', tmp_path / 'a.npz']
        wrong('none.onnx', 'embed', tmp_path / 'none.onnx', image, *out)
        wrong('text.jpg: no model that onnxruntime can load', 'embed', text, image, *out)
        wrong('none.png', 'embed', onnx_file, image, tmp_path / 'none.png', *out)
        wrong('empty: no images', 'embed', onnx_file, tmp_path / 'empty', *out)
        wrong('text.jpg: cannot identify', 'embed', onnx_file, image, text, *out)
        wrong('deep.png: more than 8 bits', 'embed', onnx_file, deep, *out)
        wrong(r'must end in \.npz', 'embed', onnx_file, image, '--out', tmp_path / 'a.csv')
        wrong('folder that exists', 'embed', onnx_file, image, '--out', tmp_path / 'none/a.npz')
        wrong('none: neither a folder', 'search', onnx_file, '--query', image, '--gallery', tmp_path / 'none')
        wrong('text.jpg: neither a folder', 'search', onnx_file, '--query', image, '--gallery', text)
        wrong('at least 1, not 0', 'search', onnx_file, '--query', image, '--gallery', gallery, '--top', 0)
        assert not (tmp_path / 'a.npz').exists()
        done = program(name, 'embed', tmp_path / 'none.onnx', image, *out, cwd=tmp_path, **bare)
        refused((done.returncode, done.stdout, done.stderr), name, 'none.onnx')


def extractor_items(path: Path) -> list[Image.Image]:
    """The image as FeatureExtractor decodes it."""
    from timm_dpa.embedding.images import iter_images, load_rgb

    return [load_rgb(item) for item in iter_images(path)]
