"""What a data set is, in plain words, counts and a digest: for evaluations, runs and model cards.

A data set may say what it is in a file `dataset.json` in its folder. Toy and rendered sets have one; anyone may write
one by hand: `{"name": "...", "description": "one or two sentences", "synthetic": true}`, and, where the layout's own
protocol is not the one that fits, `"protocol": "first-last"` or another of `timm_dpa.train.data.protocols.PROTOCOLS`.
Images of somebody else have `"license": "CC BY 3.0"` and `"credit": "whom to name"` too.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_dpa.files import write_bytes

if TYPE_CHECKING:
    from .datasets import ReIDData, Split

__all__ = ['ABOUT_FILE', 'describe_data', 'load_about', 'read_about', 'write_about']

ABOUT_FILE = 'dataset.json'
_KEYS = {'name': str, 'description': str, 'synthetic': bool, 'protocol': str, 'license': str, 'credit': str}


def read_about(folder: Path) -> dict[str, Any]:
    """What `dataset.json` in a folder says; empty where there is none.

    Raises:
        ValueError: it cannot be read, or has other keys or types.
    """
    path = folder / ABOUT_FILE
    return load_about(path) if path.is_file() else {}


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
            f'{path}: wants name, description, license, credit and protocol (texts) and synthetic (true or false), or '
            'some of them, and nothing else'
        )
    return about


def write_about(folder: Path, name: str, description: str, synthetic: bool, **more: str | None) -> None:
    """Write `dataset.json`; `more` is `license`, `credit`, and `protocol` of a set that its layout's does not fit,
    or None for what it does not say."""
    said = {key: value for key, value in more.items() if value is not None}
    about = {'name': name, 'description': description, 'synthetic': synthetic, **said}
    write_bytes(folder / ABOUT_FILE, (json.dumps(about, indent=2) + '\n').encode())


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
