"""Rows in Milvus: a server that a team shares, at `http(s)://host:port` or `http(s)://host:port/COLLECTION`."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .filters import Condition, Filter
from .lance import INDEX_FROM
from .milvus_errors import is_present, speaking
from .places import TABLE
from .rows import COLUMNS, FORMAT, METADATA_KEY, Columns, check_format
from .store import StoreError
from .streaming import stream_search

__all__ = ['TOKEN_VARIABLE', 'MilvusStore', 'create_store', 'open_store']

_logger = logging.getLogger(__name__)

#: environment variable: `user:password`, or a token, for the server
TOKEN_VARIABLE = 'TIMM_DPA_MILVUS_TOKEN'

_PROPERTY = METADATA_KEY.decode()  # of the collection: what made the vectors
_TIMEOUT = 60.0  # seconds until a server that does not answer is reported
_WRITTEN = 1000  # rows in one message
_BYTES = 16 << 20  # of vectors in one message; servers refuse more than 64 MB
_QUERIES = 100  # in one call
_MOST = 16_384  # matches that a server gives
_IDS = 2000  # in one filter
_UNKNOWN = -(2**63)  # number that stands for None, which servers before 2.5 cannot hold
_BEFORE_ALL = -(2**62)  # all known numbers are above it
_LONG, _SHORT = 65_535, 1024  # bytes of text
#: names of columns whose values a server may index
_INDEXED = ('camera', 'time', 'track')


def open_store(uri: str, storage_options: Mapping[str, str] | None = None) -> MilvusStore:
    """See `store.open_store`."""
    client, name = _connect(uri, storage_options)
    with speaking(uri):
        if not client.has_collection(name):
            raise FileNotFoundError(f'{uri}: no gallery; make one with: timm-dpa embed IMAGES --gallery {uri}')
        return MilvusStore(uri, client, name)


def create_store(
    uri: str, width: int, dtype: str, origin: Mapping[str, str], storage_options: Mapping[str, str] | None = None
) -> MilvusStore:
    """See `store.create_store`.

    Raises:
        ValueError: also for `dtype='float16'`, which not all servers have.
    """
    if dtype != 'float32':
        raise ValueError(f'{uri}: a gallery in Milvus keeps float32, not {dtype}')
    client, name = _connect(uri, storage_options)
    kind: Any = importlib.import_module('pymilvus').DataType
    content = json.dumps({'format': FORMAT, 'origin': dict(origin)})
    # servers keep the description, which Milvus Lite loses, while it keeps the properties
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=content)
    schema.add_field('id', kind.VARCHAR, is_primary=True, max_length=64)
    schema.add_field('vector', kind.FLOAT_VECTOR, dim=width)
    for column in ('key', 'image', 'thumbnail'):
        schema.add_field(column, kind.VARCHAR, max_length=_LONG)
    for column in ('camera', 'track'):
        schema.add_field(column, kind.VARCHAR, max_length=_SHORT)
    for column in ('time', 'vehicle', 'size', 'mtime_ns'):
        schema.add_field(column, kind.INT64)
    schema.add_field('box', kind.ARRAY, element_type=kind.FLOAT, max_capacity=4)
    schema.add_field('quality', kind.FLOAT)
    index = client.prepare_index_params()
    index.add_index('vector', index_type='FLAT', metric_type='IP')
    options = {'schema': schema, 'index_params': index, 'consistency_level': 'Strong'}
    with speaking(uri):
        try:
            client.create_collection(name, **options, properties={_PROPERTY: content})
        except Exception as error:  # another process may have been faster
            if not is_present(error):
                raise
        return MilvusStore(uri, client, name)


def _connect(uri: str, storage_options: Mapping[str, str] | None) -> tuple[Any, str]:
    """A client, and the name of the collection."""
    try:
        parts = urlsplit(uri)
        port = parts.port or 19530
    except ValueError as error:
        raise ValueError(f'{uri}: no address of a server, such as http://127.0.0.1:19530 ({error})') from error
    if parts.username or parts.password:
        raise ValueError(f'{parts.hostname}: keep passwords out of the address; set {TOKEN_VARIABLE}=user:password')
    name = parts.path.strip('/') or TABLE
    if not parts.hostname or parts.query or parts.fragment or not re.fullmatch(r'[A-Za-z_]\w{0,200}', name, re.ASCII):
        raise ValueError(f'{uri}: write http://HOST:PORT/NAME; a name has letters, digits and _')
    try:
        pymilvus: Any = importlib.import_module('pymilvus')
    except ImportError as error:
        raise ImportError(f"{uri}: needs pymilvus: pip install 'timm-dpa[milvus]' ({error})") from error
    logging.getLogger('pymilvus').setLevel(logging.CRITICAL)  # it logs a traceback of each error, which is raised too
    options: dict[str, Any] = {'token': os.environ.get(TOKEN_VARIABLE, ''), **(storage_options or {})}
    host = f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname
    with speaking(uri):
        return pymilvus.MilvusClient(f'{parts.scheme}://{host}:{port}', timeout=_TIMEOUT, **options), name


class MilvusStore:
    """A `Store` in a collection of a Milvus server, with what differs from `LanceStore`:

    Vectors are float32. Rows of one `upsert` go in messages of 1,000, so that a client that is killed between them
    leaves the first ones. Where several clients write the same key at once, counts of new rows may be too high. A
    thumbnail of more than 49,000 bytes is left out, with a warning. Until `optimize` builds an index of
    `INDEX_FROM` rows or more, all searches are exact; from then on exact ones read all vectors that the filter means.

    Args:
        location: the address.
        client: of pymilvus.
        name: of the collection.
    """

    def __init__(self, location: str, client: Any, name: str) -> None:
        self.location, self._client, self._name = location, client, name
        with self._speaking():
            about = client.describe_collection(name)
            content = (about.get('properties') or {}).get(_PROPERTY) or about.get('description')
            self.origin = check_format(content, location)
            fields = {field['name']: field for field in about['fields']}
            self.width = int(fields['vector']['params']['dim'])
            client.load_collection(name)
        self.dtype = 'float32'

    def upsert(self, columns: Columns) -> tuple[int, int]:
        vectors = np.asarray(columns['vector'], np.float32)
        if vectors.shape[1] != self.width:
            raise ValueError(f'{self.location}: its vectors have {self.width} numbers, these {vectors.shape[1]}')
        ids = [_id(key) for key in columns['key']]
        stored = self._present(ids)
        values = {name: columns[name] for name in COLUMNS if name != 'vector'}
        rows = [
            {'id': id_, 'vector': vector, **dict(zip(values, row, strict=True))}
            for id_, vector, row in zip(ids, vectors, zip(*values.values(), strict=True), strict=True)
        ]
        for row in rows:
            row['thumbnail'] = self._text_of(row['thumbnail'], row['key'])
            row['box'] = [] if row['box'] is None else [float(number) for number in row['box']]
            for name in ('time', 'vehicle'):
                row[name] = _UNKNOWN if row[name] is None else int(row[name])
        start = 0
        while start < len(rows):
            part: list[dict[str, Any]] = []
            size = 0
            while start < len(rows) and len(part) < _WRITTEN and (not part or size < _BYTES):
                part.append(rows[start])
                size += 4 * self.width + len(rows[start]['thumbnail'])
                start += 1
            with self._speaking():
                self._client.upsert(self._name, part)
        return len(ids) - stored, stored

    def set_vehicles(self, vehicles: Mapping[str, int | None]) -> int:
        """See `Store.set_vehicles`. Rows are read and written whole, as servers before 2.6 write no single columns."""
        keys, changed = list(vehicles), 0
        for start in range(0, len(keys), _IDS):
            for rows in list(self.scan(Filter(keys=keys[start : start + _IDS]), COLUMNS)):
                changed += self.upsert({**rows, 'vehicle': [vehicles[key] for key in rows['key']]})[1]
        return changed

    def delete(self, where: Filter) -> int:
        if not where:
            raise ValueError('a filter that leaves nothing out would remove all rows; delete the gallery instead')
        count = self.count(where)
        if count:
            with self._speaking():
                self._client.delete(self._name, filter=_expression(where))
        return count

    def count(self, where: Filter) -> int:
        with self._speaking():
            found = self._client.query(
                self._name, filter=_expression(where), output_fields=['count(*)'], consistency_level='Strong'
            )
        return int(found[0]['count(*)'])

    def scan(self, where: Filter, columns: Sequence[str], batch_size: int = 4096) -> Iterator[Columns]:
        most = _MOST if 'vector' not in columns else max(1, _BYTES // (4 * self.width))
        with self._speaking():
            iterator = self._client.query_iterator(
                self._name,
                batch_size=min(batch_size, most),
                filter=_expression(where),
                output_fields=list(columns),
                consistency_level='Strong',
            )
            try:
                while rows := iterator.next():
                    yield self._columns(rows, columns)
            finally:
                iterator.close()

    def search(
        self, vectors: np.ndarray, top: int, where: Filter, columns: Sequence[str], exact: bool
    ) -> list[Columns]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape[1] != self.width:
            raise ValueError(f'{self.location}: its vectors have {self.width} numbers, the queries {vectors.shape[1]}')
        if exact and self.indexed():
            return stream_search(self, vectors, top, columns, where)
        if top > _MOST:
            raise StoreError(f'{self.location}: Milvus gives {_MOST:,} matches at the most, not {top:,}')
        results: list[Columns] = []
        for start in range(0, len(vectors), _QUERIES):
            with self._speaking():
                answers = self._client.search(
                    self._name,
                    data=list(vectors[start : start + _QUERIES]),
                    filter=_expression(where),
                    limit=top,
                    output_fields=list(columns),
                    search_params={'metric_type': 'IP', 'params': {'ef': max(200, 2 * top)}},
                    consistency_level='Strong',
                )
            for answer in answers:
                best = sorted(answer, key=lambda hit: -hit['distance'])
                part = self._columns([hit['entity'] for hit in best], columns)
                results.append({**part, 'similarity': [float(hit['distance']) for hit in best]})
        return results

    def indexed(self) -> int:
        with self._speaking():
            index = self._client.describe_index(self._name, 'vector')
        return int(index['indexed_rows']) if index and index['index_type'] != 'FLAT' else 0

    def optimize(self, build: bool = True) -> None:
        """See `Store.optimize`. While an index is built for the first time, searches of others fail."""
        with self._speaking():
            self._client.flush(self._name)
            if build:
                self._index_columns()
                if not self.indexed() and self.count(Filter()) >= INDEX_FROM:
                    self._index_vectors()
            self._client.compact(self._name)

    def _index_columns(self) -> None:
        present = self._client.list_indexes(self._name)
        for name in _INDEXED:
            if name not in present:
                params = self._client.prepare_index_params()
                params.add_index(name, index_type='INVERTED', index_name=name)
                try:
                    self._client.create_index(self._name, params)
                except Exception as error:  # filters work without it
                    _logger.info('%s: no index of %s (%s)', self.location, name, error)

    def _index_vectors(self) -> None:
        params = self._client.prepare_index_params()
        params.add_index('vector', index_type='HNSW', metric_type='IP', params={'M': 16, 'efConstruction': 200})
        self._client.release_collection(self._name)
        try:
            self._client.drop_index(self._name, 'vector')
            try:
                self._client.create_index(self._name, params)
            except Exception as error:
                if not is_present(error):  # pymilvus asks again where a build takes long
                    raise
        finally:
            self._client.load_collection(self._name)

    def info(self) -> dict[str, Any]:
        with self._speaking():
            return {'engine': 'Milvus', 'version': str(self._client.get_server_version()), 'collection': self._name}

    def close(self) -> None:
        self._client.close()

    def _speaking(self) -> Any:
        return speaking(self.location)

    def _present(self, ids: Sequence[str]) -> int:
        """How many of the rows are there."""
        found = 0
        for start in range(0, len(ids), _IDS):
            with self._speaking():
                expression = _in('id', ids[start : start + _IDS])
                rows = self._client.query(
                    self._name, filter=expression, output_fields=['id'], limit=_MOST, consistency_level='Strong'
                )
            found += len(rows)
        return found

    def _text_of(self, thumbnail: bytes | None, key: str) -> str:
        text = base64.b64encode(thumbnail or b'').decode()
        if len(text) <= _LONG:
            return text
        _logger.warning(
            '%s: the thumbnail of %s has %d bytes and is left out', self.location, key, len(thumbnail or b'')
        )
        return ''

    def _columns(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Columns:
        result: Columns = {}
        for name in names:
            values = [row[name] for row in rows]
            if name == 'vector':
                result[name] = np.asarray(values, np.float32).reshape(-1, self.width)
            elif name == 'thumbnail':
                result[name] = [base64.b64decode(value) if value else None for value in values]
            elif name == 'box':
                result[name] = [list(value) if value else None for value in values]
            elif name in ('time', 'vehicle'):
                result[name] = [None if value == _UNKNOWN else int(value) for value in values]
            else:
                result[name] = values
        return result


def _id(key: str) -> str:
    """Keys have any length and letters, of which iterators of servers make expressions."""
    return hashlib.sha256(key.encode()).hexdigest()


def _expression(where: Filter) -> str:
    return ' and '.join(_condition(condition) for condition in where.conditions())


def _condition(condition: Condition) -> str:
    column, values = condition.column, condition.values
    if condition.operator == '>=':
        return f'{column} >= {max(int(values[0]), _BEFORE_ALL)}'
    if condition.operator == '<':
        return f'({column} > {_BEFORE_ALL} and {column} < {int(values[0])})'
    if column == 'key':
        column, values = 'id', tuple(_id(value) for value in values)
    return f'not ({_in(column, values)})' if condition.operator == 'not in' else _in(column, values)


def _in(column: str, values: Collection[str | int]) -> str:
    """`column in [...]`; what is not quoted by JSON does not get into an expression."""
    return f'{column} in {json.dumps(list(values), ensure_ascii=False)}' if values else 'id == ""'
