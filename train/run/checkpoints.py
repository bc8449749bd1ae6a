"""Checkpoints that survive: written whole or not at all, the one before kept, damaged ones noticed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from timm_dpa.files import atomic_file

__all__ = ['load_checkpoint', 'load_latest', 'save_checkpoint']


_DIGEST = hashlib.sha256().digest_size


def save_checkpoint(path: Path, state: dict[str, Any], keep_previous: bool = True) -> None:
    """Write `state` (tensors, containers, numbers and texts) to `path`.

    With `keep_previous`, the file that was there becomes `previous.pt` beside it.

    Raises:
        OSError: it cannot be written; the files that were there are as before.
    """
    try:
        with atomic_file(path) as temporary:
            with temporary.open('wb') as file:
                hashed = _HashedFile(file)
                torch.save(state, hashed)  # type: ignore[arg-type]
                # a ZIP archive may be followed by other bytes, so that the file stays one that torch.load reads
                file.write(hashed.digest())
            if keep_previous and path.exists():
                with atomic_file(path.with_name('previous.pt')) as spare:
                    # a second name for the old file: at no moment is there no checkpoint
                    try:
                        os.link(path, spare)
                    except OSError:  # a file system without links
                        shutil.copyfile(path, spare)
    except RuntimeError as error:  # torch's writer says so of a disk that is full
        raise OSError(f'{path}: cannot be written ({str(error).splitlines()[0]})') from error


class _HashedFile:
    """Passes what is written on to a file, and hashes it on the way."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def digest(self) -> bytes:
        return self.hash.digest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing but tensors, containers, numbers and texts is unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or no checkpoint of a run.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint')
    digest = hashlib.sha256()
    remaining = path.stat().st_size - _DIGEST
    with path.open('rb') as file:
        while remaining > 0 and (block := file.read(min(remaining, 1 << 24))):
            digest.update(block)
            remaining -= len(block)
        if file.read() != digest.digest():
            raise ValueError(f'{path}: damaged, or not a checkpoint of a training run')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # damaged files raise whatever the parser met
        raise ValueError(f'{path}: cannot be read as a checkpoint ({error})') from error


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a run's folder, or the one before it where that is damaged; None where there is none.

    Its entry `damaged` says what was wrong with the last one.

    Raises:
        ValueError: all that there are are damaged.
    """
    damaged = []
    for name in ('last.pt', 'previous.pt'):
        try:
            state = load_checkpoint(folder / name)
        except FileNotFoundError:
            continue
        except ValueError as error:
            damaged.append(str(error))
            continue
        return {**state, 'damaged': damaged}
    if damaged:
        raise ValueError(f'{damaged[0]}; no good checkpoint is left in {folder}: start again in another folder')
    return None
