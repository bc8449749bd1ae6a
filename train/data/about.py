"""`dataset.json`: what a data set says of itself. Drawn and rendered sets have one; anyone may write one by hand.

`{"name": "...", "description": "one or two sentences", "synthetic": true}`, and, where the layout's own protocol is
not the one that fits, `"protocol": "first-last"` or another of `timm_dpa.train.data.datasets.PROTOCOLS`. For images of
somebody, `"license": "CC BY 3.0"` and `"credit": "whom to name"` as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ['ABOUT_FILE', 'load_about', 'read_about', 'write_about']

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
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2) + '\n', encoding='utf-8')
