"""Which rows of a gallery are meant: by camera, time, track, vehicle or key."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ['Condition', 'Filter', 'parse_time', 'show_time']

_logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Condition:
    """A column and what its value must be; a value that is unknown (None) fulfills only `not in`.

    Attributes:
        column: name of a column.
        operator: `in`, `not in`, `>=` or `<`.
        values: one value for `>=` and `<`.
    """

    column: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Filter:
    """Rows that fulfill all that is given; `Filter()` is all rows.

    Args:
        cameras: one of these; None for any. An empty collection, here and below, matches nothing.
        after: at this time or later: ISO 8601, a `datetime`, or milliseconds since 1970 in UTC, see `parse_time`. Rows
            without a time never match where `after` or `before` is given.
        before: earlier than this time.
        tracks: one of these.
        exclude_tracks: none of these; rows without a track stay.
        vehicles: one of these numbers.
        keys: one of these.

    Raises:
        ValueError: a time that cannot be read, or `after` that is not earlier than `before`.
        TypeError: text instead of a collection of texts.
    """

    cameras: Collection[str] | None = None
    after: Any = None
    before: Any = None
    tracks: Collection[str] | None = None
    exclude_tracks: Collection[str] = ()
    vehicles: Collection[int] | None = None
    keys: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ('cameras', 'tracks', 'exclude_tracks', 'vehicles', 'keys'):
            values = getattr(self, name)
            if isinstance(values, (str, bytes)):
                raise TypeError(f'{name} must be several, such as [{values!r}], not {values!r}')
            if values is not None:
                kind = int if name == 'vehicles' else str
                object.__setattr__(self, name, tuple(dict.fromkeys(kind(value) for value in values)))
        for name in ('after', 'before'):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, parse_time(getattr(self, name), name))
        if self.after is not None and self.before is not None and self.after >= self.before:
            raise ValueError(f'after {show_time(self.after)} is not earlier than before {show_time(self.before)}')

    def conditions(self) -> Iterator[Condition]:
        """What a store has to translate to its own language; all of them hold."""
        for column, values in (
            ('camera', self.cameras),
            ('track', self.tracks),
            ('vehicle', self.vehicles),
            ('key', self.keys),
        ):
            if values is not None:
                yield Condition(column, 'in', tuple(values))
        if self.exclude_tracks:
            yield Condition('track', 'not in', tuple(self.exclude_tracks))
        if self.after is not None:
            yield Condition('time', '>=', (self.after,))
        if self.before is not None:
            yield Condition('time', '<', (self.before,))

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return any(True for _ in self.conditions())

    def with_keys(self, keys: Collection[str]) -> Filter:
        """The same with these keys only."""
        return replace(self, keys=tuple(keys))

    def matches(self, row: Any) -> bool:
        """Whether a `GalleryRow` is meant."""
        return all(_holds(getattr(row, condition.column), condition) for condition in self.conditions())


def _holds(value: Any, condition: Condition) -> bool:
    if condition.operator == 'not in':
        return value not in condition.values
    if value is None:
        return False
    if condition.operator == 'in':
        return value in condition.values
    return bool(value >= condition.values[0] if condition.operator == '>=' else value < condition.values[0])


def parse_time(value: Any, name: str = 'time') -> int:
    """Milliseconds since 1970 in UTC.

    A time without a zone is taken as UTC, and a warning is logged; a date is its first moment.

    Args:
        value: ISO 8601 text such as `2026-05-01T10:00:00+02:00`, a `datetime`, or milliseconds since 1970.
        name: of the value, for messages.

    Raises:
        ValueError: it cannot be read.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r'-?\d{9,}', text):
            return int(text)
        try:
            moment = datetime.fromisoformat(_plain(text))
        except ValueError as error:
            raise ValueError(
                f'{name} {value!r} is no time; write it as 2026-05-01T10:00:00+02:00, or with Z for UTC'
            ) from error
    else:
        raise ValueError(f'{name} must be ISO 8601 text, a datetime or milliseconds, not {type(value).__name__}')
    if moment.tzinfo is None:
        _logger.warning('%s %s has no time zone and is taken as UTC', name, value)
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _plain(text: str) -> str:
    """What Python 3.10 reads too: no Z, and a fraction of 3 or 6 digits."""
    text = re.sub(r'[Zz]$', '+00:00', text)
    text = re.sub(r'([+-]\d\d)(\d\d)$', r'\1:\2', text) if 'T' in text or ' ' in text else text
    return re.sub(r'[.,](\d{1,9})', lambda found: f'.{found[1][:6]:0<6}', text, count=1)


def show_time(milliseconds: int | None) -> str:
    """ISO 8601 in UTC, to the second or the millisecond; empty for None."""
    if milliseconds is None:
        return ''
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec='milliseconds' if milliseconds % 1000 else 'seconds').replace('+00:00', 'Z')
