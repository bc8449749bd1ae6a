"""Rows in LanceDB: a folder, or an object store that many machines share, without a server."""

from __future__ import annotations

import importlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .durable import FolderSync
from .filters import Condition, Filter
from .lance_errors import is_conflict, newest_manifests, speaking
from .places import TABLE, is_gallery
from .rows import METADATA_KEY, Columns, arrow_schema, check_format
from .streaming import stream_search

__all__ = ['INDEX_FROM', 'LanceStore', 'create_store', 'open_store']

Result = TypeVar('Result')

#: rows from which an index of vectors is built; fewer are searched as fast without
INDEX_FROM = 50_000
_STREAMED = 20  # queries from which one pass over all vectors is cheaper than the engine's search
_ATTEMPTS = 10  # of a commit, where other processes commit at the same time
_KEPT = timedelta(hours=1)  # old versions, which readers may be using
_BATCH = 100  # queries in one call of the engine
#: a store that does not answer is reported after seconds, not minutes; options that users give come before these
_PATIENCE = {'client_max_retries': '2', 'client_retry_timeout': '20', 'connect_timeout': '5s', 'timeout': '60s'}
#: metadata of the field `key`: LanceDB's mark of a primary key, without which two writers of a new key make two rows
_KEY = b'lance-schema:unenforced-primary-key:position'
_SCALARS = {'key': 'BTree', 'time': 'BTree', 'track': 'BTree', 'vehicle': 'BTree', 'camera': 'Bitmap'}


def open_store(uri: str, storage_options: Mapping[str, str] | None = None) -> LanceStore:
    """See `store.open_store`."""
    folder = _local(uri)
    if folder is not None and not is_gallery(folder):
        raise FileNotFoundError(f'{uri}: no gallery; make one with: timm-dpa embed IMAGES --gallery {uri}')
    database = _connect(uri, storage_options)
    try:
        with speaking(uri, _table_folder(folder)):
            table = database.open_table(TABLE)
    except RuntimeError as error:
        table_folder = _table_folder(folder)
        torn = table_folder is not None and newest_manifests(table_folder)  # else another process is making it now
        if not torn and _is_missing(error.__cause__):
            raise FileNotFoundError(
                f'{uri}: no gallery; make one with: timm-dpa embed IMAGES --gallery {uri}'
            ) from error
        raise
    return LanceStore(uri, table, folder)


def create_store(
    uri: str, width: int, dtype: str, origin: Mapping[str, str], storage_options: Mapping[str, str] | None = None
) -> LanceStore:
    """See `store.create_store`."""
    folder = _local(uri)
    if folder is not None and folder.exists():
        if not folder.is_dir():
            raise ValueError(f'{uri}: is a file; a gallery is a folder')
        if not is_gallery(folder) and any(entry.name != f'{TABLE}.lance' for entry in folder.iterdir()):
            raise ValueError(f'{uri}: has other files in it; name a new or an empty folder for the gallery')
    schema = arrow_schema(width, dtype, origin)
    schema = schema.set(schema.get_field_index('key'), schema.field('key').with_metadata({_KEY: b'1'}))
    database = _connect(uri, storage_options)
    try:
        with speaking(uri, _table_folder(folder)):
            table = database.create_table(TABLE, schema=schema)
    except RuntimeError as error:
        if 'already exists' not in str(error.__cause__).lower():
            raise
        return open_store(uri, storage_options)  # another process was faster
    store = LanceStore(uri, table, folder)
    store.sync()
    return store


def _is_missing(error: BaseException | None) -> bool:
    text = str(error).lower()
    return 'was not found' in text or 'table not found' in text


def _local(uri: str) -> Path | None:
    if uri.startswith('file://'):
        return Path(uri[len('file://') :])
    return None if '://' in uri else Path(uri)


def _table_folder(folder: Path | None) -> Path | None:
    return None if folder is None else folder / f'{TABLE}.lance'


