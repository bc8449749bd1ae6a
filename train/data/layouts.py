"""How data sets lie on disk: which layout a folder has, and the images that it names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from timm_dpa.embedding.images import ImageError, find_images, image_suffixes

__all__ = ['LAYOUTS', 'PARTS', 'VRU_TESTS', 'Row', 'read_layout']

#: name -> how it lies on disk
LAYOUTS = {
    'veri_uav': 'image_train/ image_query/ image_test/ with <vehicle>_<camera, two digits>_*.jpg, as in VeRi-UAV',
    'vru': 'Pic/<image>.jpg and train_test_split/{train_list,test_list_1200,...}.txt, lines "<image> <vehicle>"',
    'veri776': 'image_train/ image_query/ image_test/ with <vehicle>_c<camera>_*.jpg, as in VeRi-776',
    'csv': 'one .csv file with the columns path,pid and, if known, camid,split (train, query, gallery or test)',
    'folders': '<vehicle>/*.jpg, or the same below train/ test/, or below train/ query/ gallery/',
    'flat': '<vehicle>_*.jpg, no folders',
}
_HOMES = ('VeRi-UAV', 'VRU', 'VeRi', 'VeRi-776', 'VeRi_776')  # a parent of these will do
_VERI_FOLDERS = {'image_train': 'train', 'image_query': 'query', 'image_test': 'gallery'}
_NAMES = {
    'veri_uav': re.compile(r'(\d+)_(\d\d)_'),
    'veri776': re.compile(r'(\d+)_c(\d+)_'),
    'flat': re.compile(r'([^_]+)_'),
}
VRU_TESTS = {'small': 1200, 'medium': 2400, 'large': 8000}
PARTS = ('train', 'query', 'gallery', 'test')
_JUNK = '-1'  # as Market-1501 and its followers name what shows no vehicle: neither match nor error


class Row(NamedTuple):
    """One image; `part` is one of `PARTS`, or empty where the data have no split."""

    path: str
    vehicle: str
    camera: int = 0
    part: str = ''


def read_layout(root: Path, layout: str, subset: str) -> tuple[Path, str, list[Row]]:
    """Every image of a data set but junk (vehicle -1), in no particular order, and none opened.

    Args:
        root: absolute path of a folder or a CSV file.
        layout: one of `LAYOUTS`, or `'auto'`: by folders and names.
        subset: test list of VRU, one of `VRU_TESTS`.

    Returns:
        The folder (or CSV file) that was read, its layout, and the images.

    Raises:
        FileNotFoundError: an image that a list names is missing.
        ValueError: no known layout, or a name or a line that does not fit it; the message shows what would.
    """
    try:
        home, layout = _detect(root, layout)
        if layout in ('veri_uav', 'veri776'):
            rows = _read_veri(home, layout)
        elif layout == 'vru':
            rows = _read_vru(home, subset)
        elif layout == 'csv':
            rows = _read_csv(home)
        else:
            layout, rows = _read_folders(home, layout)
        rows = [row for row in rows if row.vehicle != _JUNK]
        if len({row.vehicle for row in rows}) < 2:
            raise _LayoutError(f'all images show one vehicle, {rows[0].vehicle!r}' if rows else 'all images are junk')
    except (_LayoutError, ImageError) as error:
        raise ValueError(_explain(root, str(error))) from error
    return home, layout, rows


class _LayoutError(ValueError):
    """Gets the accepted layouts added to its message."""


def _explain(root: Path, problem: str) -> str:
    lines = [f'{root}: {problem}']
    if root.is_dir():
        names = sorted(e.name + '/' * e.is_dir() for e in os.scandir(root) if not e.name.startswith('.'))
        lines.append(
            'found: ' + (', '.join(names[:8]) or 'nothing') + f', ... ({len(names)} in all)' * (len(names) > 8)
        )
    lines.append('expected one of these layouts:')
    lines += [f'  {name:<9} {tree}' for name, tree in LAYOUTS.items()]
    return '\n'.join(lines)


# --- which layout -----------------------------------------------------------------------------------------------------


def _detect(root: Path, layout: str) -> tuple[Path, str]:
    """The folder (or CSV file) that holds the layout, and its name; still `'auto'` for `'folders'` or `'flat'`."""
    if root.is_file():
        if root.suffix.lower() != '.csv' or layout not in ('auto', 'csv'):
            raise _LayoutError(f'a file where {"a folder or a .csv file" if layout == "auto" else layout} was expected')
        return root, 'csv'
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() == '.csv' and not p.name.startswith('.'))
    if layout == 'csv':
        if len(tables) != 1:
            raise _LayoutError(f'{len(tables)} .csv files in this folder; name the one to read')
        return tables[0], layout
    if layout in ('folders', 'flat'):
        return root, layout

    homes = [home for home in (root, *(root / name for name in _HOMES)) if _marker(home)]
    homes = [home for home in homes if layout == 'auto' or (_marker(home) == 'vru') == (layout == 'vru')]
    if len(homes) > 1 and homes[0] != root:
        raise _LayoutError(f'several data sets: {", ".join(home.name for home in homes)}; name one of them')
    if homes:
        kind = layout if layout != 'auto' else 'vru' if _marker(homes[0]) == 'vru' else _veri_names(homes[0])
        return homes[0], kind
    if layout != 'auto':
        raise _LayoutError(f'not the layout {layout}')
    tables = [table for table in tables if {'path', 'pid'} <= set(_columns(table))]
    if len(tables) > 1:
        raise _LayoutError(f'{len(tables)} tables: {", ".join(t.name for t in tables)}; name the one to read')
    if tables:
        return tables[0], 'csv'
    return root, 'auto'


def _marker(home: Path) -> str | None:
    if (home / 'Pic').is_dir() and (home / 'train_test_split').is_dir():
        return 'vru'
    return 'veri' if any((home / folder).is_dir() for folder in _VERI_FOLDERS) else None


def _veri_names(home: Path) -> str:
    folders = ('image_query', 'image_train', 'image_test')  # the smallest first
    images = next((found for folder in folders if (found := _images_in(home / folder))), [])
    return 'veri776' if any(_NAMES['veri776'].match(path.name) for path in images) else 'veri_uav'


def _images_in(folder: Path) -> list[Path]:
    try:
        return find_images(folder) if folder.is_dir() else []
    except ImageError:  # none
        return []


def _columns(table: Path) -> list[str]:
    with open(table, encoding='utf-8-sig', errors='replace', newline='') as file:
        return [name.strip() for name in next(csv.reader(file), [])]


# --- readers ----------------------------------------------------------------------------------------------------------


def _match(layout: str, paths: list[Path]) -> Iterator[tuple[str, re.Match]]:
    """The base names, matched from their start; the error names those that do not fit."""
    matches = [_NAMES[layout].match(path.name) for path in paths]
    wrong = [path.name for path, match in zip(paths, matches, strict=True) if not match]
    if wrong:
        raise _LayoutError(f'{len(wrong)} of {len(paths)} names do not fit the layout {layout}: {", ".join(wrong[:3])}')
    return ((os.fspath(path), match) for path, match in zip(paths, matches, strict=True) if match)


def _read_veri(home: Path, layout: str) -> list[Row]:
    missing = [folder for folder in _VERI_FOLDERS if not (home / folder).is_dir()]
    if missing:
        raise _LayoutError(f'no {" and no ".join(missing)} in {home.name}/')
    images = {folder: _images_in(home / folder) for folder in _VERI_FOLDERS}
    empty = [folder for folder, found in images.items() if not found]
    # a rendered set may be for the test, or for training, alone
    if empty not in ([], ['image_train'], ['image_query', 'image_test']):
        raise _LayoutError(f'no image in {", ".join(empty)}')
    return [
        Row(path, match[1], int(match[2]), part)
        for folder, part in _VERI_FOLDERS.items()
        for path, match in _match(layout, images[folder])
    ]


def _read_vru(home: Path, subset: str) -> list[Row]:
    files: dict[str, str] = {}
    for path in find_images(home / 'Pic'):
        other = files.setdefault(path.stem, os.fspath(path))
        if other != os.fspath(path):
            raise _LayoutError(f'two images are called {path.stem}: {other} and {path}')
    rows, missing = [], []
    seen: dict[str, str] = {}
    for name, part in (('train_list.txt', 'train'), (f'test_list_{VRU_TESTS[subset]}.txt', 'test')):
        table = home / 'train_test_split' / name
        if not table.is_file():
            raise _LayoutError(f'no train_test_split/{name} in {home.name}/')
        for number, line in enumerate(table.read_text(encoding='utf-8-sig', errors='replace').splitlines(), 1):
            fields = line.split()
            where = f'{table}, line {number}'
            if not fields:
                continue
            if len(fields) != 2:
                raise ValueError(f'{where}: expected "<image> <vehicle>", not {line!r}')
            image = os.path.splitext(fields[0])[0] if fields[0].lower().endswith(image_suffixes()) else fields[0]
            if image in seen:
                raise ValueError(f'{where}: image {fields[0]} is listed already in {seen[image]}')
            seen[image] = where
            if image in files:
                rows.append(Row(files[image], fields[1], part=part))
            else:
                missing.append(f'{where}: no image {fields[0]} in Pic/')
    if missing:
        raise FileNotFoundError(f'{missing[0]} ({len(missing)} missing in all)')
    if not rows:
        raise _LayoutError('the lists in train_test_split/ are empty')
    return rows


def _read_csv(table: Path) -> list[Row]:
    columns = _columns(table)
    if not {'path', 'pid'} <= set(columns):
        advice = '; save it as UTF-8, separated by commas' if re.search('[;\t\0\ufffd]', ''.join(columns)) else ''
        raise _LayoutError(f'{table.name} has the columns {",".join(columns)!r}; path,pid are needed{advice}')
    rows, cameras, missing = [], [], []
    seen: dict[str, tuple[str, int]] = {}
    with open(table, encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(file, fieldnames=columns)
        try:
            next(reader)
            for entry in reader:
                where = f'{table}, line {reader.line_num}'
                values = {c: (entry[c] or '').strip() for c in ('path', 'pid', 'camid', 'split') if c in columns}
                empty = [column for column, value in values.items() if not value]
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
                cameras.append(values.get('camid', '0'))
                rows.append(Row(path, values['pid'], part=part))
        except UnicodeDecodeError as error:
            raise ValueError(f'{table}: not UTF-8 text ({error})') from error
        except csv.Error as error:
            raise ValueError(f'{table}, line {reader.line_num}: {error}') from error
    if missing:
        raise FileNotFoundError(f'{missing[0]} ({len(missing)} missing in all)')
    if not rows:
        raise _LayoutError(f'{table.name} has no rows')
    parts = {row.part for row in rows}
    if ('query' in parts) != ('gallery' in parts) or {'test', 'query'} <= parts:
        raise ValueError(f'{table}: split needs query and gallery, or test; it has {", ".join(sorted(parts))}')
    # numbers stay what they are, names are numbered
    numbers = {name: index for index, name in enumerate(sorted(set(cameras)))}
    known = all(name.isdecimal() and len(name) < 19 for name in numbers)
    return [r._replace(camera=int(c) if known else numbers[c]) for r, c in zip(rows, cameras, strict=True)]


def _read_folders(root: Path, layout: str) -> tuple[str, list[Row]]:
    paths = find_images(root)
    files = [os.fspath(path) for path in paths]
    skip = len(os.path.join(root, ''))
    places = [file[skip:].split(os.sep) for file in files]
    if layout == 'auto':
        layout = 'flat' if all(len(place) == 1 for place in places) else 'folders'
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
        raise _LayoutError(f'images must all be {below}; {len(wrong)} are not, such as {wrong[0]}')
    if layout == 'flat':
        return layout, [Row(path, match[1]) for path, match in _match(layout, paths)]
    if not split:
        return layout, [Row(file, place[0]) for file, place in zip(files, places, strict=True)]
    if tops - set(PARTS) or {'test', 'query'} <= tops:
        raise _LayoutError(f'{", ".join(sorted(tops))} do not go together')
    return layout, [Row(file, place[1], part=place[0]) for file, place in zip(files, places, strict=True)]
