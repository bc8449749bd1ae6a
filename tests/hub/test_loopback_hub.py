"""The loopback Hub of the tests is one to the real client."""

import http.client
import json
import os
import subprocess
import sys

import pytest

from tests.support.hub_server import Corrupt, CutAnswer, CutUpload, LoopbackHub, Refuse, Truncate
from tests.support.hub_storage import Account

ACCOUNTS = {'hf_writer': Account('somebody'), 'hf_other': Account('other')}
WEIGHTS = bytes(range(256)) * 400
# more than what the client writes to disk at once, 10 MiB, or it has nothing to resume
LARGE = bytes(range(256)) * 4 * 1024 * 12

CLIENT = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

folder = Path(sys.argv[1])
api = HfApi()
found = {}

def error(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as e:
        return type(e).__name__
    return 'none'

repo = api.create_repo('somebody/new', private=True).repo_id
found['again'] = api.create_repo('somebody/new', exist_ok=True).repo_id
first = api.upload_folder(repo_id=repo, folder_path=folder, commit_message='First')
found['unchanged'] = api.upload_folder(repo_id=repo, folder_path=folder).oid == first.oid
api.create_tag(repo, tag='v0')

(folder / 'README.md').write_text('---\\nlicense: mit\\n---\\nsecond')
pull = api.upload_folder(repo_id=repo, folder_path=folder, create_pr=True)
found['pull'] = [pull.pr_revision, api.model_info(repo).sha == first.oid]
refs = api.list_repo_refs(repo, include_pull_requests=True)
found['refs'] = [[ref.name for ref in known] for known in (refs.branches, refs.tags, refs.pull_requests)]

(folder / 'model.safetensors').write_bytes(b'second')
api.upload_folder(repo_id=repo, folder_path=folder, commit_message='Second')
api.delete_file('sub/note.txt', repo)

for revision in (first.oid, 'v0', pull.pr_revision, 'main'):
    where = Path(snapshot_download(repo, revision=revision))
    files = {str(p.relative_to(where)): p.read_bytes().hex() for p in where.rglob('*') if p.is_file()}
    found['snapshot ' + revision.replace(first.oid, 'first')] = files
retried = {'repo_id': 'somebody/retried', 'folder_path': folder}
found['retried'] = [error(api.upload_folder, **retried) for _ in range(3)]

found['verified'] = not api.verify_repo_checksums(repo, revision='v0').mismatches
entries = api.get_paths_info(repo, ['model.safetensors', 'sub', 'missing'], revision='v0', expand=True)
found['paths'] = [[e.path, e.last_commit.title] for e in entries]
found['tags'] = api.model_info('somebody/public').tags

found['large'] = hf_hub_download('somebody/large', 'model.bin')
found['corrupt'] = hf_hub_download('somebody/public', 'model.safetensors')
found['errors'] = {
    # a file that is cached would come from there
    'private': error(hf_hub_download, 'somebody/private', 'README.md', token=False),
    'private of another': error(hf_hub_download, 'somebody/private', 'README.md', token='hf_other'),
    'unknown token': error(hf_hub_download, 'somebody/public', 'README.md', token='hf_unknown'),
    'gated': error(hf_hub_download, 'somebody/gated', 'README.md', token='hf_other'),
    'gated snapshot': error(snapshot_download, 'somebody/gated', token=False),
    'revision': error(hf_hub_download, 'somebody/public', 'README.md', revision='v9'),
    'file': error(hf_hub_download, 'somebody/public', 'missing.txt'),
    'repository': error(snapshot_download, 'somebody/missing'),
    'truncated': error(hf_hub_download, 'somebody/public', 'config.json'),
    'unavailable': error(hf_hub_download, 'somebody/public', 'other.json'),
    'create elsewhere': error(api.create_repo, 'other/new'),
    'create without token': error(api.create_repo, 'somebody/newer', token=False),
    'write elsewhere': error(api.upload_folder, repo_id='somebody/public', folder_path=folder, token='hf_other'),
    'write without token': error(api.upload_folder, repo_id='somebody/public', folder_path=folder, token=False),
    'outdated': error(api.upload_folder, repo_id=repo, folder_path=folder, parent_commit=first.oid),
}
json.dump(found, sys.stdout)
"""
FIRST = {
    'README.md': b'---\nlicense: mit\n---\nfirst',
    'model.safetensors': WEIGHTS,
    'sub/note.txt': b'note',
}
SECOND_CARD = FIRST['README.md'].replace(b'first', b'second')


@pytest.fixture(scope='module', params=[False, True], ids=['direct', 'redirected'])
def session(request, tmp_path_factory):
    """What one process of the real client has found, and the Hub that it spoke to."""
    tmp = tmp_path_factory.mktemp('client')
    folder = tmp / 'folder'
    (folder / 'sub').mkdir(parents=True)
    for path, content in FIRST.items():
        (folder / path).write_bytes(content)
    public = {
        'README.md': b'---\ntags: [timm]\n---\n',
        'config.json': b'{"a": 1}',
        'other.json': b'{}',
        'model.safetensors': WEIGHTS,
    }
    repos = {
        'somebody/public': {'main': public},
        'somebody/gated': {'main': {'README.md': b''}},
        'somebody/private': {'main': {'README.md': b''}},
        'somebody/retried': {'main': {}},
        'somebody/large': {'main': {'model.bin': LARGE}},
    }
    with LoopbackHub(repos, ACCOUNTS, redirect=request.param) as hub:
        hub.repos['somebody/gated'].gated = hub.repos['somebody/private'].private = True
        download = 'GET /storage/{}/*' if request.param else 'GET {} main *'
        hub.faults = [
            CutAnswer(download.format('somebody/large'), after=11 * 1024 * 1024),
            CutUpload('PUT /storage/somebody/new/*', after=1000),
            Refuse('POST /api/models/somebody/retried/commit/main'),
            Truncate('GET somebody/public main config.json', to=3),
            Refuse('GET somebody/public main other.json', status=500),
            Corrupt(download.format('somebody/public')),
        ]
        environment = {**os.environ, **hub.environment, 'HF_HOME': str(tmp / 'home'), 'HF_TOKEN': 'hf_writer'}
        done = subprocess.run(
            [sys.executable, '-c', CLIENT, str(folder)], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout), hub


class TestUpload:
    def test_unchanged_files_make_no_commit_and_a_pull_request_leaves_main_alone(self, session):
        found, hub = session
        assert found['again'] == 'somebody/new'
        assert found['unchanged']
        assert found['pull'] == ['refs/pr/1', True]
        assert found['refs'] == [['main'], ['v0'], ['refs/pr/1']]
        titles = [commit.title for commit in hub.repos['somebody/new'].history()]
        assert titles == ['Delete sub/note.txt with huggingface_hub', 'Second', 'First', 'initial commit']
        assert hub.repos['somebody/new'].private

    def test_every_revision_has_its_files(self, session):
        found, hub = session
        for revision, files in {
            'first': FIRST,
            'v0': FIRST,
            'refs/pr/1': {**FIRST, 'README.md': SECOND_CARD},
            'main': {'README.md': SECOND_CARD, 'model.safetensors': b'second'},
        }.items():
            snapshot = {path: bytes.fromhex(content) for path, content in found[f'snapshot {revision}'].items()}
            assert snapshot.pop('.gitattributes').startswith(b'*.bin filter=lfs')
            assert snapshot == files
        assert hub.repos['somebody/new'].contents('refs/pr/1')['model.safetensors'] == WEIGHTS

    def test_cut_upload_is_sent_again_by_the_client(self, session):
        _, hub = session
        uploads = [line for line in hub.requests if line.startswith('PUT /storage/somebody/new/')]
        assert len(uploads) == 3
        assert uploads[0] == uploads[1] != uploads[2]

    def test_after_a_refused_commit_large_files_are_not_sent_again(self, session):
        found, hub = session
        assert found['retried'] == ['HfHubHTTPError', 'none', 'none']
        assert len(hub.repos['somebody/retried'].history()) == 2
        assert sum(line.startswith('PUT /storage/somebody/retried/') for line in hub.requests) == 1


class TestDownload:
    def test_cut_download_is_resumed(self, session):
        found, hub = session
        with open(found['large'], 'rb') as file:
            assert file.read() == LARGE
        resumed = [line for line in hub.requests if ' bytes=' in line]
        assert [line.split()[-1] for line in resumed] == ['bytes=10485760-']

    def test_client_takes_corrupt_bytes_for_the_file(self, session):
        found, _ = session
        with open(found['corrupt'], 'rb') as file:
            content = file.read()
        assert len(content) == len(WEIGHTS)
        assert content[:-1] == WEIGHTS[:-1]
        assert content[-1] != WEIGHTS[-1]

    def test_metadata(self, session):
        found, _ = session
        assert found['verified']
        assert found['paths'] == [['model.safetensors', 'First'], ['sub', 'First']]
        assert found['tags'] == ['timm']


def test_errors(session):
    found, hub = session
    assert found['errors'] == {
        'private': 'RepositoryNotFoundError',
        'private of another': 'RepositoryNotFoundError',
        'unknown token': 'HfHubHTTPError',
        'gated': 'GatedRepoError',
        'gated snapshot': 'GatedRepoError',
        'revision': 'RevisionNotFoundError',
        'file': 'RemoteEntryNotFoundError',
        'repository': 'RepositoryNotFoundError',
        'truncated': 'OSError',
        'unavailable': 'HfHubHTTPError',
        'create elsewhere': 'HfHubHTTPError',
        'create without token': 'HfHubHTTPError',
        'write elsewhere': 'HfHubHTTPError',
        'write without token': 'RepositoryNotFoundError',
        'outdated': 'HfHubHTTPError',
    }
    assert len(hub.repos['somebody/public'].history()) == 1
    assert 'other/new' not in hub.repos
    assert all(fault.times == 0 for fault in hub.faults)


def test_stopped_hub_drops_connections_and_returns_at_its_address():
    with LoopbackHub({'somebody/model': {'main': {'config.json': b'{}'}}}) as hub:
        address = hub.url.removeprefix('http://')
        connection = http.client.HTTPConnection(address, timeout=10)
        fresh = http.client.HTTPConnection(address, timeout=10)

        def status(connection: http.client.HTTPConnection) -> int:
            connection.request('GET', '/somebody/model/resolve/main/config.json')
            with connection.getresponse() as response:
                response.read()
                return response.status

        assert status(connection) == 200
        hub.stop()
        with pytest.raises(ConnectionError):
            status(connection)
        with pytest.raises(ConnectionRefusedError):
            status(fresh)
        fresh.close()
        hub.start()
        hub.faults.append(Refuse('GET somebody/*', times=2, status=500))
        assert [status(fresh) for _ in range(3)] == [500, 500, 200]
        connection.close()
        fresh.close()


def test_upload_that_is_not_what_it_says_is_refused():
    with LoopbackHub({'somebody/model': {'main': {}}}) as hub:
        connection = http.client.HTTPConnection(hub.url.removeprefix('http://'), timeout=10)
        connection.request('PUT', '/storage/somebody/model/' + '0' * 64, b'content')
        assert connection.getresponse().status == 400
        assert not hub.repos['somebody/model'].objects
        connection.close()
