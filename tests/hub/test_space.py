"""The Space: its files, its upload to a Hub on loopback, and its program as a real process."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.hub_client import TOKEN, HubClient
from tests.support.hub_server import LoopbackHub, Refuse
from tests.support.hub_storage import Account
from timm_dpa.hub.publish import SPACE

FILES = {'README.md', 'app.py', 'requirements.txt'}


@pytest.fixture(scope='module')
def hub():
    with LoopbackHub(accounts={TOKEN: Account('me', orgs=('org',))}) as hub:
        yield hub


@pytest.fixture(scope='module')
def client(hub, tmp_path_factory):
    with HubClient(tmp_path_factory.mktemp('home'), {**hub.environment, 'HF_TOKEN': TOKEN}) as client:
        yield client


def test_metadata_and_pins_agree():
    head = yaml.safe_load((SPACE / 'README.md').read_text(encoding='utf-8').split('---')[1])
    pins = [Requirement(line) for line in (SPACE / 'requirements.txt').read_text(encoding='utf-8').splitlines()]
    assert all([spec.operator for spec in pin.specifier] == ['=='] for pin in pins)
    versions = {pin.name: str(pin.specifier)[2:] for pin in pins}
    assert head['sdk'] == 'gradio'
    assert head['sdk_version'] == versions['gradio']
    assert (SPACE / head['app_file']).is_file()
    assert len(head['short_description']) <= 60  # the Hub takes no more
    project = (SPACE.parents[1] / 'pyproject.toml').read_text(encoding='utf-8')
    assert f'version = "{versions["timm-dpa"]}"' in project
    assert f'"gradio=={versions["gradio"]}"' in project  # what tests ran with


class TestUpload:
    def test_a_new_space_gets_the_files_as_they_are(self, hub, client):
        status, out, errors = client.cli('publish', '--space', 'org/page', '--private')
        assert status == 0, errors
        repo = hub.repos['org/page']
        contents = repo.contents()
        assert {name: contents[name] for name in FILES} == {name: (SPACE / name).read_bytes() for name in FILES}
        assert set(contents) <= FILES | {'.gitattributes'}
        assert repo.private
        assert repo.branches['main'].id in out
        assert 'GET /api/spaces/org/page' in hub.requests

    def test_a_second_upload_changes_nothing(self, hub, client):
        client.cli('publish', '--space', 'org/again')
        before = hub.repos['org/again'].branches['main'].id
        status, out, _ = client.cli('publish', '--space', 'org/again')
        assert status == 0
        assert '(nothing has changed)' in out
        assert hub.repos['org/again'].branches['main'].id == before

    def test_a_public_space_does_not_become_private(self, client):
        client.cli('publish', '--space', 'org/open')
        status, _, errors = client.cli('publish', '--space', 'org/open', '--private')
        assert status == 2
        assert 'org/open: exists already and is public' in errors

    def test_a_refused_upload_is_one_line(self, hub, client):
        hub.faults.append(Refuse('POST /api/repos/create', status=403, message='Forbidden'))
        status, _, errors = client.cli('publish', '--space', 'org/refused')
        assert status == 1
        assert len(errors.splitlines()) == 1

    def test_a_dry_run_writes_the_folder(self, client, tmp_path):
        status, out, _ = client.cli('publish', '--space', 'org/page', '--dry-run', str(tmp_path / 'out'))
        assert status == 0
        assert f'folder: {tmp_path / "out"}' in out
        assert {path.name for path in (tmp_path / 'out').iterdir()} == FILES

    def test_it_takes_no_model(self, client):
        status, _, errors = client.cli('publish', 'runs/first', '--space', 'org/page')
        assert status == 2
        assert '--space takes --private, --create-pr or --dry-run, and no model' in errors


@pytest.mark.integrations
def test_the_program_of_the_space_gives_its_page(tmp_path):
    """As the Hub starts it: `python app.py` in the folder; with a gallery, so that nothing is rendered."""
    pytest.importorskip('gradio', reason='needs the extra app')
    import timm
    import torch

    from tests.gallery.page.test_browser import free_port
    from tests.gallery.page.test_server import ask
    from tests.support.page import vehicle_rows
    from timm_dpa import FeatureExtractor
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.train.recipes.recipe import ModelRecipe
    from timm_dpa.train.run.networks import save_model_folder

    torch.manual_seed(0)
    weights = timm.create_model('dpa_resnet18', num_classes=0).state_dict()
    save_model_folder(ModelRecipe(name='dpa_resnet18'), (64, 64), weights, tmp_path / 'model')
    extractor = FeatureExtractor(tmp_path / 'model', device='cpu')
    rows = vehicle_rows(tmp_path / 'images')
    for row, vector in zip(rows, extractor([row.image for row in rows]), strict=True):
        row.vector = vector
    origin = {**extractor.origin, **extractor.describe()}
    Gallery(tmp_path / 'gallery', origin=origin, create=True).add(rows)
    address = f'http://127.0.0.1:{(port := free_port())}'
    process = subprocess.Popen(
        [sys.executable, 'app.py'],
        cwd=SPACE,
        env={
            **os.environ,
            'PYTHONPATH': str(Path(__file__).parents[2]),
            'PYTHONDONTWRITEBYTECODE': '1',
            'GALLERY': str(tmp_path / 'gallery'),
            'GRADIO_SERVER_PORT': str(port),
            'TMPDIR': str(tmp_path),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        page = b''
        for _ in range(600):
            assert process.poll() is None, process.stderr.read()
            try:
                status, page, _ = ask(address + '/')
                break
            except urllib.request.URLError:
                import time

                time.sleep(0.2)
        assert status == 200
        assert b'Vehicle search' in page
        assert b'30 images' in ask(f'{address}/config')[1]
        assert re.search(rb'"analytics_enabled":\s*false', ask(f'{address}/config')[1])
        assert ask(f'{address}/gradio_api/file=/etc/passwd')[0] >= 400
    finally:
        process.kill()
        process.wait()
