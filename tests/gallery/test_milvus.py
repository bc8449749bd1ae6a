"""What is particular to a gallery in a Milvus server: real processes write to it, and it goes away and comes back."""

import signal
import time

import numpy as np
import pytest

from tests.gallery.test_faults import worker
from tests.gallery.test_gallery import keys, ranked
from tests.support.galleries import ORIGIN, gallery_rows, open_gallery, unit
from tests.support.gallery_worker import ROWS, part
from tests.support.milvus_server import MilvusServer
from timm_dpa.cli.main import main
from timm_dpa.gallery import milvus
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.rows import GalleryRow
from timm_dpa.gallery.store import StoreError

pytestmark = pytest.mark.integrations


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with MilvusServer(tmp_path_factory.mktemp('milvus')) as server:
        yield server


def opened_again(uri: str) -> Gallery:
    """After a crash of the server; the client waits a little before it connects again."""
    for _ in range(60):
        try:
            return Gallery(uri)
        except StoreError:
            time.sleep(0.5)
    return Gallery(uri)


def one_line(error) -> str:
    assert '\n' not in str(error.value)
    return str(error.value)


def test_two_writers_and_a_reader(server, tmp_path):
    uri = f'{server.url}/many'
    processes = [worker(uri, seed, 5, tmp_path / seed) for seed in ('one', 'two')]
    assert all(process.stdout.readline() == 'ready\n' for process in processes)
    reader, seen = Gallery(uri), [0]
    while any(process.poll() is None for process in processes):
        seen.append(len(reader))
        assert seen[-1] >= seen[-2]
        if seen[-1]:
            assert reader.search(unit(1, 64), top=3)[0]
        time.sleep(0.1)
    assert [process.communicate()[1] for process in processes] == ['', '']
    found = {row.key for row in reader.rows()}
    assert found == {f'{seed}/{k}/{index}' for seed in ('one', 'two') for k in range(5) for index in range(ROWS)}
    assert len(reader) == 10 * ROWS


def test_writers_of_the_same_keys_leave_one_row_each(server, tmp_path):
    uri = f'{server.url}/shared'
    processes = [worker(uri, 'shared', 4, tmp_path / str(k)) for k in range(2)]
    assert [process.communicate()[1] for process in processes] == ['', '']
    gallery = Gallery(uri)
    assert len(gallery) == ROWS == len({row.key for row in gallery.rows()})


