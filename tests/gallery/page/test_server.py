"""What the page's server gives to those who ask for more than the page, and the command as a real process."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.gallery.page.test_browser import free_port
from tests.support.page import drawn_gallery, drawn_page, extractor
from tests.support.processes import heed_ctrl_c

pytestmark = pytest.mark.integrations


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('server')
    (folder / 'secret.txt').write_text('of nobody else')
    return folder


@pytest.fixture(scope='module')
def page(folder):
    pytest.importorskip('gradio', reason='needs the extra app')
    return drawn_page(folder)


@pytest.fixture(scope='module')
def address(page):
    from timm_dpa.gallery.page.layout import launch

    blocks, address = launch(page, port=free_port())
    yield address
    blocks.close(verbose=False)


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    headers = {name.replace('_', '-'): value for name, value in headers.items()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_no_file_of_the_machine_is_served(address, folder, page):
    """Neither the system's, nor those beside the gallery, nor even the gallery's own."""
    files = ['/etc/passwd', str(folder / 'secret.txt'), str(folder / 'images' / '0_0.png'), str(Path(__file__))]
    files += [str(path) for path in (folder / 'gallery').rglob('*') if path.is_file()][:2]
    files += ['secret.txt', 'pyproject.toml', '../../../../etc/passwd', '/proc/self/environ']
    for name in files:
        for path in (name, urllib.parse.quote(name, safe=''), name.replace('/', '//')):
            for route in ('file=', 'file/', 'stream/', 'upload/'):
                status, body, _ = ask(f'{address}/gradio_api/{route}{path}')
                assert status >= 400, (route, path)
                assert b'root:' not in body
                assert b'of nobody' not in body


def test_a_path_instead_of_an_upload_is_refused(address):
    """What a client says it has uploaded has to lie where uploads lie."""
    config = json.loads(ask(f'{address}/config')[1])
    file = next(c['id'] for c in config['components'] if c['props'].get('elem_id') == 'upload')
    dependency = next(d for d in config['dependencies'] if d['inputs'][:1] == [file])
    named = {'path': '/etc/passwd', 'meta': {'_type': 'gradio.FileData'}}
    data = {'data': [named, None], 'fn_index': dependency['id'], 'session_hash': 'abc', 'event_data': None}
    status, body, _ = ask(
        f'{address}/gradio_api/queue/join', json.dumps(data).encode(), Content_Type='application/json'
    )
    if status == 200:
        status, body, _ = ask(f'{address}/gradio_api/queue/data?session_hash=abc')
    assert b'root:' not in body
    assert status >= 400 or b'"success":false' in body.replace(b' ', b'')


def test_uploads_are_limited(address, page):
    boundary = 'x' * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = head + bytes(page.limits.upload_bytes + 1) + f'\r\n--{boundary}--\r\n'.encode()
    status, _, _ = ask(f'{address}/gradio_api/upload', body, Content_Type=f'multipart/form-data; boundary={boundary}')
    assert status == 413


def test_the_browser_is_told_to_load_nothing_from_elsewhere(address):
    status, body, headers = ask(address + '/')
    assert status == 200
    policy = headers['content-security-policy']
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert 'http' not in policy
    assert b'Vehicle search' in body


def test_other_names_for_this_host_are_refused(address):
    assert ask(address + '/config', Host='evil.example')[0] == 400


def test_nothing_is_reported_to_anybody(address):
    config = json.loads(ask(f'{address}/config')[1])
    assert config['analytics_enabled'] is False
    assert not config.get('space_id')
    assert ask(f'{address}/monitoring')[0] >= 400
    assert ask(f'{address}/docs')[0] >= 400


def test_a_password_guards_all(page):
    from timm_dpa.gallery.page.layout import launch

    blocks, address = launch(page, host='0.0.0.0', port=free_port(), password='a long secret')
    address = address.replace('0.0.0.0', '127.0.0.1')
    try:
        for path in (
            '/config',
            '/gradio_api/info',
            '/gradio_api/queue/data?session_hash=a',
            '/gradio_api/file=/etc/passwd',
        ):
            assert ask(address + path)[0] == 401, path
        assert ask(f'{address}/gradio_api/upload', b'--x--', Content_Type='multipart/form-data; boundary=x')[0] == 401
        assert b'"components":[{' not in ask(address + '/')[1]
        form = urllib.parse.urlencode({'username': 'timm-dpa', 'password': 'a long secret'}).encode()
        wrong = urllib.parse.urlencode({'username': 'timm-dpa', 'password': 'another secret'}).encode()
        kind = 'application/x-www-form-urlencoded'
        assert ask(f'{address}/login', wrong, Content_Type=kind)[0] == 400
        assert ask(f'{address}/login', form, Content_Type=kind)[0] == 200
    finally:
        blocks.close(verbose=False)


def test_the_command_as_a_process(folder, page, tmp_path):
    """With the model of the gallery: it prints its address, answers, and ends with Ctrl-C, leaving nothing behind."""
    import timm
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous() for name, tensor in extractor().model.state_dict().items()}
    save_file(weights, tmp_path / 'random.safetensors')
    assert timm.is_model('dpa_resnet18')
    words = ['app', '--gallery', str(folder / 'gallery'), '--model', 'dpa_resnet18', '--image-size', '64']
    words += ['--checkpoint', str(tmp_path / 'random.safetensors'), '--device', 'cpu', '--precision', 'fp32']
    words += ['--port', str(free_port()), '--feedback', str(tmp_path / 'feedback')]
    temporary = tmp_path / 'tmp'
    temporary.mkdir()
    environment = {**os.environ, 'TMPDIR': str(temporary)}
    environment.pop('GRADIO_TEMP_DIR', None)
    process = subprocess.Popen(
        [sys.executable, '-m', 'timm_dpa.cli', *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_ctrl_c,
    )
    try:
        line = ''
        while not line.startswith('page: '):
            line = process.stdout.readline()
            assert line, process.stderr.read()
        address = re.search(r'http://\S+', line)[0]
        assert b'30 images' in ask(address + '/config')[1]
        second = subprocess.run(
            [sys.executable, '-m', 'timm_dpa.cli', *words], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert 'feedback: is in use by process' in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stderr.read()
        assert not list(temporary.glob('timm_dpa_page_*'))
    finally:
        process.kill()
        process.wait()


def test_a_gallery_of_other_weights_is_refused(tmp_path, capsys):
    from timm_dpa.cli.main import main

    drawn_gallery(tmp_path)
    status = main(['app', '--gallery', str(tmp_path / 'gallery'), '--model', 'dpa_resnet18', '--image-size', '96'])
    assert status == 2
    assert 'cannot be compared' in capsys.readouterr().err