def _connect(uri: str, storage_options: Mapping[str, str] | None) -> Any:
    os.environ.setdefault('LANCEDB_LOG', 'error')  # it warns of each table that is new
    try:
        lancedb: Any = importlib.import_module('lancedb')
    except ImportError as error:
        raise ImportError(f"{uri}: galleries need lancedb: pip install 'timm-dpa[gallery]' ({error})") from error
    folder = _local(uri)
    options = {**(_PATIENCE if folder is None else {}), **(storage_options or {})} or None
    with speaking(uri, _table_folder(folder)):
        return lancedb.connect(
            uri if folder is None else str(folder),
            read_consistency_interval=timedelta(0),  # rows of other processes are seen at once
            storage_options=options,
        )


class LanceStore:
    """A `Store` in LanceDB.

    Args:
        location: the address.
        table: the open table.
        folder: the local folder that holds it; None for an object store.
    """

    def __init__(self, location: str, table: Any, folder: Path | None) -> None:
        self.location, self.folder = location, _table_folder(folder)
        self._table = table
        with self._speaking():
            schema = table.schema
        self.origin = check_format((schema.metadata or {}).get(METADATA_KEY), location)
        if _KEY not in (schema.field('key').metadata or {}):  # an older timm-dpa was killed while it made the table
            with self._speaking():
                table.set_unenforced_primary_key('key')
        kind = schema.field('vector').type
        self.width = int(kind.list_size)
        self.dtype = 'float16' if str(kind.value_type) == 'halffloat' else 'float32'
        self._schema = schema
        self._folder_sync = FolderSync(self.folder) if self.folder else None

    def sync(self) -> None:
        """Wait until all that is committed is on the disk."""
        if self._folder_sync:
            self._folder_sync()

    def upsert(self, columns: Columns) -> tuple[int, int]:
        pa: Any = importlib.import_module('pyarrow')
        vectors = np.asarray(columns['vector'])
        if vectors.shape[1] != self.width:
            raise ValueError(f'{self.location}: its vectors have {self.width} numbers, these {vectors.shape[1]}')
        arrays = []
        for entry in self._schema:
            if entry.name == 'vector':
                numbers = vectors.astype(self.dtype, copy=False).reshape(-1)
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(numbers), self.width))
            else:
                arrays.append(pa.array(columns[entry.name], entry.type))
        data = pa.Table.from_arrays(arrays, schema=self._schema)

        def merge() -> Any:
            builder = self._table.merge_insert('key').when_matched_update_all().when_not_matched_insert_all()
            return builder.execute(data)

        result = self._commit(merge)
        return int(result.num_inserted_rows), int(result.num_updated_rows)

    def set_vehicles(self, vehicles: Mapping[str, int | None]) -> int:
        pa: Any = importlib.import_module('pyarrow')
        schema = pa.schema([self._schema.field('key'), self._schema.field('vehicle')])
        data = pa.Table.from_pydict({'key': list(vehicles), 'vehicle': list(vehicles.values())}, schema=schema)
        merge = self._table.merge_insert('key').when_matched_update_all()
        return int(self._commit(lambda: merge.execute(data)).num_updated_rows)

    def delete(self, where: Filter) -> int:
        sql = _sql(where)
        if not sql:
            raise ValueError('a filter that leaves nothing out would remove all rows; delete the gallery instead')
        count = self.count(where)
        if count:
            self._commit(lambda: self._table.delete(sql))
        return count

    def count(self, where: Filter) -> int:
        with self._speaking():
            return int(self._table.count_rows(_sql(where) or None))

    def scan(self, where: Filter, columns: Sequence[str], batch_size: int = 4096) -> Iterator[Columns]:
        with self._speaking():
            query = self._table.search().select(list(columns))
            if where:
                query = query.where(_sql(where))
            for batch in query.to_batches(batch_size):
                if batch.num_rows:
                    yield self._columns(batch, columns)

    def search(
        self, vectors: np.ndarray, top: int, where: Filter, columns: Sequence[str], exact: bool
    ) -> list[Columns]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape[1] != self.width:
            raise ValueError(f'{self.location}: its vectors have {self.width} numbers, the queries {vectors.shape[1]}')
        if exact and not where and len(vectors) >= _STREAMED:
            return stream_search(self, vectors, top, columns)
        results = []
        with self._speaking():
            nprobes = 0 if exact else max(20, math.isqrt(self._table.count_rows()) // 20)
            for start in range(0, len(vectors), _BATCH):
                some = vectors[start : start + _BATCH]
                query = self._table.search(some if len(some) > 1 else some[0], vector_column_name='vector')
                query = query.distance_type('dot').select([*columns, '_distance']).limit(top)
                query = query.bypass_vector_index() if exact else query.nprobes(nprobes).refine_factor(10)
                if where:
                    query = query.where(_sql(where), prefilter=True)
                results += self._split(query.to_arrow(), len(some), columns)
        return results

    def indexed(self) -> int:
        with self._speaking():
            name = self._vector_index()
            statistics = self._table.index_stats(name) if name else None
        return int(statistics.num_indexed_rows) if statistics else 0

    def optimize(self, build: bool = True) -> None:
        index: Any = importlib.import_module('lancedb.index')
        rows = self.count(Filter())
        if build and rows:
            with self._speaking():
                present = {entry.columns[0] for entry in self._table.list_indices()}
            for name, kind in _SCALARS.items():
                if name not in present:
                    config = getattr(index, kind)()
                    self._commit(partial(self._table.create_index, name, config=config))
            if rows >= INDEX_FROM and 'vector' not in present:
                config = index.IvfRq(distance_type='dot')
                self._commit(lambda: self._table.create_index('vector', config=config))
        self._commit(lambda: self._table.optimize(cleanup_older_than=_KEPT))

    def info(self) -> dict[str, Any]:
        with self._speaking():
            statistics = self._table.stats()
            version = self._table.version
        size = int(statistics['total_bytes'] if isinstance(statistics, dict) else statistics.total_bytes)
        if self.folder:  # with indices and old versions
            size = sum(path.stat().st_size for path in self.folder.rglob('*') if path.is_file())
        return {'engine': 'LanceDB', 'bytes': size, 'version': int(version)}

    def close(self) -> None:
        self._table = None

    def _speaking(self) -> Any:
        return speaking(self.location, self.folder)

    def _commit(self, write: Callable[[], Result]) -> Result:
        """Write, again where other processes commit at the same time, and wait for the disk."""
        with self._speaking():
            for attempt in range(_ATTEMPTS):
                try:
                    result = write()
                    break
                except Exception as error:
                    if attempt == _ATTEMPTS - 1 or not is_conflict(error):
                        raise
                    time.sleep(random.uniform(0.02, 0.1) * (attempt + 1))
                    self._table.checkout_latest()
            self.sync()
        return result

    def _vector_index(self) -> str:
        return next((str(entry.name) for entry in self._table.list_indices() if entry.columns[0] == 'vector'), '')

    def _columns(self, batch: Any, names: Sequence[str]) -> Columns:
        result: Columns = {}
        for name in names:
            column = batch.column(name)
            if name == 'vector':
                flat = column.combine_chunks() if hasattr(column, 'combine_chunks') else column
                numbers = flat.flatten().to_numpy(zero_copy_only=False)
                result[name] = numbers.reshape(-1, self.width).astype(np.float32, copy=False)
            else:
                result[name] = column.to_pylist()
        return result

    def _split(self, found: Any, queries: int, columns: Sequence[str]) -> list[Columns]:
        """The rows of each query out of the table of all."""
        similarity = 1 - found.column('_distance').to_numpy()
        of_query = found.column('query_index').to_numpy() if queries > 1 else np.zeros(len(similarity), int)
        results = []
        for index in range(queries):
            places = np.flatnonzero(of_query == index)
            places = places[np.argsort(-similarity[places], kind='stable')]
            part = self._columns(found.take(places), columns)
            results.append({**part, 'similarity': similarity[places].tolist()})
        return results


def _sql(where: Filter) -> str:
    return ' AND '.join(_condition(condition) for condition in where.conditions())


def _condition(condition: Condition) -> str:
    if condition.operator in ('>=', '<'):
        return f'{condition.column} {condition.operator} {int(condition.values[0])}'
    if not condition.values:
        return 'false' if condition.operator == 'in' else 'true'
    values = ', '.join(_literal(value) for value in condition.values)
    if condition.operator == 'in':
        return f'{condition.column} IN ({values})'
    return f'({condition.column} IS NULL OR {condition.column} NOT IN ({values}))'


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"
