"""Readers of the layouts: the images of a data set with their identities, cameras and parts."""

from __future__ import annotations

import csv
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from timm_dpa.embedding.images import FolderContent, image_suffixes, scan_folder

from .identities import is_junk, is_missing, padded_twins, plain_name
from .layouts import LAYOUTS, MARKET_FOLDERS, MSMT_LISTS, PARTS, VERI_FOLDERS, LayoutError, Row, columns_of
from .plausible import check_plausible

__all__ = ['NAMES', 'Reading', 'images_in', 'read']

#: how names of images begin, by layout: the identity, and where it is known the camera
NAMES = {
    'veri_uav': re.compile(r'(\d+)_(\d\d)_'),
    'veri776': re.compile(r'(\d+)_c(\d+)_'),
    'market1501': re.compile(r'(-1|\d+)_c(\d+)(?=s\d|_)'),
    'flat': re.compile(r'([^_]+)_'),
}
_TESTS = {
    'vru': {'small': 1200, 'medium': 2400, 'large': 8000},
    'vehicleid': {'small': 800, 'medium': 1600, 'large': 2400},
    'veri_wild': {'small': 3000, 'medium': 5000, 'large': 10000},
}


@dataclass
class Reading:
    """A data set as it lies on disk.

    Attributes:
        home: the folder, or the CSV file, that was read.
        layout: one of `LAYOUTS`.
        content: what is below the folder that the user named; nothing for a CSV file.
        rows: the images.
        notes: what was left out and what is doubtful, a sentence each.
    """

    home: Path
    layout: str
    content: FolderContent
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def images(self, folder: Path) -> list[Path]:
        """The images below a folder, none where it is missing."""
        start = os.path.join(folder, '')
        return [path for path in self.content.images if os.fspath(path).startswith(start)]


def read(root: Path, home: Path, layout: str, subset: str, asked: bool) -> Reading:
    """Read the data set at `home`.

    Args:
        root: the folder or file that the user named: images below it that are not read are counted.
        home, layout: as of `find_layout`.
        subset: see `read_layout`.
        asked: whether the user requested this layout.

    Raises:
        LayoutError, FileNotFoundError, ValueError: see `read_layout`.
    """
    frames = home.is_file() or layout == 'mot'  # nothing that could be taken for images of vehicles
    reading = Reading(home, layout, FolderContent([]) if frames else scan_folder(root))
    if layout in ('auto', 'folders', 'flat'):
        _read_folders(reading)
    else:
        _READERS[layout](reading, subset)
    rows = [row._replace(vehicle=plain_name(row.vehicle)) for row in reading.rows]
    reading.rows = [row for row in rows if not is_junk(row.vehicle)]
    vehicles = Counter(row.vehicle for row in reading.rows)
    if len(vehicles) < 2:
        raise LayoutError(f'all images show one vehicle, {next(iter(vehicles))!r}' if vehicles else 'no image but junk')
    if reading.layout in ('folders', 'flat'):
        check_plausible(reading.rows, reading.layout, asked)
    paths, junk = {row.path for row in reading.rows}, len(rows) - len(reading.rows)
    unread = sum(os.fspath(path) not in paths for path in reading.content.images) - junk
    if junk or unread > 0:
        kinds = [f'{junk} junk (identity -1)'] * bool(junk) + [f'{unread} that are not part of the set'] * (unread > 0)
        reading.notes.append(f'{junk + max(unread, 0)} images are left out: {" and ".join(kinds)}')
    if twins := padded_twins(vehicles):
        reading.notes.append(
            f'{len(twins)} identities are the same number with and without leading zeros and count as different ones: '
            f'{", ".join(twins[:3])}'
        )
    if left_out := reading.content.left_out(texts=False):
        reading.notes.append(f'left out: {left_out}')
    return reading


def images_in(folder: Path) -> list[Path]:
    """The images below a folder, none where it is missing."""
    return scan_folder(folder).images if folder.is_dir() else []


def _match(layout: str, paths: list[Path]) -> Iterator[tuple[str, re.Match[str]]]:
    """The paths, and what the pattern of the layout finds at the start of their names."""
    matches = [NAMES[layout].match(path.name) for path in paths]
    wrong = [path.name for path, match in zip(paths, matches, strict=True) if not match]
    if wrong:
        raise LayoutError(
            f'{len(wrong)} of {len(paths)} names do not fit the layout {layout}: {", ".join(wrong[:3])}; it has '
            f'{LAYOUTS[layout]}'
        )
    return ((os.fspath(path), match) for path, match in zip(paths, matches, strict=True) if match)


