"""Embeddings of the boxes of a video: as those of its crops, with track and time, resumed, searched and drawn."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.support import sequences
from tests.support.extractors import SIZE, make_model
from timm_dpa.cli.main import main
from timm_dpa.embedding.box_embeddings import embed_boxes_to_file
from timm_dpa.embedding.boxes import crop_boxes
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.images import ImageError
from timm_dpa.embedding.tracks import cut_pictures, quality, track_gallery, tracklet_vectors
from timm_dpa.embedding.video import open_frames

TRACKS = range(3)
MODEL = ['--model', 'dpa_resnet18', '--image-size', '64', '--precision', 'fp32', '--device', 'cpu']


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor(make_model(), precision='fp32', image_size=SIZE, batch_size=8)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A video with boxes of a tracker from frame 0, one of which is outside, and the same frames in a folder."""
    folder = tmp_path_factory.mktemp('boxes')
    sequences.write_video(folder / 'clip.mp4', range(6), TRACKS)
    sequences.write_frames(folder / 'frames', range(6), TRACKS)
    rows = [(*row, (0.9, 0.5, 1)[row[1]]) for row in sequences.boxes(range(6), TRACKS)]
    sequences.write_rows(folder / 'tracks.txt', rows)
    sequences.write_rows(folder / 'outside.txt', [*rows, (3, 7, 200, 0, 16, 12, 1)])
    return folder


@pytest.fixture(scope='module')
def stored(place, extractor):
    embed_boxes_to_file(extractor, place / 'clip.mp4', place / 'tracks.txt', place / 'v.safetensors')
    return load_embeddings(place / 'v.safetensors')


