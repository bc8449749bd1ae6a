"""What can go wrong with a gallery, and what is said then; nothing that was committed is lost."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.galleries import HOUR, ORIGIN, gallery_rows, open_gallery, unit
from tests.support.gallery_worker import ROWS, WIDTH
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.lance_errors import newest_manifests
from timm_dpa.gallery.rows import METADATA_KEY, GalleryRow, arrow_schema
from timm_dpa.gallery.store import StoreError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gallery(tmp_path):
    return open_gallery(tmp_path / 'day', gallery_rows())


def worker(uri, seed, parts, log, *more):
    command = [sys.executable, '-m', 'tests.support.gallery_worker', str(uri), seed, str(parts), str(log), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def one_line(error) -> str:
    assert '\n' not in str(error.value)
    assert '.rs' not in str(error.value)
    return str(error.value)


class TestInput:
    def test_width(self, gallery):
        with pytest.raises(ValueError, match='x has 8 numbers, the gallery 16'):
            gallery.add([GalleryRow('x', unit(1, 8)[0])])
        with pytest.raises(ValueError, match='vectors have 16 numbers, the queries 8'):
            gallery.search(unit(1, 8))
        with pytest.raises(ValueError, match='have 16 numbers, those of dpa_resnet18 8'):
            Gallery(gallery.uri, origin=ORIGIN, width=8)
        assert len(gallery) == 60

    @pytest.mark.parametrize('bad', [np.nan, np.inf])
    def test_not_finite(self, gallery, bad):
        vector = unit(1)[0]
        vector[3] = bad
        with pytest.raises(ValueError, match='x: its embedding has numbers that are not finite'):
            gallery.add([GalleryRow('x', vector)])
        with pytest.raises(ValueError, match='not finite'):
            gallery.search(vector)

    def test_length(self, gallery):
        with pytest.raises(ValueError, match='x: its embedding has length 2; embeddings have length 1'):
            gallery.add([GalleryRow('x', 2 * unit(1)[0])])

    def test_other_weights(self, gallery):
        with pytest.raises(ValueError, match='made with dpa_resnet18 with other weights') as error:
            Gallery(gallery.uri, origin={**ORIGIN, 'network_sha256': 'b' * 64})
        assert gallery.uri in one_line(error)

    def test_key_that_is_no_text(self, gallery):
        with pytest.raises(ValueError, match='must be text'):
            gallery.add([GalleryRow('\udcff.jpg', unit(1)[0])])

    def test_zones(self, gallery):
        """A clock in another zone: the same moment, however it is written."""
        there = {row.key for row in gallery.rows(Filter(after='1970-01-01T12:00:00+02:00'))}
        assert there == {row.key for row in gallery.rows(Filter(after='1970-01-01T10:00Z'))}
        assert there == {row.key for row in gallery_rows() if row.time >= 10 * HOUR}


class TestWritersOfOneRow:
    def test_a_new_vehicle_leaves_what_another_writes_meanwhile(self, gallery, monkeypatch):
        row = next(row for row in gallery_rows() if row.track == 'track 3')
        newer = dataclasses.replace(row, vector=unit(1, seed=9)[0], camera='moved', mtime_ns=row.mtime_ns + 1)
        other, store, scan = Gallery(gallery.uri), gallery._store, gallery._store.scan

        def scan_and_wait(*args):
            yield from list(scan(*args))
            monkeypatch.undo()
            other.add([newer])

        monkeypatch.setattr(store, 'scan', scan_and_wait)
        assert gallery.set_vehicles({'track 3': 77}) == 4
        found = next(gallery.rows(Filter(keys=[row.key]), ('camera', 'vehicle', 'vector', 'thumbnail')))
        assert (found.camera, found.vehicle, found.thumbnail) == ('moved', 77, row.thumbnail)
        np.testing.assert_array_equal(found.vector, newer.vector)


class TestPlaces:
    def test_no_gallery(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no gallery; make one with'):
            Gallery(tmp_path / 'none')
        assert not (tmp_path / 'none').exists()

    def test_folder_with_other_files(self, tmp_path):
        (tmp_path / 'a.jpg').write_bytes(b'')
        with pytest.raises(ValueError, match='has other files in it'):
            open_gallery(tmp_path, gallery_rows(1))

    def test_unknown_scheme(self):
        with pytest.raises(ValueError, match='a gallery is a folder, an object store at s3://'):
            Gallery('ftp://host/x')

    def test_unreachable_bucket(self):
        """Said within seconds; the engine alone tries for minutes."""
        options = {'aws_endpoint': 'http://127.0.0.1:9', 'allow_http': 'true', 'aws_region': 'us-east-1'}
        options |= {'aws_access_key_id': 'x', 'aws_secret_access_key': 'x'}
        start = time.monotonic()
        with pytest.raises(StoreError, match='cannot be reached') as error:
            Gallery('s3://bucket/day', storage_options=options)
        assert one_line(error).startswith('s3://bucket/day: ')
        assert time.monotonic() - start < 60

    def test_newer_table(self, tmp_path):
        lancedb = pytest.importorskip('lancedb')
        pa = pytest.importorskip('pyarrow')
        schema = pa.schema(
            [('key', pa.string()), ('vector', pa.list_(pa.float32(), 4))],
            metadata={METADATA_KEY: b'{"format": 2, "origin": {}}'},
        )
        lancedb.connect(str(tmp_path / 'new')).create_table('gallery', schema=schema)
        with pytest.raises(ValueError, match='made by a newer timm-dpa'):
            Gallery(tmp_path / 'new')

    def test_foreign_table(self, tmp_path):
        lancedb = pytest.importorskip('lancedb')
        lancedb.connect(str(tmp_path / 'theirs')).create_table('gallery', [{'key': 'a', 'vector': [1.0, 0.0]}])
        with pytest.raises(ValueError, match='not made by timm-dpa'):
            Gallery(tmp_path / 'theirs')


class TestDamage:
    def test_torn_manifest(self, gallery, tmp_path):
        """As after a power cut: the file that the message names is moved away, and the commit before is back."""
        gallery.add([GalleryRow('last', unit(1)[0])])
        newest = newest_manifests(Path(gallery.uri, 'gallery.lance'))[0]
        newest.write_bytes(newest.read_bytes()[:40])
        with pytest.raises(StoreError, match='its newest manifest is damaged') as error:
            Gallery(gallery.uri)
        assert f'move {newest} to another folder' in one_line(error)
        shutil.move(newest, tmp_path / 'aside')
        assert len(Gallery(gallery.uri)) == 60

    def test_torn_data(self, gallery):
        gallery.add([GalleryRow('last', unit(1)[0])])
        files = Path(gallery.uri, 'gallery.lance', 'data').glob('*.lance')
        newest = max(files, key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:40])
        with pytest.raises(StoreError, match='damaged files') as error:
            Gallery(gallery.uri).search(unit(1))
        assert str(newest) in one_line(error)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='mounts a small disk')
def test_full_disk(tmp_path):
    """A commit that does not fit is refused, and what was there before is there."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', disk], capture_output=True).returncode:
        pytest.skip('may not mount')
    try:
        gallery = open_gallery(disk / 'day', gallery_rows(100, 64))
        large = [
            dataclasses.replace(row, key=f'large {index}', thumbnail=os.urandom(30_000))
            for index, row in enumerate(gallery_rows(100, 64))
        ]
        with pytest.raises(StoreError, match='the disk is full') as error:
            gallery.add(large)
        one_line(error)
        assert len(Gallery(gallery.uri)) == 100
        assert len(Gallery(gallery.uri).search(unit(1, 64), top=100)[0]) == 100
    finally:
        subprocess.run(['umount', disk], check=True)


