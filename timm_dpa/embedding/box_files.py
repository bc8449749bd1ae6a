"""Files of boxes, as data sets of tracking and the programs of detectors and trackers write them."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .box_formats import BOX_FORMATS, NUMBERED, BoxRow

__all__ = ['BoxFile', 'choose_boxes', 'read_boxes']

_EDGES = ('x', 'y', 'w', 'h')
_CORNERS = tuple(f'{axis}{k}' for k in (1, 2, 3, 4) for axis in 'xy')
#: other names of columns, as pandas, supervision and other programs write them
_ALIASES = {
    'id': ('id', 'track_id', 'track', 'tracker_id', 'vehicle', 'vehicle_id'),
    'class': ('class', 'class_name', 'class_id', 'category', 'label'),
    'score': ('score', 'conf', 'confidence'),
    'visibility': ('visibility',),
    'w': ('w', 'width'),
    'h': ('h', 'height'),
}
_MISSING = ('', 'nan', 'none', 'null', '<na>')
_MOST = 10  # columns of the formats that leave no number out
_DOTA_HEADER = ('imagesource', 'gsd')


@dataclass(frozen=True)
class BoxFile:
    """The boxes of a file.

    Attributes:
        path: of the file, or of the folder of a file for each image.
        format: one of `BOX_FORMATS`.
        rows: in the order of the file.
    """

    path: Path
    format: str
    rows: list[BoxRow]

    @property
    def first_frame(self) -> int:
        """The number that the first frame of a video has in this file."""
        known = NUMBERED[self.format].first if self.format in NUMBERED else None
        if known is not None:
            return known
        return min([1, *(row.frame for row in self.rows if isinstance(row.frame, int))])

    def where(self, row: BoxRow) -> str:
        """The place of a row, for messages."""
        path = self.path / f'{row.frame}.txt' if self.path.is_dir() else self.path
        return f'{path}, line {row.line}'


def read_boxes(path: str | os.PathLike[str], format: str = 'auto') -> BoxFile:
    """Read a file of boxes.

    Args:
        path: the file; for `dota` it may be a folder with a file for each image.
        format: one of `BOX_FORMATS`, or `'auto'`: by the content.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that does not fit (the message has its number), a file that fits no format or several, or two
            boxes of one track in one frame.
    """
    path = Path(path)
    if format != 'auto' and format not in BOX_FORMATS:
        raise ValueError(f'unknown format of boxes {format!r}; choose auto, {", ".join(BOX_FORMATS)}')
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file of boxes')
    if path.is_dir():
        if format not in ('auto', 'dota'):
            raise ValueError(f'{path}: is a folder; a file of boxes was expected')
        files = sorted(file for file in path.glob('*.txt') if not file.name.startswith('.'))
        if not files:
            raise ValueError(f'{path}: no .txt file of boxes in this folder')
        result = BoxFile(path, 'dota', [row for file in files for row in _read_dota(file, _lines(file))])
    else:
        lines = _lines(path)
        if not lines:
            raise ValueError(f'{path}: no boxes in this file')
        format = _recognized(path, lines) if format == 'auto' else format
        reader = {'csv': _read_csv, 'dota': _read_dota}.get(format)
        rows = reader(path, lines) if reader else _read_numbers(path, lines, format)
        result = BoxFile(path, format, list(rows))
    if not result.rows:
        raise ValueError(f'{path}: no boxes in this file')
    _check(result)
    return result


def choose_boxes(
    boxes: BoxFile,
    *,
    every: int = 1,
    min_visibility: float = 0.0,
    classes: Collection[str] | None = None,
    frames: range | None = None,
) -> list[BoxRow]:
    """The boxes to use; never those that the file says to ignore.

    Args:
        every: only frames whose number is divisible by it.
        min_visibility: only vehicles of which at least this share, 0..1, is seen.
        classes: names or numbers; None for all that may be vehicles.
        frames: numbers of the frames; None for all.

    Raises:
        ValueError: numbers out of range, a file without visibility, or classes that no box has.
    """
    if every < 1:
        raise ValueError(f'every must be at least 1, not {every}')
    if not 0 <= min_visibility <= 1:
        raise ValueError(f'min_visibility must be in 0..1, not {min_visibility}')
    rows = [row for row in boxes.rows if not row.ignored]
    if (every > 1 or frames is not None) and any(isinstance(row.frame, str) for row in rows):
        raise ValueError(f'{boxes.path}: its frames have names, of which every N-th or a half cannot be taken')
    if min_visibility and any(row.visibility is None for row in rows):
        raise ValueError(f'{boxes.path}: format {boxes.format} without visibility; leave min_visibility out')
    numbered = NUMBERED.get(boxes.format)
    if classes:
        names = {f'{number}': name for number, name in numbered.classes.items()} if numbered else {}
        wanted = {names.get(name, name) for name in classes}
        present = {row.kind for row in boxes.rows}
        if unknown := sorted(wanted - present - set(names.values())):
            raise ValueError(
                f'{boxes.path}: no box of the class {", ".join(unknown)}; it has '
                f'{", ".join(sorted(filter(None, present))) or "no classes"}'
            )
        rows = [row for row in rows if row.kind in wanted]
    elif numbered:
        rows = [row for row in rows if row.kind not in numbered.no_vehicles]
    return [
        row
        for row in rows
        if (row.visibility is None or row.visibility >= min_visibility)
        and (isinstance(row.frame, str) or (row.frame % every == 0 and (frames is None or row.frame in frames)))
    ]


# --- reading ----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not a text file of boxes ({error})') from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in (line.split(',') if ',' in line else line.split())]


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return None


def _recognized(path: Path, lines: list[tuple[int, str]]) -> str:
    """The one format that the content fits."""
    header = {cell.lower() for cell in _cells(lines[0][1])}
    if 'frame' in header:
        return 'csv'
    body = [line for _, line in lines if line.partition(':')[0].lower() not in _DOTA_HEADER]
    first = _cells(body[0]) if body else []
    if len(first) >= 9 and _numbers(first[:8]) is not None and _numbers(first[8:9]) is None:
        return 'dota'
    table = _table(path, lines, None)
    width = len(table[0][1])
    rest = [values[6:] for _, values in table]
    fitting = [name for name, kind in NUMBERED.items() if width in kind.columns and kind.fits(rest)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f'{path}: may be of the formats {" and ".join(fitting)}; say which with --format')
    known = '; '.join(f'{name}: {what}' for name, what in BOX_FORMATS.items())
    raise ValueError(f'{path}: {width} columns that fit no format of boxes; there are {known}')


def _table(path: Path, lines: list[tuple[int, str]], format: str | None) -> list[tuple[int, list[float]]]:
    """The numbers of each line; all lines have equally many."""
    table: list[tuple[int, list[float]]] = []
    for number, line in lines:
        values = _numbers(_cells(line))
        where = f'{path}, line {number}'
        if values is None:
            raise ValueError(f'{where}: expected numbers, not {line[:80]!r}')
        if table and len(values) != len(table[0][1]):
            raise ValueError(f'{where}: {len(values)} columns, where the lines before have {len(table[0][1])}')
        if len(values) < 6:
            raise ValueError(f'{where}: {len(values)} columns; a box needs frame,id,x,y,w,h at least')
        if format and len(values) not in NUMBERED[format].columns:
            raise ValueError(f'{where}: {len(values)} columns; expected {format}, {BOX_FORMATS[format]}')
        # geo-trax does not know the size of every vehicle
        if not all(math.isfinite(value) for value in (values if len(values) <= _MOST else values[:6])):
            raise ValueError(f'{where}: a number is not finite')
        for name, value in (('frame', values[0]), ('id', values[1])):
            if value != int(value):
                raise ValueError(f'{where}: {name} must be a whole number, not {value:g}')
        table.append((number, values))
    return table


def _read_numbers(path: Path, lines: list[tuple[int, str]], format: str) -> Iterable[BoxRow]:
    for number, values in _table(path, lines, format):
        yield NUMBERED[format].row(values, number)


def _read_csv(path: Path, lines: list[tuple[int, str]]) -> Iterable[BoxRow]:
    columns = [name.strip().lower() for name in next(csv.reader([lines[0][1]]))]
    places = {name: columns.index(name) for name in ('frame', *_EDGES, *_CORNERS) if name in columns}
    for name, others in _ALIASES.items():
        found = [other for other in others if other in columns]
        if len(found) > 1:
            raise ValueError(f'{path}: columns {" and ".join(found)}; keep one of them')
        if found:
            places[name] = columns.index(found[0])
    shape = next((shape for shape in (_EDGES, _CORNERS) if all(name in places for name in shape)), None)
    if 'frame' not in places or shape is None:
        raise ValueError(f'{path}: columns {",".join(columns)}; expected {BOX_FORMATS["csv"]}')
    for (number, _), cells in zip(lines[1:], csv.reader([line for _, line in lines[1:]]), strict=True):
        where = f'{path}, line {number}'
        if len(cells) != len(columns):
            raise ValueError(f'{where}: {len(cells)} cells for {len(columns)} columns')
        entry = {name: cells[place].strip() for name, place in places.items()}
        entry = {name: value for name, value in entry.items() if value.lower() not in _MISSING}
        numbers = {}
        for name in (*shape, 'score', 'visibility'):
            if name in shape or name in entry:
                value = _numbers([entry.get(name, 'missing')])
                if value is None or not math.isfinite(value[0]):
                    raise ValueError(f'{where}: {name} must be a number, not {entry.get(name, "")!r}')
                numbers[name] = value[0]
        box = tuple(numbers[name] for name in shape)
        if shape is _EDGES:
            box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
        if 'frame' not in entry:
            raise ValueError(f'{where}: no frame')
        track = _whole(entry.get('id', ''))
        yield BoxRow(
            _frame(entry['frame']),
            '' if track.startswith('-') and track[1:].isdecimal() else track,
            box,
            _whole(entry.get('class', '')),
            numbers.get('score', 1.0),
            numbers.get('visibility'),
            line=number,
        )


def _frame(text: str) -> int | str:
    """A number, also one that pandas wrote as 12.0; or the name of an image without its suffix."""
    text = _whole(text)
    return int(text) if text.isdecimal() else os.path.splitext(os.path.basename(text))[0]


def _whole(text: str) -> str:
    """pandas makes a column of whole numbers with a gap a column of floats."""
    head, dot, tail = text.partition('.')
    return head if dot and head.lstrip('-').isdecimal() and not tail.strip('0') else text


def _read_dota(path: Path, lines: list[tuple[int, str]]) -> Iterable[BoxRow]:
    for number, line in lines:
        if line.partition(':')[0].lower() in _DOTA_HEADER:
            continue
        cells = _cells(line)
        corners = _numbers(cells[:8])
        if not 9 <= len(cells) <= 11 or corners is None or not all(map(math.isfinite, corners)):
            raise ValueError(f'{path}, line {number}: expected {BOX_FORMATS["dota"]}, not {line[:80]!r}')
        track = cells[10] if len(cells) == 11 else ''
        yield BoxRow(path.stem, track, tuple(corners), cells[8], line=number)


def _check(boxes: BoxFile) -> None:
    """ValueError for a negative frame, and for two boxes of one track in one frame."""
    seen: dict[tuple[int | str, str], int] = {}
    for row in boxes.rows:
        if isinstance(row.frame, int) and row.frame < 0:
            raise ValueError(f'{boxes.where(row)}: frame {row.frame}; frames are numbered from 0 or 1')
        if not row.track or row.ignored:
            continue
        if (before := seen.setdefault((row.frame, row.track), row.line)) != row.line:
            raise ValueError(f'{boxes.where(row)}: frame {row.frame} has track {row.track} in line {before} already')