class TestFile:
    def test_as_the_crops(self, place, stored, extractor):
        expected, names = [], []
        for frame in open_frames(place / 'clip.mp4', first=0).read(set(range(6))):
            for track in TRACKS:
                x, y = sequences.place(track, frame.number)
                ((crop,), _) = crop_boxes(frame.pixels, [[x, y, x + 16, y + 12]], color='rgb')
                expected.append(extractor([crop])[0])
                names.append(f'{place / "clip.mp4"}#frame={frame.number}&track={track}')
        assert stored.names == names
        np.testing.assert_allclose(stored.vectors, expected, atol=1e-5)
        seen = stored.sightings
        assert seen.tracks == ['0', '1', '2'] * 6
        np.testing.assert_array_equal(seen.frames, np.repeat(range(6), 3))
        np.testing.assert_allclose(seen.times, np.repeat(range(6), 3) / 10)
        np.testing.assert_array_equal(seen.boxes[4], [*sequences.place(1, 1), *np.add(sequences.place(1, 1), (16, 12))])
        np.testing.assert_allclose(seen.scores, [0.9, 0.5, 1] * 6)

    def test_a_folder_and_a_bad_box(self, place, extractor, tmp_path):
        out = tmp_path / 'f.safetensors'
        report = embed_boxes_to_file(extractor, place / 'frames', place / 'outside.txt', out, rate=2)
        assert (report.total, report.embedded, len(report.failures)) == (18, 18, 1)
        assert 'frame=3&track=7: the box is outside of the frame' in report.failures_file.read_text()
        seen = load_embeddings(out).sightings
        np.testing.assert_allclose(np.unique(seen.times), np.arange(6) / 2)
        with pytest.raises(ImageError, match='the box is outside of the frame'):
            embed_boxes_to_file(extractor, place / 'frames', place / 'outside.txt', tmp_path / 'r', on_error='raise')

    def test_resumes_and_sees_that_boxes_moved(self, place, extractor, tmp_path):
        out = tmp_path / 'v.safetensors'
        first = sequences.write_rows(tmp_path / 'boxes.txt', sequences.boxes(range(3), TRACKS))
        embed_boxes_to_file(extractor, place / 'clip.mp4', first, out)
        rows = [list(row) for row in sequences.boxes(range(5), TRACKS)]
        rows[0][2] += 3
        report = embed_boxes_to_file(extractor, place / 'clip.mp4', sequences.write_rows(first, rows), out)
        assert (report.total, report.embedded) == (15, 7)  # two frames more, and the box that moved
        stored = load_embeddings(out)
        assert np.isfinite(stored.sightings.times).all()
        embed_boxes_to_file(extractor, place / 'clip.mp4', first, tmp_path / 'w.safetensors')
        whole = load_embeddings(tmp_path / 'w.safetensors')
        np.testing.assert_allclose(stored.vectors, whole.vectors, atol=1e-5)
        np.testing.assert_array_equal(stored.sightings.times, whole.sightings.times)
        with pytest.raises(ValueError, match='made with margin 0'):
            embed_boxes_to_file(extractor, place / 'clip.mp4', first, out, margin=0.2)

    def test_tables(self, place, extractor, stored, tmp_path):
        for name in ('v.csv', 'v.npy'):
            embed_boxes_to_file(extractor, place / 'clip.mp4', place / 'tracks.txt', tmp_path / name)
        with open(tmp_path / 'v.csv', newline='') as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:10] == ['image', 'track', 'frame', 'time', 'x1', 'y1', 'x2', 'y2', 'score', 'e0']
        assert [row['track'] for row in rows] == stored.sightings.tracks
        np.testing.assert_allclose([float(row['time']) for row in rows], stored.sightings.times)
        np.testing.assert_allclose([float(row['e0']) for row in rows], stored.vectors[:, 0], atol=1e-6)
        with open(tmp_path / 'v.boxes.csv', newline='') as file:
            beside = list(csv.DictReader(file))
        assert [row['image'] for row in beside] == json.loads((tmp_path / 'v.names.json').read_text())
        assert [float(row['score']) for row in beside] == pytest.approx(stored.sightings.scores.tolist())
        parquet = pytest.importorskip('pyarrow.parquet')
        embed_boxes_to_file(extractor, place / 'clip.mp4', place / 'tracks.txt', tmp_path / 'v.parquet')
        table = parquet.read_table(tmp_path / 'v.parquet').to_pydict()
        assert table['track'] == stored.sightings.tracks
        np.testing.assert_allclose(table['x2'], stored.sightings.boxes[:, 2])

    def test_files_without_boxes_stay_readable(self, place, stored, tmp_path):
        from safetensors import safe_open

        tensors = load_file(place / 'v.safetensors')
        with safe_open(place / 'v.safetensors', 'numpy') as file:
            metadata = file.metadata()
        old = {key: tensors[key] for key in ('embeddings', 'names', 'stamps')}
        save_file(old, tmp_path / 'old.safetensors', metadata)
        assert load_embeddings(tmp_path / 'old.safetensors').sightings is None
        save_file({**tensors, 'frames': tensors['frames'][:3]}, tmp_path / 'bad.safetensors', metadata)
        with pytest.raises(ValueError, match='another number of tracks or boxes than of names'):
            load_embeddings(tmp_path / 'bad.safetensors')

    def test_refused(self, place, extractor, tmp_path):
        late = sequences.write_rows(tmp_path / 'late.txt', [(0, 1, 4, 4, 16, 12), (60, 1, 4, 4, 16, 12)])
        with pytest.raises(ValueError, match=r'has 6 frames, 0 to 5; the boxes name frame 60'):
            embed_boxes_to_file(extractor, place / 'clip.mp4', late, tmp_path / 'v')
        named = sequences.write_rows(tmp_path / 'n.csv', [('b.png', 1, 4, 4, 16, 12)], header='frame,id,x,y,w,h')
        for source, message in (('frames', 'there is no frame b in'), ('clip.mp4', 'there is no frame b in')):
            with pytest.raises(ValueError, match=message):
                embed_boxes_to_file(extractor, place / source, named, tmp_path / 'v')
        assert sorted(path.name for path in tmp_path.iterdir()) == ['late.txt', 'n.csv']


