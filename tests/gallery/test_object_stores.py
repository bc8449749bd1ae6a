"""A gallery in an object store: real servers on loopback, with writers and a reader in processes of their own.

S3 is moto's server. Azure Blob Storage is Microsoft's emulator Azurite, a package of npm, where it is installed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.gallery.test_faults import worker
from tests.support.galleries import gallery_rows, open_gallery, unit
from tests.support.gallery_worker import ROWS
from tests.support.ports import free_port, wait_for_port
from timm_dpa.gallery.filters import Filter
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.store import StoreError

pytestmark = pytest.mark.integrations

#: of the account that every Azurite has
_AZURITE = (
    'devstoreaccount1',
    'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==',
)


@dataclass
class Place:
    """A server that has a bucket named `bucket`."""

    scheme: str
    options: dict[str, str]

    def uri(self, path):
        return f'{self.scheme}://{path}'


@contextmanager
def server(command, port, **environment):
    process = subprocess.Popen(
        [*command, str(port)], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3(**environment):
    boto3 = pytest.importorskip('boto3')
    port = free_port()
    options = {
        'aws_endpoint': f'http://127.0.0.1:{port}',
        'allow_http': 'true',
        'aws_region': 'us-east-1',
        'aws_access_key_id': 'test',
        'aws_secret_access_key': 'test',
    }
    with server([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p'], port, **environment):
        client = boto3.client(
            's3',
            endpoint_url=options['aws_endpoint'],
            region_name='us-east-1',
            aws_access_key_id='test',
            aws_secret_access_key='test',
        )
        client.create_bucket(Bucket='bucket')
        yield Place('s3', options)


@contextmanager
def azure(folder):
    program = shutil.which('azurite-blob')
    if program is None:
        pytest.skip('needs Azurite on the PATH: npm install azurite')
    blob = pytest.importorskip('azure.storage.blob')
    (name, key), port = _AZURITE, free_port()
    endpoint = f'http://127.0.0.1:{port}/{name}'
    # its release may be older than the protocol that the client of the test speaks
    command = [program, '--silent', '--skipApiVersionCheck', '--location', str(folder), '--blobPort']
    with server(command, port):
        credential = {'account_name': name, 'account_key': key}
        blob.BlobServiceClient(endpoint, credential=credential).create_container('bucket')
        yield Place(
            'az',
            {
                'azure_storage_account_name': name,
                'azure_storage_account_key': key,
                'azure_endpoint': endpoint,
                'allow_http': 'true',
            },
        )


@pytest.fixture(scope='module', params=['s3', 'az'])
def place(request, tmp_path_factory):
    with s3() if request.param == 's3' else azure(tmp_path_factory.mktemp('azurite')) as found:
        yield found


def test_rows_filters_and_searches(place):
    rows = gallery_rows()
    uri = place.uri('bucket/one')
    gallery = open_gallery(uri, rows, storage_options=place.options)
    again = Gallery(uri, storage_options=place.options)
    assert len(again) == 60
    (ranking,) = again.search(rows[7].vector, top=3, where=Filter(cameras=['camera 1']))
    assert ranking[0].row.key == rows[7].key
    assert gallery.add(rows).unchanged == 60
    assert gallery.remove(Filter(cameras=['camera 0'])) == 20
    assert again.set_vehicles({rows[1].track: 77}) == 2  # two of its images are of other cameras
    assert again.info()['rows'] == 40


def test_two_writers_and_a_reader(place, tmp_path):
    uri = place.uri('bucket/many')
    processes = [worker(uri, seed, 5, tmp_path / seed, json.dumps(place.options)) for seed in ('one', 'two')]
    assert all(process.stdout.readline() == 'ready\n' for process in processes)
    reader, seen = Gallery(uri, storage_options=place.options), [0]
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


def test_no_such_bucket_and_no_gallery(place):
    elsewhere, none = place.uri('elsewhere/day'), place.uri('bucket/none')
    with pytest.raises((StoreError, FileNotFoundError)) as error:
        open_gallery(elsewhere, gallery_rows(1), storage_options=place.options)
    assert str(error.value).startswith(f'{elsewhere}: there is no such bucket')
    with pytest.raises(FileNotFoundError, match='no gallery'):
        Gallery(none, storage_options=place.options)


def test_forbidden_bucket():
    """The server checks keys after the bucket was made, and knows no `test`."""
    with s3(INITIAL_NO_AUTH_ACTION_COUNT='1') as found, pytest.raises(StoreError) as error:
        Gallery('s3://bucket/day', storage_options=found.options)
    assert str(error.value) == 's3://bucket/day: access is forbidden; check the credentials and rights'


def test_wrong_key_of_an_account(tmp_path):
    with azure(tmp_path) as found, pytest.raises(StoreError) as error:
        Gallery('az://bucket/day', storage_options={**found.options, 'azure_storage_account_key': 'd3Jvbmc='})
    assert str(error.value) == 'az://bucket/day: access is forbidden; check the credentials and rights'
