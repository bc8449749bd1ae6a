"""Matches that users marked as right or wrong, kept in a folder, and exported as training data."""

from __future__ import annotations

import csv
import hashlib
import io
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image

from ...files import atomic_file, write_bytes
from ..rows import GalleryRow

__all__ = ['Export', 'Feedback', 'Mark', 'export_feedback']

_TABLE = 'marks.csv'
_QUERIES = 'queries'
UPLOAD = 'upload:'  # begins the name of a query that is no image of the gallery


@dataclass(frozen=True)
class Mark:
    """What a user said of a match.

    Attributes:
        query: key of the query's row, or `upload:` and the first digits of the SHA-256 of its picture.
        key: of the row that was found.
        right: whether both show one vehicle.
        similarity: their cosine.
        time: when it was said, ISO 8601 in UTC.
    """

    query: str
    key: str
    right: bool
    similarity: float
    time: str


@dataclass(frozen=True)
class Export:
    """What an export holds.

    Attributes:
        images, vehicles: in the table.
        missing: images that are neither in the gallery nor on the disk any more; they are left out.
        contradicting: vehicles of which some marks say what others deny; they are left out.
    """

    images: int
    vehicles: int
    missing: int
    contradicting: int


class Feedback:
    """Marks of one or of many users; threads may share it.

    Args:
        folder: where marks and the pictures of uploaded queries are kept; marks of before are read. None keeps them in
            memory.

    Raises:
        ValueError: the folder holds a table of marks that cannot be read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._marks: dict[tuple[str, str], Mark] = {}
        self._pictures: dict[str, bytes] = {}
        if folder is not None and (folder / _TABLE).exists():
            self._marks = {(mark.query, mark.key): mark for mark in _read(folder / _TABLE)}

    @property
    def marks(self) -> list[Mark]:
        """All marks, in the order in which they were made."""
        with self._lock:
            return list(self._marks.values())

    def add_query(self, picture: Image.Image) -> str:
        """Keep the picture of an uploaded query, and give its name."""
        buffer = io.BytesIO()
        picture.save(buffer, 'PNG')
        content = buffer.getvalue()
        name = UPLOAD + hashlib.sha256(content).hexdigest()[:16]
        if self.folder is None:
            self._pictures[name] = content
        else:
            path = self._path(name)
            if not path.exists():
                write_bytes(path, content)
        return name

    def picture(self, name: str) -> bytes | None:
        """The PNG file of an uploaded query."""
        if self.folder is None:
            return self._pictures.get(name)
        path = self._path(name)
        return path.read_bytes() if path.is_file() else None

    def mark(self, query: str, key: str, right: bool | None, similarity: float) -> None:
        """Say of a match whether it is right; None takes back what was said.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        with self._lock:
            marks = dict(self._marks)
            marks.pop((query, key), None)
            if right is not None:
                now = datetime.now(timezone.utc).isoformat(timespec='seconds')
                marks[query, key] = Mark(query, key, right, similarity, now)
            if self.folder is not None:
                write_bytes(self.folder / _TABLE, _table(marks.values()))
            self._marks = marks

    def marked(self, query: str) -> dict[str, bool]:
        """Key -> what was said of the matches of a query."""
        return {mark.key: mark.right for mark in self.marks if mark.query == query}

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / _QUERIES / f'{name.removeprefix(UPLOAD)}.png'


def _table(marks: Iterable[Mark]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([field.name for field in fields(Mark)])
    for mark in marks:
        query, key, right, similarity, time = astuple(mark)
        writer.writerow([query, key, 'right' if right else 'wrong', f'{similarity:.6f}', time])
    return text.getvalue().encode()


def _read(path: Path) -> list[Mark]:
    marks = []
    try:
        with open(path, encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                if row['right'] not in ('right', 'wrong'):
                    raise ValueError(f'right must be right or wrong, not {row["right"]!r}')
                right = row['right'] == 'right'
                marks.append(Mark(row['query'], row['key'], right, float(row['similarity']), row['time']))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: is no table of marks ({error}); move it away, or name another folder') from error
    return marks


def export_feedback(
    feedback: Feedback,
    rows: Mapping[str, GalleryRow],
    picture: Callable[[GalleryRow], Image.Image | None],
    out: Path,
) -> Export:
    """Write marks as a data set for `timm-dpa train`: a ZIP file with `feedback.csv`, `images/` and `marks.csv`.

    `feedback.csv` has the columns `path,pid,camid,split`. Images that were marked as right, that are of one track, or
    whose rows have one vehicle, become one vehicle; an image that was marked as wrong is another one than its query.

    Args:
        feedback: the marks.
        rows: the rows of the gallery that they name, by key; others are missing.
        picture: the picture of a row, None where it is gone.
        out: the ZIP file.

    Raises:
        ValueError: there are no marks, or no image of them is left.
        OSError: it cannot be written.
    """
    marks = feedback.marks
    if not marks:
        raise ValueError('nothing is marked yet; mark matches as right or wrong first')
    names = list(dict.fromkeys(name for mark in marks for name in (mark.query, mark.key)))
    group = _groups(marks, names, rows)
    bad = {group[mark.query] for mark in marks if not mark.right and group[mark.query] == group[mark.key]}
    files: dict[str, bytes] = {}
    table: list[list[str]] = []
    missing = 0
    numbers: dict[str, int] = {}
    for name in names:
        if group[name] in bad:
            continue
        content, camera = _content(name, feedback, rows, picture)
        if content is None:
            missing += 1
            continue
        pid = numbers.setdefault(group[name], len(numbers))
        suffix = 'png' if name.startswith(UPLOAD) else 'jpg'
        path = f'images/{pid:05d}_{hashlib.sha256(name.encode()).hexdigest()[:12]}.{suffix}'
        files[path] = content
        table.append([path, str(pid), camera, 'train'])
    if not table:
        raise ValueError('no image of the marks can be exported: they are gone, or all marks contradict each other')
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['path', 'pid', 'camid', 'split'])
    writer.writerows(table)
    with atomic_file(out) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
        archive.writestr('feedback.csv', text.getvalue())
        archive.writestr('marks.csv', _table(marks))
        for path, content in files.items():
            archive.writestr(path, content)
    return Export(len(table), len(numbers), missing, len(bad))


def _groups(marks: list[Mark], names: list[str], rows: Mapping[str, GalleryRow]) -> dict[str, str]:
    """Name of an image -> name that stands for its vehicle."""
    parent = {name: name for name in names}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    alike: dict[tuple[str, object], list[str]] = defaultdict(list)
    for name in names:
        row = rows.get(name)
        if row is not None and row.track:
            alike['track', row.track].append(name)
        if row is not None and row.vehicle is not None:
            alike['vehicle', row.vehicle].append(name)
    pairs = [(some[0], other) for some in alike.values() for other in some[1:]]
    for first, second in [*pairs, *((mark.query, mark.key) for mark in marks if mark.right)]:
        parent[find(second)] = find(first)
    return {name: find(name) for name in names}


def _content(
    name: str,
    feedback: Feedback,
    rows: Mapping[str, GalleryRow],
    picture: Callable[[GalleryRow], Image.Image | None],
) -> tuple[bytes | None, str]:
    """The file of an image, None where it is gone, and the name of its camera."""
    if name.startswith(UPLOAD):
        return feedback.picture(name), 'upload'
    row = rows.get(name)
    image = picture(row) if row is not None else None
    if row is None or image is None:
        return None, ''
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=95)
    return buffer.getvalue(), row.camera or 'unknown'
