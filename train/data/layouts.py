"""How data sets lie on disk, and which layout a folder has. This module imports nothing heavy, so that a command's help
can list the layouts."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from timm_dpa.embedding.sequences import has_sequences

if TYPE_CHECKING:
    from .readers import Reading

__all__ = ['LAYOUTS', 'PARTS', 'SUBSETS', 'LayoutError', 'Row', 'find_layout', 'read_layout']

#: name -> how it lies on disk
LAYOUTS = {
    'veri_uav': 'image_train/ image_query/ image_test/ with <vehicle>_<camera, two digits>_*.jpg, as in VeRi-UAV',
    'vru': 'Pic/<image>.jpg and train_test_split/{train_list,test_list_1200,...}.txt, lines "<image> <vehicle>"',
    'veri776': 'image_train/ image_query/ image_test/ with <vehicle>_c<camera>_*.jpg, as in VeRi-776',
    'vehicleid': 'image/<image>.jpg and train_test_split/{train_list,test_list_800,...}.txt, lines "<image> <vehicle>"',
    'veri_wild': 'images/<vehicle>/<image>.jpg and train_test_split/{train_list,test_3000,test_3000_query,...,'
    'vehicle_info}.txt, as in VERI-Wild',
    'aicity': 'image_train/ image_query/ image_test/ and {train,query,test}_label.xml, as in CityFlow-ReID',
    'market1501': 'bounding_box_train/ query/ bounding_box_test/ with <identity>_c<camera>*.jpg, as in Market-1501 and '
    'DukeMTMC-reID',
    'msmt17': 'train/ test/ and list_{train,query,gallery}.txt, lines "<file> <identity>", as in MSMT17',
    'mot': 'frames with boxes: <sequence>/img1/ and <sequence>/gt/gt.txt as in MOTChallenge, sequences/ and '
    'annotations/ as in VisDrone-MOT, or GT/<sequence>_gt_whole.txt as in UAVDT',
    'csv': 'one .csv file with the columns path,pid and, if known, camid,split (train, query, gallery or test)',
    'folders': '<vehicle>/*.jpg, or the same below train/ test/, or below train/ query/ gallery/',
    'flat': '<vehicle>_*.jpg, no folders',
}
#: test parts of VRU, VehicleID and VERI-Wild by size
SUBSETS = ('small', 'medium', 'large')
PARTS = ('train', 'query', 'gallery', 'test')
VERI_FOLDERS = {'image_train': 'train', 'image_query': 'query', 'image_test': 'gallery'}
MARKET_FOLDERS = {'bounding_box_train': 'train', 'query': 'query', 'bounding_box_test': 'gallery'}
MSMT_LISTS = ('list_train.txt', 'list_query.txt', 'list_gallery.txt')
_VERI = ('veri_uav', 'veri776', 'aicity')  # told apart by the names of the images
_PARENT = 20  # at most so many folders in a parent of data sets; vehicles are more

#: published data sets that are not read -> files or folders that all of them have
_REFUSED = {
    'MARS (tracklets of persons)': ('bbox_train', 'bbox_test'),
    'CUHK03 as a MATLAB file': ('cuhk-03.mat',),
    'CUHK03': ('labeled', 'detected'),
    'CompCars (models of vehicles, not single ones)': ('image', 'label', 'misc'),
    'Stanford Cars (models of vehicles, not single ones)': ('cars_train', 'cars_test'),
    'BoxCars116k (pickled labels)': ('dataset.pkl', 'images'),
    'VRAI (pickled labels)': ('train_annotation.pkl',),
    'PRW or CUHK-SYSU (whole frames)': ('frames', 'annotations'),
    'VIPeR, PRID or iLIDS-VID (a folder for each camera)': ('cam_a', 'cam_b'),
    'PRID or iLIDS-VID (sequences)': ('multi_shot', 'single_shot'),
    'COCO or YOLO boxes (whole frames)': ('images', 'labels'),
}


class Row(NamedTuple):
    """One image; `part` is one of `PARTS`, or empty where the data have no split."""

    path: str
    vehicle: str
    camera: int = 0
    part: str = ''


class LayoutError(ValueError):
    """Data that do not fit a layout; `read_layout` adds what was found and what is expected."""


def read_layout(root: Path, layout: str, subset: str) -> Reading:
    """Find every image of a data set but junk (identity -1), in no particular order, and open none.

    The frames of the layout `mot` are opened once, to make its crops.

    Args:
        root: absolute path of a folder or a CSV file.
        layout: one of `LAYOUTS`, or `'auto'`: by folders and names.
        subset: test part of VRU, VehicleID or VERI-Wild, one of `SUBSETS`.

    Raises:
        FileNotFoundError: an image that a list names is missing.
        ValueError: no known layout, a reading that is not plausible, or a name or a line that does not fit; the message
            says what was found, what is expected, and what helps.
    """
    from timm_dpa.embedding.images import ImageError

    from .readers import read

    try:
        home, found = find_layout(root, layout)
        return read(root, home, found, subset, asked=layout != 'auto')
    except (LayoutError, ImageError) as error:
        raise ValueError(_explain(root, str(error), layout)) from error


def _explain(root: Path, problem: str, layout: str) -> str:
    found = ''
    if root.is_dir():
        names = sorted(e.name + '/' * e.is_dir() for e in os.scandir(root) if not e.name.startswith('.'))
        shown = ', '.join(names[:6]) or 'nothing'
        found = f' (the folder holds {shown}' + f', ... {len(names)} in all' * (len(names) > 6) + ')'
    expected = f'one of the layouts {", ".join(LAYOUTS)}' if layout == 'auto' else f'{layout}: {LAYOUTS[layout]}'
    problem = problem.removeprefix(f'{root}: ')
    return f'{root}: {problem}{found}; expected {expected}, or a .csv file with the columns path,pid'


def find_layout(root: Path, layout: str = 'auto') -> tuple[Path, str]:
    """The folder (or CSV file) that holds a data set, and its layout; `'auto'` where that is `folders` or `flat`.

    Raises:
        LayoutError: the requested layout does not fit, there are several data sets, or one that is not read.
    """
    if root.is_file():
        if root.suffix.lower() != '.csv' or layout not in ('auto', 'csv'):
            raise LayoutError(f'a file where {"a folder or a .csv file" if layout == "auto" else layout} was expected')
        return root, 'csv'
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() == '.csv' and not p.name.startswith('.'))
    if layout == 'csv':
        if len(tables) != 1:
            raise LayoutError(f'{len(tables)} .csv files in this folder; name the one to read')
        return tables[0], layout
    if layout not in ('folders', 'flat'):
        for home, kind in _published(root, layout):
            return home, kind
        if layout in ('auto', 'mot') and has_sequences(root):
            return root, 'mot'
        if layout != 'auto':
            raise LayoutError(f'not the layout {layout}')
        tables = [table for table in tables if {'path', 'pid'} <= set(columns_of(table))]
        if len(tables) > 1:
            raise LayoutError(f'{len(tables)} tables: {", ".join(t.name for t in tables)}; name the one to read')
        if tables:
            return tables[0], 'csv'
    kinds = [kind for kind, test in _MARKERS.items() if test(root)]
    if kinds:  # its folders are no vehicles, even where the user requests that
        raise LayoutError(f'this is the layout {kinds[0]}, not {layout}')
    for name, marks in _REFUSED.items():
        if all((root / mark).exists() for mark in marks):
            raise LayoutError(f'this looks like {name}, which is not read')
    return root, layout


def _published(root: Path, layout: str) -> list[tuple[Path, str]]:
    """The published data set at `root`, or else in a folder of it, if its layout is the requested one."""
    children = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith('.'))
    for homes in ([root], children if len(children) <= _PARENT else []):
        found = []
        for home in homes:
            kinds = [kind for kind, test in _MARKERS.items() if test(home)]
            if kinds and layout in ('auto', *(_VERI if kinds[0] == 'veri' else kinds)):
                found.append((home, layout if layout != 'auto' else kinds[0]))
        if len(found) > 1:
            names = ', '.join(home.name for home, _ in found)
            raise LayoutError(f'several data sets: {names}; name one of them')
        if found:
            home, kind = found[0]
            return [(home, _veri_kind(home) if kind == 'veri' else kind)]
    return []


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda home: all((home / name).exists() for name in names)


def _has_any(*names: str) -> Callable[[Path], bool]:
    return lambda home: any((home / name).exists() for name in names)


_MARKERS: dict[str, Callable[[Path], bool]] = {
    'vru': _has('Pic', 'train_test_split'),
    'veri_wild': _has('images', 'train_test_split'),
    'vehicleid': _has('image', 'train_test_split/train_list.txt'),
    'market1501': _has_any('bounding_box_train', 'bounding_box_test'),
    'msmt17': _has_any(*MSMT_LISTS),
    'veri': _has_any(*VERI_FOLDERS),
}


def _veri_kind(home: Path) -> str:
    from .readers import NAMES, images_in

    folders = ('image_query', 'image_train', 'image_test')  # the smallest first
    images = next((found for folder in folders if (found := images_in(home / folder))), [])
    for kind in ('veri776', 'veri_uav'):
        if any(NAMES[kind].match(path.name) for path in images):
            return kind
    return 'aicity' if any(home.glob('*_label.xml')) else 'veri_uav'


def columns_of(table: Path) -> list[str]:
    """The names of the columns of a CSV file."""
    with open(table, encoding='utf-8-sig', errors='replace', newline='') as file:
        return [name.strip() for name in next(csv.reader(file), [])]
