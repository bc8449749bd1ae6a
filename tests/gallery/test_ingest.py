"""Images to a gallery: what is embedded, what is not embedded again, and what is known of each."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.embedding_runs import Stop, count_decoded, interrupt_after, make_extractor, names_of, write_crops
from timm_dpa.gallery.facts import Facts, FactsTable, read_facts
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.ingest import Record, add_records, embed_to_gallery
from timm_dpa.gallery.pictures import quality_of, thumbnail_of
from timm_dpa.gallery.rows import COLUMNS
from timm_dpa.gallery.tracklets import quality_mean


@pytest.fixture(scope='module')
def extractor():
    return make_extractor()


@pytest.fixture
def crops(tmp_path):
    return write_crops(tmp_path / 'crops')


@pytest.fixture
def gallery(tmp_path, extractor):
    return Gallery(tmp_path / 'day', origin=extractor.describe(), create=True, width=extractor.embedding_size)


def stored(gallery):
    return {row.key: row for row in gallery.rows(columns=COLUMNS)}


def test_rows(extractor, crops, gallery):
    report = embed_to_gallery(extractor, crops, gallery, facts=FactsTable(default=Facts('north', 5, 't')))
    assert (report.embedded, report.relabeled, report.unchanged) == (10, 0, 0)
    vectors = extractor(names_of(crops))
    for name, vector in zip(names_of(crops), vectors, strict=True):
        row = stored(gallery)[name]
        np.testing.assert_allclose(row.vector, vector, atol=1e-6)
        assert (row.camera, row.time, row.track, row.image) == ('north', 5, 't', name)
        assert (row.size, row.mtime_ns) == (os.stat(name).st_size, os.stat(name).st_mtime_ns)
        assert Image.open(io.BytesIO(row.thumbnail)).size == (40, 30)
        assert row.quality == pytest.approx(quality_of(Image.open(name)), abs=1e-6)


def test_day_two(crops, gallery, monkeypatch):
    """Only what is new or has changed is decoded; new facts are taken over; what is not named stays."""
    extractor = make_extractor()
    embed_to_gallery(extractor, crops, gallery)
    names = names_of(crops)
    Image.new('RGB', (30, 30), 'red').save(names[2])
    Image.new('RGB', (30, 30), 'blue').save(crops / 'new.png')
    os.remove(names[5])
    count_decoded(extractor, monkeypatch)
    facts = FactsTable({names[1]: Facts(camera='south', vehicle=7)})
    report = embed_to_gallery(extractor, crops, gallery, facts=facts)
    assert sorted(extractor.decoded) == [names[2], str(crops / 'new.png')]
    assert (report.embedded, report.relabeled, report.unchanged) == (2, 1, 7)
    rows = stored(gallery)
    assert len(rows) == 11
    assert (rows[names[1]].camera, rows[names[1]].vehicle) == ('south', 7)
    np.testing.assert_allclose(rows[names[2]].vector, extractor(names[2])[0], atol=1e-6)
    assert embed_to_gallery(extractor, crops, gallery).unchanged == 10


def test_resumed_after_an_interruption(crops, gallery, monkeypatch):
    extractor = make_extractor()
    safe = []
    with monkeypatch.context() as patch:
        interrupt_after(extractor, patch, 2)
        with pytest.raises(Stop):
            embed_to_gallery(extractor, crops, gallery, save_every=4, on_commit=safe.extend)
    assert sorted(safe) == sorted(stored(gallery)) == names_of(crops)[:8]
    count_decoded(extractor, monkeypatch)
    embed_to_gallery(extractor, crops, gallery)
    assert extractor.decoded == names_of(crops)[8:]


def test_image_that_vanishes(crops, gallery, monkeypatch):
    """Before it is read it is a failure; after it was decoded it is a row like others."""
    extractor = make_extractor()
    names = names_of(crops)
    inner = extractor._decode

    def decode(item):
        if item.name == names[3]:
            os.remove(names[3])
        tensor = inner(item)
        if item.name == names[4]:
            os.remove(names[4])
        return tensor

    monkeypatch.setattr(extractor, '_decode', decode)
    report = embed_to_gallery(extractor, crops, gallery)
    assert list(report.failures) == [names[3]]
    assert sorted(stored(gallery)) == [name for name in names if name != names[3]]
    assert Image.open(io.BytesIO(stored(gallery)[names[4]].thumbnail)).size == (40, 30)


def test_each_image_is_decoded_once(extractor, crops, gallery, monkeypatch):
    """And thumbnails, qualities and vectors are those of decoding for each of them."""
    opened = []
    with monkeypatch.context() as patch:
        inner = Image.open
        patch.setattr(Image, 'open', lambda source, *more: opened.append(str(source)) or inner(source, *more))
        embed_to_gallery(extractor, crops, gallery)
    assert sorted(opened) == names_of(crops)
    rows = stored(gallery)
    for name, vector in zip(names_of(crops), extractor(names_of(crops)), strict=True):
        with Image.open(name) as image:
            assert rows[name].thumbnail == thumbnail_of(image.convert('RGB'))
            assert rows[name].quality == np.float32(quality_of(image.convert('RGB')))
        np.testing.assert_array_equal(rows[name].vector, vector)


def test_table(tmp_path, crops):
    table = tmp_path / 'crops.csv'
    table.write_text(
        'path,camera,time,track,vehicle,box,other\n'
        'crops/0.png,north,2026-05-01T12:00:00+02:00,t1,12,1 2 30.5 40,x\n'
        f'{crops}/1.png,,2.5,,,,\n'
    )
    facts = FactsTable(read_facts(table, start=1000), Facts(camera='else', track='t9'))
    assert facts.of(crops / '0.png') == Facts('north', 1777629600000, 't1', 12, (1, 2, 30.5, 40))
    assert facts.of(crops / '1.png') == Facts('else', 3500, 't9')
    assert facts.of(crops / '2.png') == Facts('else', None, 't9')
    assert facts.missing(names_of(crops)) == 8


def test_table_of_crops(tmp_path):
    """As `timm-dpa crops` writes it."""
    table = tmp_path / 'crops.csv'
    table.write_text(
        'path,pid,sequence,frame,time,track,x,y,w,h,score\nmorning_3/morning_7.jpg,morning_3,morning,7,0.28,3,1,2,3,4,1\n'
    )
    (facts,) = read_facts(table).values()
    assert facts == Facts('morning', None, 'morning_3')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('image,camera\n', 'has no column path'),
        ('path,vehicle\na.jpg,red\n', "line 2: vehicle 'red' is no whole number"),
        ('path,time\na.jpg,noon\n', "line 2: time 'noon' is no time"),
        ('path,box\na.jpg,1 2 3\n', 'is not x1 y1 x2 y2'),
    ],
)
def test_table_refused(tmp_path, content, message):
    (tmp_path / 'bad.csv').write_text(content)
    with pytest.raises(ValueError, match=message):
        read_facts(tmp_path / 'bad.csv')


def test_records_of_a_video(tmp_path, gallery, extractor):
    video = tmp_path / 'north.mp4'
    video.write_bytes(b'video')
    pixels = np.full((30, 40, 3), 99, np.uint8)
    vectors = np.eye(extractor.embedding_size, dtype=np.float32)
    records = [
        Record(vectors[0], 7, 3, 0.25, (1, 2, 3, 4), pixels, vehicle=9),
        Record(np.zeros_like(vectors[0]), 7, 4, 0.25, (1, 2, 3, 4)),
        Record(vectors[1], 7, None, float('nan')),
        Record(vectors[2], 7, None),
    ]
    assert add_records(gallery, records, video, camera='north', start=1000).added == 3
    rows = stored(gallery)
    assert set(rows) == {f'{video}#7/3', f'{video}#7/box0', f'{video}#7/box1'}
    row = rows[f'{video}#7/3']
    assert (row.time, row.track, row.camera, row.vehicle, row.box) == (1250, 'north_3', 'north', 9, (1, 2, 3, 4))
    assert Image.open(io.BytesIO(row.thumbnail)).size == (40, 30)
    assert rows[f'{video}#7/box0'].time is None
    assert add_records(gallery, records, video, camera='north', start=1000).unchanged == 3
    assert gallery.count(Filter(tracks=['north_3'])) == 1


class TestPictures:
    def test_sharper_and_larger_is_better(self):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
        blurred = noise.filter(ImageFilter.GaussianBlur(4))
        assert quality_of(noise) > quality_of(noise.crop((0, 0, 40, 40))) > quality_of(blurred.crop((0, 0, 40, 40)))
        assert quality_of(noise) > quality_of(blurred) > 0
        assert quality_of(Image.new('RGB', (1, 1))) > 0

    def test_thumbnails_are_small(self):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 300, 3), dtype=np.uint8))
        content = thumbnail_of(noise)
        assert Image.open(io.BytesIO(content)).size == (48, 144)
        assert len(content) < 10_000


class TestTracklets:
    def test_weighted_mean(self):
        vectors = np.eye(3, dtype=np.float32)[:2]
        np.testing.assert_allclose(quality_mean(vectors, [3, 4]), [0.6, 0.8, 0], atol=1e-7)

    @pytest.mark.parametrize(
        ('vectors', 'weights'), [(np.eye(2), [0, 0]), (np.eye(2), [1, -1]), (np.array([[1, 0], [-1, 0]]), [1, 1])]
    )
    def test_refused(self, vectors, weights):
        with pytest.raises(ValueError, match=r'qualities|direction'):
            quality_mean(vectors, weights)
