"""A row of a gallery: one image of a vehicle, its embedding, and what is known of where and when it was taken."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

__all__ = [
    'COLUMNS',
    'DTYPES',
    'LIGHT',
    'Columns',
    'GalleryRow',
    'arrow_schema',
    'check_format',
    'to_columns',
    'to_rows',
    'unit_vectors',
]

#: column name -> its values: `vector` an array (N, D), the others lists of N
Columns = dict[str, Any]
DTYPES = ('float32', 'float16')
METADATA_KEY = b'timm_dpa'
#: version of the table; raised where older versions of timm-dpa could not read it
FORMAT = 1
_SLACK = 5e-3  # of the length of a vector, which float16 rounds


@dataclass
class GalleryRow:
    """One image of a vehicle.

    Attributes:
        key: what makes the row unique: the path of the image as it was given, with `#` and the place of the box where
            an image has several.
        vector: `(D,)` float32 of Euclidean length 1; empty where it was not read.
        image: path of the image, frame or video.
        camera: name of the camera; empty if unknown.
        time: milliseconds since 1970 in UTC; None if unknown.
        track: name of the track, whose images show one vehicle without a break; empty if unknown.
        vehicle: number of the vehicle; None if unknown.
        box: x1, y1, x2, y2 in pixels of the image; None for the whole image.
        quality: 0..1, how much the image tells, see `timm_dpa.gallery.pictures.quality_of`; its weight in a mean.
        thumbnail: a small JPEG file; None where there is none, or it was not read.
        size: bytes of the image file; 0 if unknown.
        mtime_ns: time of change of the image file in ns; 0 if unknown.
    """

    key: str
    vector: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    image: str = ''
    camera: str = ''
    time: int | None = None
    track: str = ''
    vehicle: int | None = None
    box: tuple[float, float, float, float] | None = None
    quality: float = 1.0
    thumbnail: bytes | None = field(default=None, repr=False)
    size: int = 0
    mtime_ns: int = 0


COLUMNS = tuple(entry.name for entry in fields(GalleryRow))
#: columns that are small: all but the vector and the thumbnail
LIGHT = tuple(name for name in COLUMNS if name not in ('vector', 'thumbnail'))


def to_columns(rows: Sequence[GalleryRow]) -> Columns:
    """Rows as columns; `vector` becomes `(N, D)` float32.

    Raises:
        ValueError: a key that is empty or no Unicode text, or vectors that `unit_vectors` refuses.
    """
    for row in rows:
        if not row.key or not _is_unicode(row.key):
            raise ValueError(f'key {row.key!r} must be text that UTF-8 can hold, and not empty')
    columns: Columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS if name != 'vector'}
    columns['vector'] = unit_vectors([row.vector for row in rows], [row.key for row in rows])
    return columns


def to_rows(columns: Columns) -> list[GalleryRow]:
    """Columns as rows; what was not read has its default."""
    names = [name for name in COLUMNS if name in columns]
    rows = [
        GalleryRow(**dict(zip(names, values, strict=True))) for values in zip(*map(columns.get, names), strict=True)
    ]
    for row in rows:
        if row.box is not None:
            x1, y1, x2, y2 = map(float, row.box)
            row.box = (x1, y1, x2, y2)
    return rows


def unit_vectors(vectors: Any, names: Sequence[str] = ()) -> np.ndarray:
    """`vectors` as `(N, D)` float32.

    Args:
        vectors: array `(N, D)`, or N arrays `(D,)`.
        names: N names for messages.

    Raises:
        ValueError: other shapes, numbers that are not finite, or a vector whose Euclidean length is not 1.
    """
    widths = {len(vector) if np.ndim(vector) == 1 else -1 for vector in vectors}
    if len(widths) > 1 or widths & {-1, 0}:
        raise ValueError(f'vectors must be (N, D) of one width, not of widths {sorted(widths)}')
    array = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(array.astype(np.float32), axis=-1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < _SLACK))  # of NaN nothing is true
    if len(wrong):
        name = names[wrong[0]] if names else f'vector {wrong[0]}'
        what = (
            'has numbers that are not finite'
            if not np.isfinite(array[wrong[0]]).all()
            else (f'has length {lengths[wrong[0]]:.4g}; embeddings have length 1')
        )
        raise ValueError(f'{name}: its embedding {what}')
    return array


def arrow_schema(width: int, dtype: str, origin: Mapping[str, str]) -> Any:
    """The Arrow schema of a table of rows.

    Args:
        width: numbers D of a vector.
        dtype: `'float32'` or `'float16'`.
        origin: what made the vectors, see `FeatureExtractor.describe`; it becomes metadata of the schema.

    Raises:
        ValueError: another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be float32 or float16, not {dtype!r}')
    pa: Any = importlib.import_module('pyarrow')
    types = {
        'key': pa.string(),
        'vector': pa.list_(pa.float16() if dtype == 'float16' else pa.float32(), width),
        'image': pa.string(),
        'camera': pa.string(),
        'time': pa.int64(),
        'track': pa.string(),
        'vehicle': pa.int64(),
        'box': pa.list_(pa.float32(), 4),
        'quality': pa.float32(),
        'thumbnail': pa.binary(),
        'size': pa.int64(),
        'mtime_ns': pa.int64(),
    }
    entries = [pa.field(name, types[name], nullable=name not in ('key', 'vector')) for name in COLUMNS]
    return pa.schema(entries, metadata={METADATA_KEY: json.dumps({'format': FORMAT, 'origin': dict(origin)})})


def check_format(metadata: str | bytes | None, location: str) -> dict[str, str]:
    """The origin in the metadata of a table.

    Raises:
        ValueError: it is no gallery, or one that a newer timm-dpa made.
    """
    try:
        content = json.loads(metadata or '')
        version, origin = int(content['format']), {str(key): str(value) for key, value in content['origin'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{location}: its table was not made by timm-dpa; name another place') from error
    if version > FORMAT:
        raise ValueError(
            f'{location}: made by a newer timm-dpa (format {version}, this one reads up to {FORMAT}); '
            'pip install -U timm-dpa'
        )
    return origin


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