def _need(home: Path, *names: str) -> None:
    missing = [name for name in names if not (home / name).exists()]
    if missing:
        raise LayoutError(f'no {" and no ".join(missing)} in {home.name}/')


def _lines(table: Path, shape: str, separator: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields, two at least, of each line that is not empty; `shape` says what a line has."""
    for number, line in enumerate(table.read_text(encoding='utf-8-sig', errors='replace').splitlines(), 1):
        cells = [cell.strip() for cell in line.split(separator)]
        if not line.strip():
            continue
        if len(cells) < 2 or (separator is None and len(cells) > 2):
            raise ValueError(f'{table}, line {number}: expected "{shape}", not {line!r}')
        yield f'{table}, line {number}', cells


def _stem(name: str) -> str:
    """The name of an image in a list, which may have its suffix or not."""
    return os.path.splitext(name)[0] if name.lower().endswith(image_suffixes()) else name


class _Listed:
    """Rows of lists, whose images must exist and be listed once."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.missing: list[str] = []
        self.seen: dict[str, tuple[str, str]] = {}

    def add(self, where: str, name: str, path: str | None, vehicle: str, camera: int, part: str) -> None:
        before, there = self.seen.setdefault(name, (part, where))
        # a query may be in the gallery, too
        if there != where and {before, part} != {'query', 'gallery'}:
            raise ValueError(f'{where}: image {name} is listed already in {there}')
        if path is None:
            self.missing.append(f'{where}: no image {name}')
        else:
            self.reading.rows.append(Row(path, vehicle, camera, part))

    def finish(self) -> None:
        if self.missing:
            raise FileNotFoundError(f'{self.missing[0]} ({len(self.missing)} missing in all)')
        if not self.reading.rows:
            raise LayoutError('the lists are empty')


# --- one reader for each layout ---------------------------------------------------------------------------------------


def _read_by_names(reading: Reading, subset: str) -> None:
    """VeRi-UAV, VeRi-776 and Market-1501: a folder for each part, and names that say the rest."""
    home, layout = reading.home, reading.layout
    folders = MARKET_FOLDERS if layout == 'market1501' else VERI_FOLDERS
    _need(home, *folders)
    images = {folder: reading.images(home / folder) for folder in folders}
    train, *tests = folders
    empty = [folder for folder, found in images.items() if not found]
    # a rendered set may be for the test, or for training, alone
    if empty not in ([], [train], tests):
        raise LayoutError(f'no image in {", ".join(empty)}')
    distractors = 0
    for folder, part in folders.items():
        for path, match in _match(layout, images[folder]):
            vehicle = match[1]
            if layout == 'market1501' and part == 'gallery' and not int(vehicle):
                vehicle = f'{vehicle}/{os.path.basename(path)}'  # somebody else each
                distractors += 1
            reading.rows.append(Row(path, vehicle, int(match[2]), part))
    if distractors:
        reading.notes.append(f'{distractors} distractors (identity 0) count as an identity of their own each')


def _read_vru(reading: Reading, subset: str) -> None:
    """VRU and VehicleID: lists of images and vehicles, no cameras."""
    home = reading.home
    folder = 'Pic' if reading.layout == 'vru' else 'image'
    files: dict[str, str] = {}
    for path in reading.images(home / folder):
        other = files.setdefault(path.stem, os.fspath(path))
        if other != os.fspath(path):
            raise LayoutError(f'two images are called {path.stem}: {other} and {path}')
    listed = _Listed(reading)
    tests = _TESTS[reading.layout]
    for name, part in (('train_list.txt', 'train'), (f'test_list_{tests[subset]}.txt', 'test')):
        _need(home, f'train_test_split/{name}')
        for where, (image, vehicle) in _lines(home / 'train_test_split' / name, '<image> <vehicle>'):
            listed.add(where, _stem(image), files.get(_stem(image)), vehicle, 0, part)
    listed.finish()


def _read_veri_wild(reading: Reading, subset: str) -> None:
    home, lists = reading.home, reading.home / 'train_test_split'
    size = _TESTS['veri_wild'][subset]
    parts = {'train_list': 'train', f'test_{size}_query': 'query', f'test_{size}': 'gallery'}
    _need(home, *(f'train_test_split/{name}.txt' for name in (*parts, 'vehicle_info')))
    files = {(path.parent.name, path.stem): os.fspath(path) for path in reading.images(home / 'images')}
    cameras = {
        tuple(cells[0].split('/')): cells[1]
        for _, cells in _lines(lists / 'vehicle_info.txt', '<vehicle>/<image>;<camera>;...', ';')
    }
    listed = _Listed(reading)
    for name, part in parts.items():
        for where, cells in _lines(lists / f'{name}.txt', '<vehicle>/<image>', '/'):
            vehicle, image = cells[0], _stem(cells[1])
            camera = cameras.get((vehicle, image), '')
            if not camera.isdecimal():
                raise ValueError(f'{where}: vehicle_info.txt gives no camera of {vehicle}/{image}')
            listed.add(where, f'{vehicle}/{image}', files.get((vehicle, image)), vehicle, int(camera), part)
    listed.finish()


def _read_msmt17(reading: Reading, subset: str) -> None:
    home = reading.home
    _need(home, *MSMT_LISTS)
    listed = _Listed(reading)
    for name, part in zip(MSMT_LISTS, ('train', 'query', 'gallery'), strict=True):
        side = 'train' if part == 'train' else 'test'
        folder = next((home / n for n in (side, f'mask_{side}_v2') if (home / n).is_dir()), home / side)
        for where, (file, identity) in _lines(home / name, '<file> <identity>'):
            camera = os.path.basename(file).split('_')[2:3]
            if not camera or not camera[0].isdecimal():
                raise ValueError(f'{where}: expected a file <identity>_<number>_<camera>_*, not {file!r}')
            path = folder / file
            found = os.fspath(path) if path.is_file() else None
            # both sides number their identities from 0
            vehicle = f'train_{identity}' if part == 'train' else identity
            listed.add(where, f'{folder.name}/{file}', found, vehicle, int(camera[0]), part)
    if (home / 'list_val.txt').is_file():
        reading.notes.append('the images of list_val.txt are left out')
    listed.finish()


def _read_aicity(reading: Reading, subset: str) -> None:
    listed = _Listed(reading)
    unlabeled = []
    for folder, part in VERI_FOLDERS.items():
        table = reading.home / f'{folder.removeprefix("image_")}_label.xml'
        files = {path.name: os.fspath(path) for path in reading.images(reading.home / folder)}
        labels = [item for item in _xml_items(table) if item.get('vehicleID')] if table.is_file() else []
        if files and not labels:
            unlabeled.append(folder)
        for item in labels:
            name, camera = item.get('imageName', ''), item.get('cameraID', '').lstrip('c')
            if not camera.isdecimal():
                raise ValueError(f'{table}: no cameraID of {name!r}')
            listed.add(str(table), f'{folder}/{name}', files.get(name), item['vehicleID'], int(camera), part)
    parts = {row.part for row in reading.rows}
    if ('query' in parts) != ('gallery' in parts):
        reading.rows = [row for row in reading.rows if row.part == 'train']
    if unlabeled:
        reading.notes.append(f'{", ".join(unlabeled)} without labels: their images are left out')
    listed.finish()


def _xml_items(table: Path) -> list[dict[str, str]]:
    """The attributes of each item; such files say that they are GB2312, which Python's parser does not know."""
    text = table.read_text(encoding='utf-8-sig', errors='replace')
    try:
        return [item.attrib for item in ElementTree.fromstring(re.sub(r'^\s*<\?xml.*?\?>', '', text)).iter('Item')]
    except ElementTree.ParseError as error:
        raise ValueError(f'{table}: not XML ({error})') from error


def _read_csv(reading: Reading, subset: str) -> None:
    table = reading.home
    columns = columns_of(table)
    if not {'path', 'pid'} <= set(columns):
        advice = '; save it as UTF-8, separated by commas' if re.search('[;\t\0\ufffd]', ''.join(columns)) else ''
        raise LayoutError(f'{table.name} has the columns {",".join(columns)!r}; path,pid are needed{advice}')
    known = ('path', 'pid', 'camid', 'split')
    twice = [column for column in known if columns.count(column) > 1]
    if twice:
        raise ValueError(f'{table}: two columns are called {twice[0]}')
    rows, cameras, missing = [], [], []
    seen: dict[str, tuple[str, int]] = {}
    with open(table, encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(file, fieldnames=columns)
        try:
            next(reader, None)
            for entry in reader:
                where = f'{table}, line {reader.line_num}'
                values = {column: (entry[column] or '').strip() for column in known if column in columns}
                empty = [column for column, value in values.items() if is_missing(value)]
                if empty:
                    raise ValueError(f'{where}: no {empty[0]}; give every image one, or leave the column out')
                part = values.get('split', '')
                if 'split' in values and part not in PARTS:
                    raise ValueError(f'{where}: split must be {", ".join(PARTS)}, not {part!r}')
                path = os.path.normpath(table.parent / values['path'])
                if not os.path.isfile(path) and '\\' in path:  # written on Windows
                    path = os.path.normpath(table.parent / values['path'].replace('\\', '/'))
                before, line = seen.setdefault(path, (part, reader.line_num))
                # a query may stand in the gallery, too, as in VeRi-776
                if line != reader.line_num and {before, part} != {'query', 'gallery'}:
                    raise ValueError(f'{where}: {values["path"]} is in line {line} already')
                if not os.path.isfile(path):
                    missing.append(f'{where}: no file {path}')
                cameras.append(plain_name(values.get('camid', '0')))
                rows.append(Row(path, values['pid'], part=part))
        except UnicodeDecodeError as error:
            raise ValueError(f'{table}: not UTF-8 text ({error})') from error
        except csv.Error as error:
            raise ValueError(f'{table}, line {reader.line_num}: {error}') from error
    if missing:
        raise FileNotFoundError(f'{missing[0]} ({len(missing)} missing in all)')
    if not rows:
        raise LayoutError(f'{table.name} has no rows')
    parts = {row.part for row in rows}
    if ('query' in parts) != ('gallery' in parts) or {'test', 'query'} <= parts:
        raise ValueError(f'{table}: split needs query and gallery, or test; it has {", ".join(sorted(parts))}')
    # numbers stay what they are, names are numbered
    numbers = {name: index for index, name in enumerate(sorted(set(cameras)))}
    numeric = all(name.isdecimal() and len(name) < 19 for name in numbers)
    reading.rows = [
        row._replace(camera=int(camera) if numeric else numbers[camera])
        for row, camera in zip(rows, cameras, strict=True)
    ]
    if twins := padded_twins(numbers) if numeric else []:
        reading.notes.append(f'cameras {", ".join(twins[:3])} are the same')


def _read_mot(reading: Reading, subset: str) -> None:
    from .mot import read_sequences

    reading.rows, notes = read_sequences(reading.home)
    reading.notes += notes


def _read_folders(reading: Reading) -> None:
    root = reading.home
    paths = reading.images(root)
    if not paths:
        left_out = reading.content.left_out()
        raise LayoutError('no image in this folder' + (f'; it has {left_out}' if left_out else ''))
    files = [os.fspath(path) for path in paths]
    skip = len(os.path.join(root, ''))
    places = [file[skip:].split(os.sep) for file in files]
    if reading.layout == 'auto':
        reading.layout = 'flat' if all(len(place) == 1 for place in places) else 'folders'
    layout = reading.layout
    tops = {place[0] for place in places if len(place) > 1}
    split = layout == 'folders' and (
        {'train', 'test'} <= tops
        or {'query', 'gallery'} <= tops
        or (bool(tops & set(PARTS)) and all(len(place) == 3 for place in places))
    )
    depth = 1 if layout == 'flat' else 3 if split else 2
    wrong = [os.path.join(*place) for place in places if len(place) != depth]
    if wrong:
        below = {1: 'in ROOT itself', 2: 'in <vehicle>/', 3: 'in <part>/<vehicle>/'}[depth]
        raise LayoutError(f'images must all be {below}; {len(wrong)} are not, such as {wrong[0]}')
    if layout == 'flat':
        reading.rows = [Row(path, match[1]) for path, match in _match(layout, paths)]
    elif not split:
        reading.rows = [Row(file, place[0]) for file, place in zip(files, places, strict=True)]
    elif tops - set(PARTS) or {'test', 'query'} <= tops:
        raise LayoutError(f'{", ".join(sorted(tops))} do not go together')
    else:
        reading.rows = [Row(file, place[1], part=place[0]) for file, place in zip(files, places, strict=True)]


_READERS: dict[str, Callable[[Reading, str], None]] = {
    'veri_uav': _read_by_names,
    'veri776': _read_by_names,
    'market1501': _read_by_names,
    'vru': _read_vru,
    'vehicleid': _read_vru,
    'veri_wild': _read_veri_wild,
    'msmt17': _read_msmt17,
    'aicity': _read_aicity,
    'csv': _read_csv,
    'mot': _read_mot,
}
