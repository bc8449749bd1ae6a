"""Embeddings files: what is in them, and how they are read and written.

An embeddings file is a safetensors file with `embeddings` `(N, D)` float32, `names` (a JSON list of N strings as UTF-8
bytes), `stamps` `(N, 2)` int64 (size in bytes and time of change in ns of each image file), and what made it as
metadata. Of boxes in frames it also has `tracks` (a JSON list of N strings), `frames` `(N,)` int64, `times` `(N,)`
float64 (seconds), `boxes` `(N, 4)` or `(N, 8)` float64 and `scores` `(N,)` float32, see `Sightings`. Other programs may
prefer NumPy, CSV or Parquet, which `save_embeddings` writes and nothing here reads.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..files import atomic_file, write_bytes

__all__ = ['SUFFIXES', 'EmbeddingsFile', 'Sightings', 'check_same_origin', 'load_embeddings', 'save_embeddings']

_FORMAT = 'timm-dpa embeddings 1'
_ROWS = 4096  # of a group of rows in a Parquet file


@dataclass
class Sightings:
    """Where and when each of N boxes was seen.

    Attributes:
        tracks: ids of the tracks, empty where they are not known.
        frames: `(N,)` int64, numbers as the boxes count.
        times: `(N,)` float64, seconds since the first frame; NaN where they are not known.
        boxes: `(N, 4)` float64 left, upper, right and lower edge, or `(N, 8)` corners, in pixels.
        scores: `(N,)` float32, confidence of the detector, 1 where it is not known.
    """

    tracks: list[str]
    frames: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def subset(self, rows: Sequence[int] | np.ndarray) -> Sightings:
        """Those of the rows."""
        rows = np.asarray(rows, np.int64)
        tracks = [self.tracks[row] for row in rows]
        return Sightings(tracks, self.frames[rows], self.times[rows], self.boxes[rows], self.scores[rows])

    def columns(self) -> dict[str, list[Any]]:
        """Name -> N values, as tables have them."""
        names = ('x1', 'y1', 'x2', 'y2') + (('x3', 'y3', 'x4', 'y4') if self.boxes.shape[1] == 8 else ())
        table = {'track': self.tracks, 'frame': self.frames.tolist(), 'time': self.times.tolist()}
        table |= {name: column.tolist() for name, column in zip(names, self.boxes.T, strict=True)}
        return {**table, 'score': [float(str(score)) for score in self.scores]}  # 0.9 and not 0.8999999761581421


@dataclass
class EmbeddingsFile:
    """Content of an embeddings file.

    Attributes:
        vectors: `(N, D)` float32 of unit length.
        names: N image paths, as they were given.
        stamps: `(N, 2)` int64, size in bytes and time of change in ns of each image file.
        metadata: what made the embeddings, see `FeatureExtractor.describe`.
        sightings: where and when, if these are boxes in frames, named `<video>#frame=<number>&track=<id>`.
    """

    vectors: np.ndarray
    names: list[str]
    stamps: np.ndarray
    metadata: dict[str, str]
    sightings: Sightings | None = None

    def to_frame(self) -> Any:
        """A pandas DataFrame with the columns that a Parquet file has: `image`, of boxes in frames also `track`,
        `frame`, `time`, the edges or corners and `score`, and `embedding`, an array `(D,)` float32 in each row.

        `numpy.stack(frame['embedding'])` is the whole again; `frame.attrs` holds the metadata.

        Raises:
            ImportError: without the package pandas.
        """
        try:
            pandas = importlib.import_module('pandas')
        except ImportError as error:
            raise ImportError(f'to_frame needs the package pandas: pip install pandas ({error})') from error
        seen = self.sightings.columns() if self.sightings else {}
        frame = pandas.DataFrame({'image': self.names, **seen, 'embedding': list(self.vectors)})
        frame.attrs.update(self.metadata)
        return frame


def save_embeddings(path: str | os.PathLike[str], content: EmbeddingsFile) -> None:
    """Write `content` in the format that the suffix of `path` names; the file appears as a whole or not at all.

    - `.safetensors`, or no suffix: an embeddings file, which holds everything, for searches and to be resumed.
    - `.npy`: the array `(N, D)` float32; the names, in the same order, are a JSON list in `<name>.names.json`.
    - `.csv`: columns `image`, `e0`, `e1`, ...; digits that give the same float32 again.
    - `.parquet`: columns `image` (string) and `embedding` (list of D float32); the metadata are those of the schema.

    Sightings are columns of the tables after the image: `track`, `frame`, `time`, `x1`, `y1`, `x2`, `y2` (also `x3`,
    `y3`, `x4`, `y4` of oriented boxes) and `score`; beside an array they are `<name>.boxes.csv`.

    Raises:
        ValueError: another suffix.
        ImportError: Parquet without the package pyarrow.
        OSError: the file cannot be written, as on a full disk; what was at `path` is still there.
    """
    path = Path(path)
    check_format(path)
    SUFFIXES[path.suffix.lower()](path, content)


def check_format(path: Path) -> None:
    """Raise the errors of `save_embeddings` that can be known before there is anything to write."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f'{path}: the name must end in {", ".join(filter(None, SUFFIXES))}, not in {suffix}')
    if suffix == '.parquet':
        _import_pyarrow(path)


