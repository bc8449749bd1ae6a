"""Making what an engine wrote to a local folder survive a power cut; LanceDB itself calls no fsync."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ['FolderSync']


class FolderSync:
    """Waits until the files below a folder are on the disk.

    A file that was waited for once is not opened again, as the engine never changes a file. Files of other processes
    are waited for, too: what this process commits may rest on them.

    Args:
        folder: the folder of a table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: set[tuple[str, int, int]] = set()

    def __call__(self) -> None:
        """Wait for the files that are new, then for the folders that name them.

        Raises:
            OSError: the disk reports that it could not write.
        """
        touched = set()
        found = set()
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(parent, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:  # removed by another process that optimizes
                    continue
                mark = (path, status.st_size, status.st_mtime_ns)
                found.add(mark)
                if mark not in self._done and _sync(path):
                    touched.add(parent)
        for parent in sorted(touched, key=len, reverse=True):
            while len(parent) >= len(str(self.folder)):
                _sync(parent)
                parent = os.path.dirname(parent)
        if touched:
            _sync(str(self.folder.parent))
        self._done = found


def _sync(path: str) -> bool:
    """Wait for a file or folder; False where it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # gone; or Windows, which opens no folder
        return False
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (5, 28, 122):  # the disk failed or is full; other errors: a file system that cannot sync
            raise
    finally:
        os.close(handle)
    return True
