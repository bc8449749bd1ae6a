"""Rows of a gallery as a file for other programs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.files import EmbeddingsFile, save_embeddings
from ..files import atomic_file
from .filters import Filter
from .rows import COLUMNS, arrow_schema
from .store import Store

__all__ = ['export_rows']


def export_rows(store: Store, path: Path, where: Filter) -> int:
    """Write rows to `path`, see `Gallery.export`; returns how many."""
    suffix = path.suffix.lower()
    if suffix not in ('.parquet', '.safetensors'):
        raise ValueError(f'{path}: the name must end in .parquet or .safetensors')
    if not store.count(where):
        raise ValueError(f'{store.location}: no rows to export')
    return _parquet(store, path, where) if suffix == '.parquet' else _safetensors(store, path, where)


def _parquet(store: Store, path: Path, where: Filter) -> int:
    pa: Any = importlib.import_module('pyarrow')
    parquet: Any = importlib.import_module('pyarrow.parquet')
    schema = arrow_schema(store.width, 'float32', store.origin)
    # lists of free length: pyarrow before 26 cannot read a Parquet file in which a list of fixed length is missing
    schema = schema.set(schema.get_field_index('box'), pa.field('box', pa.list_(pa.float32())))
    rows = 0
    with atomic_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for batch in store.scan(where, COLUMNS):
            arrays = [
                pa.FixedSizeListArray.from_arrays(pa.array(batch[name].reshape(-1)), store.width)
                if name == 'vector'
                else pa.array(batch[name], schema.field(name).type)
                for name in COLUMNS
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            rows += len(batch['key'])
    return rows


def _safetensors(store: Store, path: Path, where: Filter) -> int:
    names: list[str] = []
    vectors, stamps = [], []
    for batch in store.scan(where, ('key', 'vector', 'size', 'mtime_ns')):
        names += batch['key']
        vectors.append(batch['vector'])
        stamps.append(np.array([batch['size'], batch['mtime_ns']], np.int64).T)
    content = EmbeddingsFile(np.concatenate(vectors), names, np.concatenate(stamps), store.origin)
    save_embeddings(path, content)
    return len(names)
