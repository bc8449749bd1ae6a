"""Which folder is a gallery."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ['TABLE', 'is_gallery']

#: name of the table, in every engine
TABLE = 'gallery'


def is_gallery(path: str | os.PathLike[str]) -> bool:
    """Whether a local folder is a gallery: it has the table in it. A folder of images has none."""
    return Path(path, f'{TABLE}.lance', '_versions').is_dir()
