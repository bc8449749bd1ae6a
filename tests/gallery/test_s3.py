"""A gallery in an object store: a real S3 server on loopback, with writers and a reader in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.gallery.test_faults import worker
from tests.support.galleries import gallery_rows, open_gallery, unit
from tests.support.gallery_worker import ROWS
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.store import StoreError

pytestmark = pytest.mark.integrations


@contextmanager
def started(**environment):
    """Settings of a server with a bucket."""
    boto3 = pytest.importorskip('boto3')
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = {
        'aws_endpoint': f'http://127.0.0.1:{port}',
        'allow_http': 'true',
        'aws_region': 'us-east-1',
        'aws_access_key_id': 'test',
        'aws_secret_access_key': 'test',
    }
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if not probe.connect_ex(('127.0.0.1', port)):
                    break
            time.sleep(0.5)
        client = boto3.client(
            's3',
            endpoint_url=options['aws_endpoint'],
            region_name='us-east-1',
            aws_access_key_id='test',
            aws_secret_access_key='test',
        )
        client.create_bucket(Bucket='bucket')
        yield options
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def server():
    with started() as options:
        yield options


def test_rows_filters_and_searches(server):
    rows = gallery_rows()
    gallery = open_gallery('s3://bucket/one', rows, storage_options=server)
    again = Gallery('s3://bucket/one', storage_options=server)
    assert len(again) == 60
    (ranking,) = again.search(rows[7].vector, top=3, where=Filter(cameras=['camera 1']))
    assert ranking[0].row.key == rows[7].key
    assert gallery.add(rows).unchanged == 60
    assert gallery.remove(Filter(cameras=['camera 0'])) == 20
    assert again.info()['rows'] == 40


def test_two_writers_and_a_reader(server, tmp_path):
    uri = 's3://bucket/many'
    processes = [worker(uri, seed, 5, tmp_path / seed, json.dumps(server)) for seed in ('one', 'two')]
    assert all(process.stdout.readline() == 'ready\n' for process in processes)
    reader, seen = Gallery(uri, storage_options=server), [0]
    while any(process.poll() is None for process in processes):
        seen.append(len(reader))
        assert seen[-1] >= seen[-2]
        assert seen[-1] % ROWS == 0
        if seen[-1]:
            assert reader.search(unit(1, 64), top=3)[0]
        time.sleep(0.2)
    assert [process.communicate()[1] for process in processes] == ['', '']
    assert len(reader) == 10 * ROWS
    keys = {row.key for row in reader.rows()}
    assert keys == {f'{seed}/{part}/{index}' for seed in ('one', 'two') for part in range(5) for index in range(ROWS)}


def test_no_such_bucket_and_no_gallery(server):
    with pytest.raises((StoreError, FileNotFoundError)) as error:
        open_gallery('s3://elsewhere/day', gallery_rows(1), storage_options=server)
    assert str(error.value).startswith('s3://elsewhere/day: there is no such bucket')
    with pytest.raises(FileNotFoundError, match='no gallery'):
        Gallery('s3://bucket/none', storage_options=server)


def test_forbidden_bucket():
    """The server checks keys after the bucket was made, and knows no `test`."""
    with started(INITIAL_NO_AUTH_ACTION_COUNT='1') as options, pytest.raises(StoreError) as error:
        Gallery('s3://bucket/day', storage_options=options)
    assert str(error.value) == 's3://bucket/day: access is forbidden; check the credentials and rights'
