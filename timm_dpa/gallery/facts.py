"""What is known of images besides their pixels: camera, time, track, vehicle and box, from a CSV table."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from .filters import parse_time

__all__ = ['Facts', 'FactsTable', 'read_facts', 'vehicle_number']

_logger = logging.getLogger(__name__)

_SECONDS = re.compile(r'\d{1,8}(\.\d+)?')
#: column of a table -> the name that is used for it; crops.csv of `timm-dpa crops` and tables for training have them
_ALIASES = {'pid': 'vehicle', 'camid': 'camera'}
_COLUMNS = ('path', 'camera', 'time', 'track', 'vehicle', 'box')
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Facts:
    """What is known of an image; see `GalleryRow`."""

    camera: str = ''
    time: int | None = None
    track: str = ''
    vehicle: int | None = None
    box: Box | None = None

    def or_else(self, others: Facts) -> Facts:
        """The same with what `others` know where nothing is known."""
        unknown = {
            entry.name: getattr(others, entry.name) for entry in fields(self) if getattr(self, entry.name) in (None, '')
        }
        return replace(self, **unknown)


class FactsTable:
    """Facts by image file.

    Args:
        facts: absolute path -> facts.
        default: of what the table does not say, and of images that are not in it.
    """

    def __init__(self, facts: Mapping[str, Facts] | None = None, default: Facts | None = None) -> None:
        self._facts = {os.path.realpath(path): known for path, known in (facts or {}).items()}
        self._default = default or Facts()

    def of(self, path: str | os.PathLike[str]) -> Facts:
        """What is known of an image file."""
        known = self._facts.get(os.path.realpath(path)) if self._facts else None
        return known.or_else(self._default) if known else self._default

    def missing(self, paths: list[str]) -> int:
        """How many of the files are not in the table; 0 without a table."""
        return sum(os.path.realpath(path) not in self._facts for path in paths) if self._facts else 0


def read_facts(path: str | os.PathLike[str], start: int | None = None) -> dict[str, Facts]:
    """Facts by path, from a CSV table.

    Columns: `path` (from the folder of the table, or from here), and any of `camera`, `time` (ISO 8601, or seconds
    after `start`), `track`, `vehicle` (a whole number) and `box` (`x1 y1 x2 y2` in pixels). `camid` and `pid` are other
    names of camera and vehicle; a `pid` that is no number is left out. Where there is a column `sequence`, tracks are
    `<sequence>_<track>`, and the sequence is the camera, unless there is a column for it; the table that `timm-dpa
    crops` writes is one of these. Other columns are ignored.

    Args:
        path: the table.
        start: milliseconds since 1970 from which seconds count; without it, times in seconds are unknown.

    Raises:
        FileNotFoundError: no such table.
        ValueError: no column `path`, or a value that cannot be read; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such table')
    facts: dict[str, Facts] = {}
    left_out = 0
    with path.open(encoding='utf-8-sig', errors='surrogateescape', newline='') as file:
        reader = csv.DictReader(file)
        if 'path' not in (reader.fieldnames or ()):
            raise ValueError(f'{path}: has no column path; its columns may be {", ".join(_COLUMNS)}')
        for row in reader:
            try:
                known, ignored = _facts_of(row, start)
            except ValueError as error:
                raise ValueError(f'{path}, line {reader.line_num}: {error}') from error
            left_out += ignored
            beside = path.parent / row['path']
            facts[str(beside if beside.exists() or not os.path.exists(row['path']) else row['path'])] = known
    if left_out:
        _logger.warning('%s: %d names in the column pid are no numbers and are left out', path, left_out)
    return facts


def _facts_of(row: dict[str, str | None], start: int | None) -> tuple[Facts, bool]:
    values = {_ALIASES.get(name, name): (value or '').strip() for name, value in row.items() if isinstance(name, str)}
    values |= {name: (row[name] or '').strip() for name in _ALIASES.values() if row.get(name)}
    sequence, track = values.get('sequence', ''), values.get('track', '')
    time = values.get('time', '')
    moment = None
    if _SECONDS.fullmatch(time):
        moment = None if start is None else start + round(float(time) * 1000)
    elif time:
        moment = parse_time(time)
    vehicle = values.get('vehicle', '')
    number = vehicle_number(vehicle) if vehicle else None
    if vehicle and number is None and row.get('vehicle'):
        raise ValueError(f'vehicle {vehicle!r} is no whole number')
    facts = Facts(
        values.get('camera') or sequence,
        moment,
        f'{sequence}_{track}' if sequence and track else track,
        number,
        _box(values.get('box', '')),
    )
    return facts, bool(vehicle) and number is None


def vehicle_number(name: str) -> int | None:
    """The number that a name of a vehicle is; None where it is none."""
    return int(name) if re.fullmatch(r'-?\d{1,18}', name) else None


def _box(text: str) -> Box | None:
    if not text:
        return None
    numbers = [float(number) for number in re.split(r'[\s,;]+', text.strip('[]() '))]
    if len(numbers) != 4:
        raise ValueError(f'box {text!r} is not x1 y1 x2 y2')
    return numbers[0], numbers[1], numbers[2], numbers[3]