def test_two_writers_of_the_same_keys(tmp_path):
    """One row of each key is left, and all rows of a key's last commit are of one writer."""
    logs = [tmp_path / 'a', tmp_path / 'b']
    processes = [worker(tmp_path / 'day', 'shared', 4, log) for log in logs]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert [log.read_text().split() for log in logs] == [list('0123')] * 2
    rows = list(Gallery(tmp_path / 'day').rows())
    assert len({row.key for row in rows}) == len(rows) == ROWS
    assert len({row.camera for row in rows}) == 1


@pytest.mark.skipif(not shutil.which('strace'), reason='strace is not installed')
def test_a_commit_waits_for_the_disk(tmp_path):
    """Every file that a writing process left in the table was waited for, and so were the folders that name it."""
    trace = tmp_path / 'trace'
    command = [
        sys.executable,
        '-m',
        'tests.support.gallery_worker',
        str(tmp_path / 'day'),
        'a',
        '2',
        str(tmp_path / 'log'),
    ]
    strace = ['strace', '-f', '-y', '-qq', '-e', 'trace=fsync,fdatasync', '-o', str(trace)]
    done = subprocess.run([*strace, *command], cwd=ROOT, capture_output=True, text=True)
    if 'ptrace' in done.stderr.lower():
        pytest.skip('may not trace')
    assert done.returncode == 0, done.stderr
    synced = {line.split('<', 1)[1].rsplit('>', 1)[0] for line in trace.read_text().splitlines() if '<' in line}
    table = tmp_path / 'day' / 'gallery.lance'
    files = [path for path in table.rglob('*') if path.is_file()]
    assert len(files) > 6
    for path in files:
        assert str(path) in synced
        assert str(path.parent) in synced
    assert {str(table), str(table.parent)} <= synced


def test_a_table_that_lacks_its_key_gets_it_when_it_is_opened(tmp_path):
    """An older timm-dpa made the table and its key in two steps, and may have been killed between them."""
    lancedb = pytest.importorskip('lancedb')
    table = lancedb.connect(tmp_path / 'old').create_table('gallery', schema=arrow_schema(WIDTH, 'float32', ORIGIN))
    assert not table.schema.field('key').metadata
    fresh = open_gallery(tmp_path / 'fresh', width=WIDTH)
    mark = lancedb.connect(fresh.uri).open_table('gallery').schema.field('key').metadata
    assert mark
    Gallery(tmp_path / 'old', origin=ORIGIN)
    assert lancedb.connect(tmp_path / 'old').open_table('gallery').schema.field('key').metadata == mark
    processes = [worker(tmp_path / 'old', 'shared', 3, tmp_path / str(k)) for k in range(2)]
    assert [(process.communicate(), process.returncode)[1] for process in processes] == [0, 0]
    assert len(Gallery(tmp_path / 'old')) == ROWS