def test_killed_writers_and_servers_lose_nothing_that_was_acknowledged(server, tmp_path):
    uri = f'{server.url}/killed'
    for attempt in range(3):
        process = worker(uri, f'seed{attempt}', 1000, tmp_path / f'log{attempt}')
        assert process.stdout.readline() == 'ready\n'
        time.sleep(0.5 + attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if attempt:
            server.kill()
            server.start()
    gallery = opened_again(uri)
    stored = {row.key: row for row in gallery.rows(columns=('vector',))}
    for attempt in range(3):
        done = [int(line) for line in (tmp_path / f'log{attempt}').read_text().split()]
        assert done
        for number in done:
            for row in part(f'seed{attempt}', number):
                np.testing.assert_array_equal(stored[row.key].vector, row.vector)
    assert len(gallery) == len(stored)


def test_a_server_that_is_gone_is_one_line(tmp_path):
    with MilvusServer(tmp_path / 'data') as server:
        open_gallery(f'{server.url}/day', gallery_rows(4))
        server.kill()
        with pytest.raises(StoreError) as error:
            Gallery(f'{server.url}/day')
        assert one_line(error) == f'{server.url}/day: no Milvus server answers there; check the address and the network'
        server.start()
        assert len(opened_again(f'{server.url}/day')) == 4


def test_an_index_of_many_rows(server, monkeypatch):
    monkeypatch.setattr(milvus, 'INDEX_FROM', 400)
    rows = gallery_rows(500)
    gallery = open_gallery(f'{server.url}/indexed', rows[:300])
    assert gallery.optimize().indexed == 0
    gallery.add(rows[300:])
    report = gallery.optimize()
    assert report.indexed == 500
    assert report.recall > 0.9
    again = Gallery(gallery.uri)
    for asked in (unit(1, seed=3), unit(30, seed=3)):
        for where in (None, Filter(cameras=['camera 1'], exclude_tracks=['track 2'])):
            for query, ranking in zip(asked, again.search(asked, top=5, where=where), strict=True):
                assert keys(ranking) == ranked(rows, query, where)[:5]
    (ranking,) = again.search(rows[7].vector, top=1, exact=False)
    assert keys(ranking) == [rows[7].key]
    assert again.remove(Filter(keys=[rows[7].key])) == 1
    assert keys(again.search(rows[7].vector, top=1, exact=False)[0]) != [rows[7].key]


def test_what_does_not_belong_is_refused(server, caplog):
    uri = f'{server.url}/strict'
    gallery = open_gallery(uri, gallery_rows(4))
    with pytest.raises(ValueError, match='x has 8 numbers, the gallery 16'):
        gallery.add([GalleryRow('x', unit(1, 8)[0])])
    with pytest.raises(ValueError, match='other weights'):
        Gallery(uri, origin={**ORIGIN, 'network_sha256': 'b' * 64})
    with pytest.raises(FileNotFoundError, match='no gallery; make one'):
        Gallery(f'{server.url}/none')
    with pytest.raises(ValueError, match='keeps float32, not float16'):
        open_gallery(f'{server.url}/half', gallery_rows(1), dtype='float16')
    gallery._store._client.create_collection('foreign', dimension=4)
    with pytest.raises(ValueError, match='was not made by timm-dpa'):
        Gallery(f'{server.url}/foreign')
    with pytest.raises(StoreError, match=r'gives 16,384 matches at the most, not 20,000'):
        gallery.search(unit(1), top=20_000)
    gallery.add([GalleryRow('large', unit(1)[0], thumbnail=bytes(60_000))])
    assert 'the thumbnail of large has 60000 bytes and is left out' in caplog.text
    assert [row.thumbnail for row in gallery.rows(Filter(keys=['large']), ('thumbnail',))] == [None]


@pytest.mark.parametrize(
    ('uri', 'message'),
    [
        ('http://somebody:secret@127.0.0.1:19530', 'keep passwords out of the address'),
        ('http://127.0.0.1:19530/a-b', 'a name has letters, digits and _'),
        ('http://127.0.0.1:19530/a/b', 'a name has letters, digits and _'),
        ('http://', 'write http://HOST:PORT/NAME'),
        ('http://127.0.0.1:port', 'no address of a server'),
    ],
)
def test_addresses_that_are_refused(uri, message):
    with pytest.raises(ValueError, match=message) as error:
        Gallery(uri)
    assert 'secret' not in one_line(error)


def test_on_the_command_line(server, tmp_path, monkeypatch, capsys):
    """As docs/gallery.md has it."""
    monkeypatch.chdir(tmp_path)
    uri = f'{server.url}/garage'
    model = '--model dpa_resnet18 --image-size 64 --device cpu --precision fp32'

    def run(line: str) -> str:
        assert main(line.split()) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    run('data draw drawn --identities 4 --images 8')
    images = sorted(path.relative_to(tmp_path) for path in (tmp_path / 'drawn').rglob('*.jpg'))
    assert f'{len(images)} rows in {uri}' in run(f'embed drawn --gallery {uri} --camera north {model}')
    assert f'{len(images)} unchanged' in run(f'embed drawn --gallery {uri} --camera north {model}')
    found = run(
        f'search --query {images[0]} --gallery {uri} --camera north --top 3 --device cpu --precision fp32 ' + model[:20]
    )
    assert f'gallery of {len(images)}' in found
    assert 'Milvus' in run(f'gallery info {uri}')
    run(f'gallery optimize {uri}')
    run(f'gallery export {uri} --out rows.parquet')
    assert (tmp_path / 'rows.parquet').stat().st_size
    assert f'{len(images)} ' in run(f'gallery remove {uri} --camera north')
    assert len(Gallery(uri)) == 0
