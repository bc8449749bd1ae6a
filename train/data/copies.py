"""Which paths are the very same image: the same file, whatever it is called, or files with identical bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable

__all__ = ['file_numbers']

_TAIL = 4096  # bytes; compressed images of one length differ there already


def file_numbers(paths: Iterable[str]) -> dict[str, int]:
    """Number files so that two paths have the same number if and only if their bytes are identical.

    Only files of the same length are opened, and read as a whole only where their ends agree. A file that cannot be
    read equals no other path.

    Args:
        paths: of files, in any order; repetitions count once.

    Returns:
        path -> number, from 0.
    """
    groups = [list(dict.fromkeys(paths))]
    for key in (os.path.getsize, _end, _digest):
        groups = [part for group in groups for part in _split(group, key)]
    return {path: number for number, group in enumerate(groups) for path in group}


def _split(paths: list[str], key: Callable[[str], Hashable]) -> Iterable[list[str]]:
    """The paths in groups of equal keys; a path that is alone needs no key."""
    if len(paths) < 2:
        return [paths]
    groups: dict[Hashable, list[str]] = {}
    for path in paths:
        try:
            value = key(path)
        except OSError:
            value = path
        groups.setdefault(value, []).append(path)
    return groups.values()


def _end(path: str) -> int:
    with open(path, 'rb') as file:
        file.seek(max(os.path.getsize(path) - _TAIL, 0))
        return hash(file.read())


def _digest(path: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
