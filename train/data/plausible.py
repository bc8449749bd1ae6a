"""Whether what was taken for vehicles can be vehicles: guards against trees of another kind."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from .layouts import LayoutError, Row

__all__ = ['check_plausible']

#: words in names of parts, such as bounding_box_test, val2017 or mask_train_v2
_PART = re.compile(
    '(train|test)(ing|set|val)?|val|valid|validation|dev|eval|query|queries|gallery|galleries|(probe|distractor)s?'
)
#: names, but for numbers, of what holds images of many vehicles, of cameras, and of files as cameras number them
_HOLDER = re.compile(
    '(image|img|pic|picture|photo|crop|frame|screenshot|dataset|original|annotation|label|mask|cam|camera|scene|sequence|'
    'seq|video|clip|drone|uav|batch|split|part|fold|set|detection)s?|patch(es)?|jpe?g|png|jpegimages|data|raw|dscn?|dji|pxl|'
    'mvi|gopr|vid|labeled|detected'
)
#: kinds of vehicles, and of things that detectors and classifiers know; with a number they may well be vehicles
_KIND = re.compile(
    '(car|truck|van|suv|sedan|hatchback|pickup|motorcycle|motorbike|bicycle|bike|taxi|person|pedestrian|vehicle|other|'
    'positive|negative)s?|(mini)?bus(es)?|background|unknown'
)
_DATE = re.compile(r'(19|20)\d\d[-.]?[01]\d[-.]?[0-3]\d', re.ASCII)
_FEW, _MANY = 10, 50  # fewer vehicles with more images each, on average, are something else
_NAMED = re.compile(r'(-?\d+)_c\d+', re.ASCII)  # as in VeRi-776 and Market-1501


def check_plausible(rows: Sequence[Row], layout: str, asked: bool) -> None:
    """Refuse a reading of folders or file names whose `vehicles` are something else.

    Args:
        rows: the images.
        layout: `'folders'` or `'flat'`.
        asked: whether the user requested this layout: names and numbers that are only unusual are accepted then.

    Raises:
        LayoutError: the message says what was seen.
    """
    counts = Counter(row.vehicle for row in rows)
    source = 'folders' if layout == 'folders' else 'beginnings of file names'
    remedy = f'; if these are vehicles, ask for the layout {layout}'

    parts = [name for name in counts if any(_PART.fullmatch(word) for word in _words(name))]
    if parts:
        raise LayoutError(f'{source} such as {_some(parts)} are parts of a data set, not vehicles')
    if layout == 'folders':
        _check_names_in_folders(rows)
    if asked:
        return
    holders = [
        name for name in counts if _KIND.fullmatch(name.lower()) or _HOLDER.fullmatch(''.join(_words(name)) or '-')
    ]
    if holders:
        raise LayoutError(f'{source} such as {_some(holders)} are not the names of single vehicles{remedy}')
    dates = [name for name in counts if _DATE.fullmatch(name)]
    if dates and layout == 'flat':
        raise LayoutError(f'{source} such as {_some(dates)} look like dates, not vehicles{remedy}')
    if len(counts) < _FEW and len(rows) > _MANY * len(counts):
        raise LayoutError(
            f'{len(counts)} {source} with {len(rows)} images would be {len(counts)} vehicles, {_some(list(counts))}'
            f'{remedy}'
        )
    if layout == 'flat' and max(counts.values()) == 1:
        raise LayoutError(f'all {len(rows)} file names begin differently, each would be a vehicle of its own{remedy}')


def _words(name: str) -> list[str]:
    """The words in a name, in lower case and without numbers: `bounding_box_test` has three."""
    return re.findall(r'[a-z]+', re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name).lower())


def _some(names: list[str]) -> str:
    return ', '.join(sorted(names)[:3])


def _check_names_in_folders(rows: Sequence[Row]) -> None:
    """Images called <identity>_c<camera>_* in a folder of several identities: the folder is no vehicle."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        match = _NAMED.match(os.path.basename(row.path))
        if match:
            found[row.vehicle].add(match[1])
    mixed = {vehicle: names for vehicle, names in found.items() if len(names) > 1}
    if mixed:
        vehicle = min(mixed)
        raise LayoutError(
            f'the folder {vehicle} would be one vehicle, but its images are called after {len(mixed[vehicle])}: '
            f'{_some(list(mixed[vehicle]))}'
        )
