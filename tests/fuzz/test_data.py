"""Folders and CSV files of all shapes: refused in a line, or each image is read or reported, of the right vehicle."""

import csv
import os
import re
import shutil
from collections import defaultdict
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.budget import EXAMPLES
from timm_dpa.train.data.datasets import load_data

pytestmark = pytest.mark.slow

#: names that no vehicle has
PARTS = (
    'train',
    'test',
    'val',
    'query',
    'gallery',
    'images',
    'image_train',
    'image_query',
    'image_test',
    'bounding_box_train',
)
FOLDERS = (
    *PARTS,
    '0001',
    '0002',
    '1',
    'car a',
    'täxi',
    'bounding_box_test',
    'cam1',
    'Pic',
    '@eaDir',
    '.thumbnails',
    '__MACOSX',
)
FILES = (
    'a.jpg',
    'b.JPEG',
    'c.png',
    '0001_01_001.jpg',
    '0001_c001_1.jpg',
    '0002_02_002.jpg',
    '0002_c2s1_7.jpg',
    '-1_01_1.jpg',
    'x.txt',
    'y.xyz',
    'Thumbs.db',
)
HIDDEN = re.compile(r'(^|/)(\.[^/]+|@eaDir|__MACOSX)(/|$)', re.IGNORECASE)
OPTIONS = {'deadline': None, 'suppress_health_check': list(HealthCheck), 'database': None}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz')
    Image.new('RGB', (8, 8)).save(folder / 'image.jpg')
    return folder


def _load(path):
    """The data, or the one line that refuses them."""
    try:
        return load_data(path, warn=False), ''
    except (ValueError, FileNotFoundError) as error:
        return None, str(error)


def _check_refusal(message, path):
    assert str(path) in message
    assert '\n' not in message
    assert len(message) < 700 + len(str(path))


def _read(data):
    return {*data.train.paths, *data.test.paths, *data.query.paths, *data.gallery.paths}


paths = st.lists(
    st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(FILES)).map(
        lambda t: '/'.join((*t[0], t[1]))
    ),
    min_size=1,
    max_size=30,
)


@seed(20261127)
@settings(max_examples=12 * EXAMPLES, **OPTIONS)
@given(paths)
def test_trees(root, names):
    tree = root / 'tree'
    shutil.rmtree(tree, ignore_errors=True)
    for name in names:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(root / 'image.jpg', path)
    data, message = _load(tree)
    if data is None:
        _check_refusal(message, tree)
        return
    images = {
        str(tree / name)
        for name in names
        if name.lower().endswith(('.jpg', '.jpeg', '.png')) and not HIDDEN.search(name)
    }
    missed = images - _read(data)
    assert not missed or any(str(len(missed)) in note for note in data.notes), (missed, data.notes)
    assert _read(data) <= images
    assert not {name.lower() for name in data.identities} & set(PARTS), data.identities
    read = {os.path.relpath(path, tree) for path in images}
    others = [name for name in set(names) if name not in read and not name.endswith('.txt')]
    assert not others or data.notes, 'files were left out without a word'


@seed(20261127)
@settings(max_examples=2 * EXAMPLES, **OPTIONS)
@given(st.integers(4, 8), st.integers(2, 5), st.sampled_from(FOLDERS[10:14]), st.booleans())
def test_folders_of_vehicles_are_read(root, vehicles, images, more, part):
    """What is right is not refused."""
    tree = root / 'tree'
    shutil.rmtree(tree, ignore_errors=True)
    expected = defaultdict(set)
    for vehicle in range(vehicles):
        for number in range(images):
            path = (
                tree
                / ('train' if part and vehicle % 2 else 'test' if part else '')
                / f'{more}{vehicle}'
                / f'{number}.jpg'
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / 'image.jpg', path)
            expected[f'{more}{vehicle}'].add(str(path))
    data, message = _load(tree)
    assert data is not None, message
    found = defaultdict(set)
    for split in (data.train, data.test):
        for path, pid in zip(split.paths, split.pids, strict=True):
            found[data.identities[pid]].add(path)
    assert found == expected


numbers = st.integers(-1, 12)
ids = st.one_of(
    numbers.map(str), numbers.map(lambda n: f'{n}.0'), st.sampled_from(('car a', 'T-1', '0x1', '1e1', ' 3 '))
)


def _same(text):
    """One name for an id however it was written: an integral number, or the text."""
    text = text.strip()
    try:
        value = Decimal(text)
    except ArithmeticError:
        return text
    return int(value) if value == int(value) and 'e' not in text.lower() else text


@seed(20261127)
@settings(max_examples=6 * EXAMPLES, **OPTIONS)
@given(
    st.lists(st.tuples(ids, ids), min_size=4, max_size=25),
    st.sampled_from(
        (('path', 'pid'), ('path', 'pid', 'camid'), ('pid', 'path', 'camid'), ('image', 'id'), ('path', 'pid', 'x'))
    ),
    st.sampled_from((',', ';', '\t')),
    st.sampled_from(('utf-8', 'utf-8-sig', 'utf-16')),
)
def test_tables(root, rows, header, delimiter, encoding):
    folder = root / 'table'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    table = folder / 'data.csv'
    with open(table, 'w', newline='', encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        for number, (pid, camera) in enumerate(rows):
            os.link(root / 'image.jpg', folder / f'{number}.jpg')
            cell = {'path': f'{number}.jpg', 'image': f'{number}.jpg', 'pid': pid, 'id': pid, 'camid': camera, 'x': 'x'}
            writer.writerow([cell[name] for name in header])
    data, message = _load(table)
    if data is None:
        _check_refusal(message, table)
        return
    assert {'path', 'pid'} <= set(header)
    kept = {str(folder / f'{number}.jpg'): pid for number, (pid, _) in enumerate(rows) if _same(pid) != -1}
    found = {}
    for split in (data.train, data.test):
        found.update(zip(split.paths, (data.identities[pid] for pid in split.pids), strict=True))
    assert found.keys() - kept.keys() <= {
        str(folder / f'{n}.jpg') for n, (pid, _) in enumerate(rows) if _same(pid) == -1
    }
    assert kept.keys() <= found.keys() or data.notes
    groups = defaultdict(set)
    for path, pid in kept.items():
        if path in found:
            groups[found[path]].add(_same(pid))
    assert all(len(group) == 1 for group in groups.values()), 'two vehicles became one'
    names = defaultdict(set)
    for path, pid in kept.items():
        if path in found:
            names[_same(pid)].add(found[path])
    assert all(len(group) == 1 for group in names.values()), 'one vehicle became two'
