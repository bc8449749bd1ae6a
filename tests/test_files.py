"""Files and folders that are written whole, by processes that are really killed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from timm_dpa.files import atomic_file, atomic_folder, locked, remove_stale, write_bytes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestFile:
    def test_appears_at_the_end(self, tmp_path):
        out = tmp_path / 'a' / 'table.csv'
        with atomic_file(out) as temporary:
            assert (temporary.parent, temporary.suffix) == (out.parent, '.csv')
            temporary.write_text('1')
            assert not out.exists()
        assert (out.read_text(), names(out.parent)) == ('1', ['table.csv'])

    def test_an_error_keeps_what_was_there(self, tmp_path):
        out = tmp_path / 'table.csv'
        write_bytes(out, b'old')
        writing = atomic_file(out)
        writing.__enter__().write_text('half')
        assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert (out.read_bytes(), names(tmp_path)) == (b'old', ['table.csv'])

    def test_nothing_written_is_an_error(self, tmp_path):
        out = tmp_path / 'table.csv'
        write_bytes(out, b'old')
        with pytest.raises(FileNotFoundError), atomic_file(out):
            pass
        assert out.read_bytes() == b'old'

    def test_threads_that_write_one_name(self, tmp_path):
        contents = [bytes([number]) * 100_000 for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: write_bytes(tmp_path / 'x', content), contents))
        assert (tmp_path / 'x').read_bytes() in contents
        assert names(tmp_path) == ['x']

    def test_permissions_are_those_of_an_ordinary_file(self, tmp_path):
        write_bytes(tmp_path / 'ours', b'')
        (tmp_path / 'plain').touch()
        assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'plain').stat().st_mode


class TestFolder:
    def test_appears_at_the_end(self, tmp_path):
        out = tmp_path / 'deep' / 'model'
        with atomic_folder(out) as temporary:
            (temporary / 'part').mkdir()
            (temporary / 'part' / 'weights').write_text('1')
            assert not out.exists()
        assert (out / 'part' / 'weights').read_text() == '1'
        assert names(out.parent) == ['model']

    @pytest.mark.parametrize('replace', [False, True])
    def test_an_error_keeps_what_was_there(self, tmp_path, replace):
        out = tmp_path / 'model'
        out.mkdir()
        if replace:
            (out / 'old').touch()
        writing = atomic_folder(out, replace=replace)
        (writing.__enter__() / 'new').touch()
        assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert (names(tmp_path), names(out)) == (['model'], ['old'] if replace else [])

    def test_full_folders_are_replaced_on_demand_only(self, tmp_path):
        out = tmp_path / 'model'
        out.mkdir()
        (out / 'old').touch()
        with pytest.raises(FileExistsError, match='model is there already; name a new or empty folder'):
            atomic_folder(out).__enter__()
        with atomic_folder(out, replace=True) as temporary:
            (temporary / 'new').touch()
        assert (names(tmp_path), names(out)) == (['model'], ['new'])

    def test_a_file_is_never_replaced(self, tmp_path):
        (tmp_path / 'model').touch()
        with pytest.raises(FileExistsError):
            atomic_folder(tmp_path / 'model', replace=True).__enter__()


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_killed_while_writing(tmp_path, kind):
    """What was there is whole, and what is left over can be told and removed."""
    out = tmp_path / 'thing'
    if kind == 'file':
        write_bytes(out, b'old')
    inside = 'temporary' if kind == 'file' else 'temporary.joinpath("part")'
    code = (
        f'import os, signal\nfrom timm_dpa.files import atomic_{kind}\n'
        f'with atomic_{kind}({str(out)!r}) as temporary:\n'
        f'    {inside}.write_text("half")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], check=False, cwd=tmp_path, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == (2 if kind == 'file' else 1)
    remove_stale(tmp_path)
    assert names(tmp_path) == (['thing'] if kind == 'file' else [])


HOLD = """
import os, sys, time
from timm_dpa.files import locked
with locked(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print(os.getpid(), child, flush=True)
    time.sleep(600)
"""


class TestLock:
    def test_is_held_by_one_and_removed(self, tmp_path):
        lock = tmp_path / 'new' / 'run.lock'
        for _ in range(2):
            with locked(lock):
                said = rf'new: is in use by process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d'
                with pytest.raises(BlockingIOError, match=said), locked(lock):
                    pass
                assert lock.is_file()
            assert names(lock.parent) == []

    def test_an_error_releases_it(self, tmp_path):
        with pytest.raises(KeyError), locked(tmp_path / 'lock'):
            raise KeyError
        with locked(tmp_path / 'lock'):
            pass

    def test_death_releases_it_though_a_forked_process_lives(self, tmp_path):
        lock = tmp_path / 'lock'
        holder = subprocess.Popen([sys.executable, '-c', HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
        pid, child = map(int, holder.stdout.readline().split())
        try:
            with pytest.raises(BlockingIOError, match=f'process {pid} on'), locked(lock):
                pass
            holder.kill()
            holder.wait()
            assert lock.is_file()
            with locked(lock):
                assert f'process {os.getpid()} on' in lock.read_text()
        finally:
            os.kill(child, signal.SIGKILL)
        assert names(tmp_path) == []

    def test_only_one_of_many_threads_gets_it(self, tmp_path):
        inside, most = [], []

        def work(_):
            for _ in range(200):
                try:
                    with locked(tmp_path / 'lock'):
                        inside.append(1)
                        most.append(len(inside))
                        inside.pop()
                except BlockingIOError:
                    pass

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert set(most) == {1}