class TestTracks:
    def test_weighted_mean(self):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(7, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        tracks, weights = ['b', 'a', 'b', 'c', 'a', 'b', 'c'], np.array([1, 2, 0.5, 0, 3, 0.25, 0])
        names, means = tracklet_vectors(vectors.astype(np.float32), tracks, weights)
        assert names == ['b', 'a', 'c']
        for name, mean in zip(names, means, strict=True):
            total = sum(
                (w if name != 'c' else 1) * v for v, w, t in zip(vectors, weights, tracks, strict=True) if t == name
            )
            np.testing.assert_allclose(mean, total / np.linalg.norm(total), atol=1e-6)
        assert means.dtype == np.float32

    @pytest.mark.parametrize(
        ('vectors', 'tracks', 'weights', 'message'),
        [
            (np.eye(2), [1], None, 'give one each'),
            (np.eye(2), [1, 1], [1, -1], 'finite numbers from 0'),
            (np.eye(2), [1, 1], [1, np.nan], 'finite numbers from 0'),
            ([[1.0, 0], [-1.0, 0]], [1, 1], None, 'add up to nothing'),
        ],
    )
    def test_refused(self, vectors, tracks, weights, message):
        with pytest.raises(ValueError, match=message):
            tracklet_vectors(np.asarray(vectors), tracks, weights)

    def test_quality(self):
        boxes = np.array([[0, 0, 32, 32], [0, 0, 64, 64], [0, 0, 200, 100], [0, 0, 16, 64]], float)
        np.testing.assert_allclose(quality(boxes, np.array([1, 0.5, 2, 1])), [0.5, 0.5, 1, 0.5])
        angle = 0.4
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners = (np.array([[0, 0], [16, 0], [16, 64], [0, 64]]) @ turn).reshape(1, 8)
        np.testing.assert_allclose(quality(corners, np.ones(1)), [0.5])

    def test_gallery(self, stored, place):
        found = track_gallery(stored)
        assert found.names == [f'{place / "clip.mp4"}#track={track}' for track in TRACKS]
        assert found.images.tolist() == [6, 6, 6]
        np.testing.assert_allclose(found.first, [0, 0, 0])
        np.testing.assert_allclose(found.last, [0.5, 0.5, 0.5])
        mean = stored.vectors[1::3].sum(axis=0)
        np.testing.assert_allclose(found.vectors[1], mean / np.linalg.norm(mean), atol=1e-6)

    def test_pictures_come_from_the_video(self, stored, place, tmp_path):
        pictures = cut_pictures(stored, [1, 16, 4])
        assert set(pictures) == {1, 4, 16}
        for picture in pictures.values():
            assert np.abs(np.asarray(picture, float) - sequences.texture(1)).mean() < 40
        stored = load_embeddings(place / 'v.safetensors')
        stored.names = [name.replace('clip.mp4', 'moved.mp4') for name in stored.names]
        assert cut_pictures(stored, [1]) == {}


@pytest.fixture(scope='module')
def embedded(place):
    words = ['--boxes', str(place / 'tracks.txt'), '--out', str(place / 'c.safetensors'), *MODEL]
    assert main(['embed', '--video', str(place / 'clip.mp4'), *words]) == 0
    return place / 'c.safetensors'


class TestCommands:
    def test_search_shows_track_and_time(self, place, embedded, capsys, tmp_path):
        query = tmp_path / 'car.png'
        Image.fromarray(sequences.texture(2)).save(query)
        words = ['search', '--query', str(query), '--gallery', str(embedded), *MODEL]
        capsys.readouterr()
        assert main([*words, '--top', '3', '--out', str(tmp_path / 's.csv'), '--figure', str(tmp_path / 'f.png')]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ['rank', 'similarity', 'track', 'time', 's', 'image']
        with open(tmp_path / 's.csv', newline='') as file:
            rows = list(csv.DictReader(file))
        assert {row['track'] for row in rows} == {'2'}
        assert all(float(row['time s']) == int(row['image'].split('=')[1].split('&')[0]) / 10 for row in rows)
        with Image.open(tmp_path / 'f.png') as figure:
            tile = np.asarray(figure.convert('RGB'))[28 + 18 : 28 + 126, 184:320]
        assert tile.std() > 20  # a picture and no gray tile
        assert main([*words, '--by', 'track', '--figure', str(tmp_path / 'g.png')]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ['rank', 'similarity', 'first', 's', 'last', 's', 'images', 'track']
        assert lines[2].split()[2:] == ['0.00', '0.50', '6', f'{place / "clip.mp4"}#track=2']
        assert len(lines) == 2 + 3 + 1

    @pytest.mark.parametrize(
        ('words', 'message'),
        [
            ([], 'give images, or --video FILE --boxes FILE'),
            (['a.jpg', '--video', 'clip.mp4', '--boxes', 'tracks.txt'], 'give images, or'),
            (['--video', 'clip.mp4'], 'give images, or'),
            (['a.jpg', '--boxes', 'tracks.txt'], 'give images, or'),
            (['--video', 'none.mp4', '--boxes', 'tracks.txt'], 'none.mp4: no such video'),
            (['--video', 'clip.mp4', '--boxes', 'none.txt'], 'none.txt: no such file of boxes'),
        ],
    )
    def test_wrong_use(self, place, capsys, monkeypatch, words, message):
        monkeypatch.chdir(place)
        assert main(['embed', *words, '--out', 'wrong.safetensors', *MODEL]) == 2
        assert message in capsys.readouterr().err
        assert not (place / 'wrong.safetensors').exists()

    def test_tracks_of_files_without_any(self, place, capsys, tmp_path):
        Image.fromarray(sequences.texture(2)).save(tmp_path / 'car.png')
        words = ['search', '--query', str(tmp_path / 'car.png'), '--by', 'track', *MODEL]
        assert main([*words, '--gallery', str(tmp_path)]) == 2
        assert 'is a folder of images; give the embeddings of a video' in capsys.readouterr().err
