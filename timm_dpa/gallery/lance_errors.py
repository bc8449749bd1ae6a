"""LanceDB's errors, which quote the source code of an engine, in words for users."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .store import StoreError

__all__ = ['is_conflict', 'newest_manifests', 'speaking', 'torn_files']

_MAGIC = b'LANC'  # the last four bytes of each data file and manifest

#: what the message of an error has in it -> what is wrong, and what to do
_REASONS = (
    (r'no space left|storage full|disk quota|os error 28\b', 'the disk is full; nothing of this commit was kept'),
    (
        r'accessdenied|forbidden|\b403\b|permissiondenied|unauthenticated|unauthorized|\b401\b|invalidaccesskey'
        r'|signaturedoesnotmatch|permission denied',
        'access is forbidden; check the credentials and rights',
    ),
    (
        r'nosuchbucket|(bucket|container) .{0,40}not (exist|found)|containernotfound',
        'there is no such bucket or container',
    ),
    (
        r'credential|imds|169\.254\.169\.254',
        'there are no credentials for it; set those of the cloud in the environment, such as AWS_ACCESS_KEY_ID',
    ),
    (
        r'error sending request|connection refused|connect error|dns error|timed out|\btimeout\b'
        r'|error trying to connect|network unreachable|failed to resolve|unreachable',
        'it cannot be reached; check the address and the network',
    ),
    (r'commit conflict|conflict', 'other processes wrote to it all the time; try again'),
    (r'unsupported.*version|requires a newer|feature flag|please upgrade', 'made by a newer LanceDB; update lancedb'),
)


def is_conflict(error: Exception) -> bool:
    """Whether another process committed first, so that a second attempt can succeed."""
    return 'conflict' in str(error).lower()


@contextmanager
def speaking(location: str, folder: Path | None = None) -> Iterator[None]:
    """Turn what LanceDB raises in the block into one line that begins with `location`.

    Args:
        location: the address of the gallery.
        folder: of the table, where it is local: damaged files are looked for in it.

    Raises:
        StoreError: the engine failed.
    """
    try:
        yield
    except (StoreError, FileNotFoundError, ImportError, MemoryError):
        raise
    except (ValueError, RuntimeError, OSError, KeyError, TypeError) as error:
        raise StoreError(f'{location}: {_reason(error, folder)}') from error
    except Exception as error:  # arrow and pyo3 have classes of their own
        raise StoreError(f'{location}: {_reason(error, folder)}') from error


def _reason(error: Exception, folder: Path | None) -> str:
    text = str(error)
    lowered = text.lower()
    for pattern, reason in _REASONS[:1]:
        if re.search(pattern, lowered):
            return reason
    if folder is not None and (advice := _damage(folder)):
        return advice
    for pattern, reason in _REASONS[1:]:
        if re.search(pattern, lowered):
            return reason
    first = re.split(r', /|\s+at /|, rust/|\n', text.replace('lance error: ', ''), maxsplit=1)[0].strip()
    return f'the engine failed ({first[:200] or type(error).__name__})'


def _damage(folder: Path) -> str:
    torn = torn_files(folder)
    if not torn:
        return ''
    manifests = newest_manifests(folder)
    if manifests and manifests[0] in torn:
        return (
            f'its newest manifest is damaged, as after a power cut: move {manifests[0]} to another folder, and the '
            'gallery is as it was before the last commit'
        )
    names = ', '.join(str(path) for path in torn[:3])
    newest = f' Where the last commit wrote it, moving {manifests[0]} away undoes that commit.' if manifests else ''
    return f'damaged files: {names}.{newest} Otherwise restore them from a backup'


def newest_manifests(folder: Path) -> list[Path]:
    """The manifests of a table, the newest first; names count down from 2^64 - 1, or up in old tables."""
    paths = [path for path in (folder / '_versions').glob('*.manifest') if path.stem.isdigit()]
    countdown = any(len(path.stem) == 20 for path in paths)
    return sorted(paths, key=lambda path: int(path.stem), reverse=not countdown)


def torn_files(folder: Path) -> list[Path]:
    """Data files and manifests of a local table that do not end as they must, the newest first."""
    torn = [path for path in [*newest_manifests(folder), *(folder / 'data').glob('*.lance')] if not _is_whole(path)]
    return sorted(torn, key=_age)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _is_whole(path: Path) -> bool:
    try:
        with path.open('rb') as file:
            file.seek(0, os.SEEK_END)
            if file.tell() < len(_MAGIC):
                return False
            file.seek(-len(_MAGIC), os.SEEK_END)
            return file.read() == _MAGIC
    except FileNotFoundError:  # removed meanwhile by a process that optimizes
        return True
    except OSError:
        return False
