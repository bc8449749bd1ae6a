"""Files and folders that appear as a whole or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ['atomic_file', 'atomic_folder', 'locked', 'remove_stale', 'write_bytes']

_NUMBERS = itertools.count()  # threads of one process may write the same name
_HELD: set[int] = set()  # descriptors of the lock files of this process


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends without an error, it becomes `path`.

    Whatever was at `path` stays until then, and stays for good when the block raises.

    Args:
        path: the file to write. Missing parent folders are created.
        sync: wait until the bytes are on the disk, so that a power cut cannot leave the new name with no content.
            Turn it off for many small files that can be made again.

    Yields:
        A name that does not exist, in the same folder and with the same suffix.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
        if sync:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; when the block ends without an error, it becomes `path`.

    Args:
        path: the folder to make. Missing parent folders are created.
        replace: take the place of a folder that is there. Without it, only an empty folder is replaced.

    Yields:
        The temporary folder.

    Raises:
        FileExistsError: `path` is a file, or a folder with files in it and `replace` is False; raised before the block.
        OSError: it cannot be written; what was at `path` is still there.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or (not replace and any(path.iterdir()))):
        raise FileExistsError(f'{path} is there already; name a new or empty folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` as `atomic_file` does; raises the same errors."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(path: str | os.PathLike[str], what: Path | None = None) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, so that one process at a time does what it stands for.

    The operating system releases it when the process ends, however that happens. It holds between the processes of one
    machine, and of several where their file system has locks; where there are none, as on Windows, it does nothing.

    Args:
        path: the lock file. It is made, with its parent folders, and removed in the end.
        what: the file or folder that an error names; None for the folder that `path` is in.

    Raises:
        BlockingIOError: another process, or another thread, holds it; the message says which, where, and since when.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(path, what or path.parent) if fcntl else None
    try:
        yield
    finally:
        if handle in _HELD:  # not in a process that was forked meanwhile
            path.unlink(missing_ok=True)
            _HELD.remove(handle)
            os.close(handle)


def _lock(path: Path, what: Path) -> int:
    """The descriptor of the lock file, which is locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 1000).decode(errors='replace') or 'another process'
            os.close(handle)
            raise BlockingIOError(f'{what}: is in use by {holder}; wait for its end, or stop it') from None
        except OSError:  # a network file system without locks
            pass
        with suppress(FileNotFoundError):  # whoever held it may have removed the file since it was opened
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)
    os.ftruncate(handle, 0)
    since = time.strftime('%Y-%m-%d %H:%M:%S %z')
    os.write(handle, f'process {os.getpid()} on {socket.gethostname()} since {since}'.encode())
    _HELD.add(handle)
    return handle


def _close_inherited() -> None:
    """In a forked process, which must not keep the lock when the one that holds it dies."""
    while _HELD:
        os.close(_HELD.pop())


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_close_inherited)


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files and folders in `folder` that a killed process left behind."""
    for path in Path(folder).glob('.*.tmp*'):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path`; the suffix stays, as writers of images and tensors go by it."""
    return path.with_name(f'.{path.name}.tmp{os.getpid()}_{next(_NUMBERS)}{path.suffix}')


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders; a file that was not written shows in the rename
        return
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(handle)
    finally:
        os.close(handle)
