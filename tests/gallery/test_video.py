"""Boxes of a video in a gallery: as in an embeddings file, resumed, with tracks, times and pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support import sequences
from tests.support.extractors import SIZE, make_model
from timm_dpa.cli.main import main
from timm_dpa.embedding.box_embeddings import embed_boxes_to_file
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.images import ImageError
from timm_dpa.gallery.filters import Filter, parse_time
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.ingest_boxes import embed_boxes_to_gallery
from timm_dpa.gallery.rows import COLUMNS

TRACKS = range(3)


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor(make_model(), precision='fp32', image_size=SIZE, batch_size=8)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A video of six frames, with boxes of a tracker, of which one is outside, and of a detector."""
    folder = tmp_path_factory.mktemp('boxes')
    sequences.write_video(folder / 'clip.mp4', range(6), TRACKS)
    rows = [(*row, 1) for row in sequences.boxes(range(6), TRACKS)]
    sequences.write_rows(folder / 'tracks.txt', rows)
    sequences.write_rows(folder / 'outside.txt', [*rows, (3, 7, 2000, 0, 16, 12, 1)])
    sequences.write_rows(folder / 'few.txt', [row for row in rows if row[0] < 3])
    return folder


def embed(extractor, place, gallery, boxes='tracks.txt', **options):
    return embed_boxes_to_gallery(extractor, place / 'clip.mp4', place / boxes, gallery, **options)


def test_as_in_a_file(place, extractor, tmp_path):
    embed_boxes_to_file(extractor, place / 'clip.mp4', place / 'tracks.txt', tmp_path / 'v.safetensors')
    stored = load_embeddings(tmp_path / 'v.safetensors')
    start = parse_time('2026-05-01T10:00:00Z', 'start')
    with Gallery(tmp_path / 'g', origin=extractor.describe(), create=True) as gallery:
        report = embed(extractor, place, gallery, camera='north', start=start)
        assert (report.embedded, report.unchanged, report.failures) == (18, 0, {})
        rows = {row.key: row for row in gallery.rows(columns=COLUMNS)}
    seen = stored.sightings
    for k, vector in enumerate(stored.vectors):
        row = rows[f'{place / "clip.mp4"}#{seen.frames[k]}/{seen.tracks[k]}']
        np.testing.assert_allclose(row.vector, vector, atol=1e-5)
        assert (row.camera, row.track) == ('north', f'clip_{seen.tracks[k]}')
        assert row.time == start + round(1000 * seen.times[k])
        np.testing.assert_allclose(row.box, seen.boxes[k])
        assert Image.open(io.BytesIO(row.thumbnail)).size == (16, 12)


def test_resumes(place, extractor, tmp_path):
    with Gallery(tmp_path / 'g', origin=extractor.describe(), create=True) as gallery:
        assert embed(extractor, place, gallery, 'few.txt').embedded == 9
        assert (lambda r: (r.embedded, r.unchanged))(embed(extractor, place, gallery)) == (9, 9)
        assert (lambda r: (r.embedded, r.unchanged))(embed(extractor, place, gallery)) == (0, 18)
        assert len(gallery) == 18


def test_a_box_outside_of_its_frame(place, extractor, tmp_path):
    with Gallery(tmp_path / 'g', origin=extractor.describe(), create=True) as gallery:
        report = embed(extractor, place, gallery, 'outside.txt')
        assert len(gallery) == 18
        assert len(report.failures) == 1
        assert all('frame 3, track 7' in reason for reason in report.failures.values())
        with pytest.raises(ImageError, match='frame 3, track 7'):
            embed(extractor, place, gallery, 'outside.txt', on_error='raise')


def test_command(place, tmp_path, capsys):
    words = ['embed', '--video', str(place / 'clip.mp4'), '--boxes', str(place / 'tracks.txt')]
    words += ['--gallery', str(tmp_path / 'g'), '--camera', 'north', '--time', '2026-05-01T10:00:00Z']
    model = ['--model', 'dpa_resnet18', '--image-size', '64', '--precision', 'fp32', '--device', 'cpu']
    assert main([*words, *model]) == 0
    assert '18 boxes embedded' in capsys.readouterr().out
    with Gallery(tmp_path / 'g') as gallery:
        assert gallery.count(Filter(tracks=['clip_1'])) == 6
    assert main([*words, *model, '--track', 'a']) == 2
    assert '--track, --table and --layout are for images' in capsys.readouterr().err