def written_files(path: Path) -> list[Path]:
    """The files that `save_embeddings` writes for `path`."""
    return [path, path.with_suffix('.names.json')] if path.suffix.lower() == '.npy' else [path]


def is_resumable(path: Path) -> bool:
    """Whether a file of this name knows the images that it was made of, so that images can be added to it."""
    return SUFFIXES[path.suffix.lower()] is _save_safetensors


def _save_safetensors(path: Path, content: EmbeddingsFile) -> None:
    tensors: dict[str, np.ndarray] = {
        'embeddings': np.ascontiguousarray(content.vectors, np.float32),
        'names': np.frombuffer(json.dumps(content.names).encode(), np.uint8),
        'stamps': np.ascontiguousarray(content.stamps, np.int64),
    }
    if content.sightings is not None:
        seen = content.sightings
        tensors |= {
            'tracks': np.frombuffer(json.dumps(seen.tracks).encode(), np.uint8),
            'frames': np.ascontiguousarray(seen.frames, np.int64),
            'times': np.ascontiguousarray(seen.times, np.float64),
            'boxes': np.ascontiguousarray(seen.boxes, np.float64),
            'scores': np.ascontiguousarray(seen.scores, np.float32),
        }
    try:
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata={**_utf8(content.metadata), 'format': _FORMAT})
    except SafetensorError as error:
        raise OSError(f'{path}: cannot be written ({error})') from error


def _save_npy(path: Path, content: EmbeddingsFile) -> None:
    names_file = written_files(path)[1]
    write_bytes(names_file, json.dumps(content.names, indent=0).encode())  # first: the array tells that all is there
    if content.sightings is not None:
        _write_rows(path.with_suffix('.boxes.csv'), content)
    with atomic_file(path) as temporary, temporary.open('wb') as file:  # given a name, it may append to that
        np.save(file, np.ascontiguousarray(content.vectors, np.float32))


def _save_csv(path: Path, content: EmbeddingsFile) -> None:
    _write_rows(path, content, content.vectors.astype(np.float32, copy=False))


def _write_rows(path: Path, content: EmbeddingsFile, vectors: np.ndarray | None = None) -> None:
    """A CSV table of the images with their sightings, and of the embeddings if they are given."""
    seen = content.sightings.columns() if content.sightings is not None else {}
    numbers = np.empty((len(content.names), 0)) if vectors is None else vectors
    with (
        atomic_file(path) as temporary,
        temporary.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file,
    ):
        writer = csv.writer(file)
        writer.writerow(['image', *seen, *(f'e{k}' for k in range(numbers.shape[1]))])
        for name, vector, *cells in zip(content.names, numbers, *seen.values(), strict=True):
            writer.writerow([name, *('' if cell != cell else cell for cell in cells), *map(str, vector)])


def _save_parquet(path: Path, content: EmbeddingsFile) -> None:
    pyarrow, parquet = _import_pyarrow(path)
    width = content.vectors.shape[1]
    seen = content.sightings.columns() if content.sightings is not None else {}
    kinds = {'track': pyarrow.string(), 'frame': pyarrow.int64()}
    schema = pyarrow.schema(
        [
            ('image', pyarrow.string()),
            *((name, kinds.get(name, pyarrow.float64())) for name in seen),
            ('embedding', pyarrow.list_(pyarrow.float32(), width)),
        ],
        metadata=_utf8(content.metadata),
    )
    with atomic_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(content.names), _ROWS):
            some = np.ascontiguousarray(content.vectors[start : start + _ROWS], np.float32)
            names = [_printable(name) for name in content.names[start : start + _ROWS]]
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(some.reshape(-1)), width)
            rows = slice(start, start + _ROWS)
            cells = [pyarrow.array(column[rows], schema.field(name).type) for name, column in seen.items()]
            writer.write_table(pyarrow.Table.from_arrays([pyarrow.array(names), *cells, vectors], schema=schema))


