"""Which data a model has met: name, plain words, counts and a digest, for evaluations and model cards.

A data set may say what it is in `dataset.json` in its folder:
`{"name": "...", "description": "one or two sentences", "synthetic": true}`, and for images of somebody `license` and
`credit`, too. Drawn and rendered sets have one.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .datasets import ReIDData, Split

__all__ = ['ABOUT_FILE', 'describe_data', 'load_about', 'write_about']

ABOUT_FILE = 'dataset.json'
_KEYS = {'name': str, 'description': str, 'synthetic': bool, 'license': str, 'credit': str}


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
    about = _read_about(folder / ABOUT_FILE) if data.root.is_dir() else {}
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


def _read_about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return load_about(path)


def load_about(path: Path) -> dict[str, Any]:
    """Read a file of the form of `dataset.json`.

    Raises:
        ValueError: it cannot be read, or has other keys or types.
    """
    try:
        about = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, OSError) as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error
    wrong = not isinstance(about, dict) or [k for k, v in about.items() if not isinstance(v, _KEYS.get(k, ()))]
    if wrong:
        raise ValueError(
            f'{path}: wants name, description, license and credit (texts) and synthetic (true or false), or some of '
            'them, and nothing else'
        )
    return about


def write_about(folder: Path, name: str, description: str, synthetic: bool, **terms: str) -> None:
    """Write `dataset.json`; `terms` are `license` and `credit`, for images of somebody."""
    about = {'name': name, 'description': description, 'synthetic': synthetic, **terms}
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2) + '\n', encoding='utf-8')
