"""Who may see the page; and the command, as far as it goes without Gradio."""

import pytest

from timm_dpa.cli.main import main
from timm_dpa.gallery.page.access import Limits, check_access, read_password


@pytest.mark.parametrize('host', ['0.0.0.0', '192.168.0.7', '::', 'drone.example'])
def test_other_hosts_need_a_password(host, capsys, monkeypatch):
    monkeypatch.delenv('TIMM_DPA_PASSWORD', raising=False)
    check_access(host, 'a long one')
    assert main(['app', '--host', host]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'timm-dpa app: --host {host}: others can reach it, so it needs a password')


def test_loopback_needs_none():
    check_access('127.0.0.1', None)
    check_access('localhost', None)


def test_the_password_comes_from_a_file_or_a_variable(tmp_path, monkeypatch):
    monkeypatch.delenv('TIMM_DPA_PASSWORD', raising=False)
    assert read_password(None) is None
    monkeypatch.setenv('TIMM_DPA_PASSWORD', 'of the variable')
    assert read_password(None) == 'of the variable'
    (tmp_path / 'word').write_text('of the file\nno part of it\n')
    assert read_password(str(tmp_path / 'word')) == 'of the file'


def test_wrong_passwords(tmp_path, monkeypatch):
    monkeypatch.setenv('TIMM_DPA_PASSWORD', 'short')
    with pytest.raises(ValueError, match=r'^TIMM_DPA_PASSWORD: the password must have at least 8'):
        read_password(None)
    (tmp_path / 'word').write_text('')
    with pytest.raises(ValueError, match='word: the password must have at least 8'):
        read_password(str(tmp_path / 'word'))
    with pytest.raises(FileNotFoundError, match='no such file with a password'):
        read_password(str(tmp_path / 'none'))


@pytest.mark.parametrize('name', ['upload_bytes', 'pixels', 'video_frames', 'top'])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f'^{name} must be at least 1, not 0'):
        Limits(**{name: 0})
