"""Which data a model has met: name, plain words, counts and a digest, for evaluations and model cards.

A data set may say what it is in `dataset.json` in its folder, see `timm_dpa.train.data.about`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .about import ABOUT_FILE, read_about, write_about
from .datasets import ReIDData, Split

__all__ = ['ABOUT_FILE', 'describe_data', 'read_about', 'write_about']


def describe_data(data: ReIDData) -> dict[str, Any]:
    """What a data set is, without paths of this machine.

    Returns:
        `name` and, where the set says so, `description`, `synthetic`, `license` and `credit`; `layout`; and for `train`
        and `test` each `images`, `identities` and `revision`: a SHA-256 of names, sizes, vehicles and cameras, 16
        hexadecimal digits.

    Raises:
        ValueError: a `dataset.json` that cannot be read, or with other keys or types.
    """
    folder = data.root if data.root.is_dir() else data.root.parent
    about = read_about(data.root)
    about.pop('protocol', None)  # evaluations say which they used
    parts = {'train': data.train, 'test': data.test}
    return {
        'name': data.root.stem if data.root.is_file() else data.root.name,
        **about,
        'layout': data.layout,
        **{part: _describe_part(split, folder, data.identities) for part, split in parts.items()},
    }


def _describe_part(split: Split, folder: Path, identities: list[str]) -> dict[str, Any]:
    lines = sorted(
        f'{os.path.relpath(path, folder)}\t{os.path.getsize(path)}\t{identities[pid]}\t{camid}'
        for path, pid, camid in zip(split.paths, split.pids.tolist(), split.camids.tolist(), strict=True)
    )
    digest = hashlib.sha256('\n'.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()
    return {'images': len(lines), 'identities': len(set(split.pids.tolist())), 'revision': digest[:16]}