def _import_pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module('pyarrow'), importlib.import_module('pyarrow.parquet')
    except ImportError as error:
        raise ImportError(f'{path}: Parquet needs the package pyarrow: pip install pyarrow ({error})') from error


def _printable(text: str) -> str:
    """Paths may be bytes that are not UTF-8, which text in a file cannot hold."""
    return text.encode('utf-8', 'backslashreplace').decode()


def _utf8(metadata: dict[str, str]) -> dict[str, str]:
    return {key: _printable(value) for key, value in metadata.items()}


#: suffix -> function that writes the format
SUFFIXES: dict[str, Callable[[Path, EmbeddingsFile], None]] = {
    '.safetensors': _save_safetensors,
    '': _save_safetensors,
    '.npy': _save_npy,
    '.csv': _save_csv,
    '.parquet': _save_parquet,
}


def load_embeddings(path: str | os.PathLike[str], *, mapped: bool = False) -> EmbeddingsFile:
    """Read an embeddings file.

    Args:
        path: the file.
        mapped: leave the vectors in the file, from which they are read as they are used. Whether they are finite is not
            checked then.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an embeddings file, or a damaged one.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{os.fspath(path)}: no such embeddings file')
    if Path(path).suffix.lower() in ('.npy', '.csv', '.parquet'):
        raise ValueError(
            f'{os.fspath(path)}: does not say which model made it; use the .safetensors file that timm-dpa embed writes'
        )
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = dict(file.metadata() or {})
            if metadata.pop('format', None) != _FORMAT:
                raise ValueError('it has another format')
            vectors = _mapped(path) if mapped else file.get_tensor('embeddings')
            stamps = file.get_tensor('stamps')
            names = json.loads(file.get_tensor('names').tobytes())
            sightings = None
            if 'tracks' in file.keys():  # noqa: SIM118, it is no dictionary
                tracks = json.loads(file.get_tensor('tracks').tobytes())
                sightings = Sightings(tracks, *(file.get_tensor(key) for key in ('frames', 'times', 'boxes', 'scores')))
        if vectors.ndim != 2 or not len(vectors) == len(names) == len(stamps):
            raise ValueError(f'it has {len(names)} names for embeddings of shape {vectors.shape}')
        if sightings is not None and len({len(names), *map(len, vars(sightings).values())}) > 1:
            raise ValueError('it has another number of tracks or boxes than of names')
        if not mapped and not np.isfinite(vectors).all():
            raise ValueError('it has numbers that are not finite')
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(
            f'{os.fspath(path)}: not an embeddings file, or a damaged one ({error}); make one with: timm-dpa embed'
        ) from error
    return EmbeddingsFile(vectors, names, stamps, metadata, sightings)


def _mapped(path: str | os.PathLike[str]) -> np.ndarray:
    """The embeddings in a file whose header `safe_open` has checked."""
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        entry = json.loads(file.read(length))['embeddings']
    if entry['dtype'] != 'F32' or not all(entry['shape']):
        raise ValueError(f'its embeddings are {entry["dtype"]} of shape {entry["shape"]}')
    return np.memmap(path, np.float32, 'r', 8 + length + entry['data_offsets'][0], tuple(entry['shape']))


def check_same_origin(
    stored: EmbeddingsFile, metadata: dict[str, str], path: str | os.PathLike[str], width: int
) -> None:
    """Raise ValueError unless `stored`, read from `path`, was made by what `metadata` describes."""
    theirs, ours = stored.metadata.get('model', 'another model'), metadata['model']
    if stored.vectors.shape[1] != width:
        raise ValueError(
            f'{os.fspath(path)}: its embeddings have {stored.vectors.shape[1]} numbers, those of {ours} {width}; use '
            f'the model that made them ({theirs})'
        )
    for key, value in metadata.items():
        if key == 'model' or stored.metadata.get(key) == value:
            continue
        if key == 'network_sha256':
            what = f'{theirs} with other weights' if theirs == ours else f'{theirs}, now {ours}'
        else:
            what = f'{key} {stored.metadata.get(key)}, now {value}'
        raise ValueError(f'{os.fspath(path)}: made with {what}; embeddings of the two cannot be compared')
