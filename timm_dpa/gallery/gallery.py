"""A gallery: embeddings of many vehicles with what is known of them, added to day by day, filtered and searched."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..embedding.files import EmbeddingsFile, check_same_origin
from . import ranking
from .exports import export_rows
from .filters import Filter
from .ranking import GalleryMatch
from .rows import COLUMNS, DTYPES, LIGHT, GalleryRow, to_columns, to_rows, unit_vectors
from .store import Store, StoreError, create_store, open_store
from .vehicles import changed_vehicles, summary

__all__ = ['EXACT_LIMIT', 'AddReport', 'Gallery', 'GalleryMatch', 'OptimizeReport', 'is_exact']

_logger = logging.getLogger(__name__)

#: rows up to which a search is exact, if nothing else is asked for
EXACT_LIMIT = 200_000
_COMMIT = 2000  # rows that are written at once: small commits make many files
_MERGE_EVERY = 20  # commits of one process, at the least
_REWRITTEN = 1_000_000  # rows at the most that a merge of small files writes again: LanceDB leaves larger files alone
_NAMES = 500  # in one filter
_SAMPLE = 100  # queries that recall is measured with


@dataclass(frozen=True)
class AddReport:
    """What `Gallery.add` did: rows that are new, that took the place of one, and that were there already."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class OptimizeReport:
    """What `Gallery.optimize` did.

    Attributes:
        rows: in the gallery.
        indexed: of them, known to the index of vectors; 0 where there is none.
        seconds: that it took.
        recall: share of the exact ten nearest rows that a search by the index finds; None without an index.
        queries: rows of the gallery that recall was measured with.
    """

    rows: int
    indexed: int
    seconds: float
    recall: float | None
    queries: int


class Gallery:
    """Rows of a gallery at an address.

    ```python
    gallery = Gallery('day', origin=extractor.describe(), create=True)
    gallery.add([GalleryRow('a.jpg', vector, camera='north', time=parse_time('2026-05-01T10:00Z'))])
    gallery.search(extractor('query.jpg'), where=Filter(cameras=['north']))
    ```

    Several processes may read and write one gallery at the same time; each sees what the others have committed.

    Args:
        uri: a folder, `s3://bucket/path`, `gs://` or `az://`, of LanceDB; or `http(s)://host:19530/NAME` of a Milvus
            server.
        origin: what makes the embeddings, as `FeatureExtractor.describe` gives it; it may have more, such as
            `FeatureExtractor.origin`. Required where a gallery is made; a gallery that is there must agree.
        create: make the gallery where there is none.
        dtype: of the vectors of a new gallery: `'float32'`, or `'float16'` for half the bytes.
        width: numbers of a vector of a new gallery. With it, the gallery is made at once, not when rows are added.
        storage_options: settings of the object store, such as `aws_endpoint`, see LanceDB; `token` and `db_name` of
            Milvus.

    Raises:
        FileNotFoundError: no gallery there, and `create` is False.
        ValueError: embeddings of another model or other weights, another dtype, a newer gallery, or something else at
            this place.
        StoreError: it cannot be reached, or it is damaged.
        ImportError: `timm-dpa[gallery]`, or for a server `timm-dpa[milvus]`, is not installed.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        origin: Mapping[str, str] | None = None,
        create: bool = False,
        dtype: str = 'float32',
        width: int | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype must be float32 or float16, not {dtype!r}')
        self.uri = os.fspath(uri)
        self._dtype, self._options, self._until_merge = dtype, storage_options, _MERGE_EVERY
        self._origin = {str(key): str(value) for key, value in (origin or {}).items()}
        self._store: Store | None
        try:
            self._store = open_store(self.uri, storage_options)
        except FileNotFoundError:
            if not create:
                raise
            if 'model' not in self._origin:
                raise ValueError('a new gallery needs origin=extractor.describe(): what makes its embeddings') from None
            self._store = None
            if width is not None:
                self._create(width)
            return
        self.check_origin(self._origin, width)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count(Filter()) if self._store else 0

    @property
    def origin(self) -> dict[str, str]:
        """What made the embeddings."""
        return dict(self._store.origin if self._store else self._origin)

    @property
    def width(self) -> int | None:
        """Numbers of a vector; None before the first row of a new gallery."""
        return self._store.width if self._store else None

    @property
    def indexed(self) -> int:
        """Rows that an index of vectors knows; 0 without one."""
        return self._store.indexed() if self._store else 0

    def count(self, where: Filter | None = None) -> int:
        """Number of rows."""
        return self._store.count(where or Filter()) if self._store else 0

    def add(self, rows: Iterable[GalleryRow], *, on_commit: Callable[[Sequence[str]], None] | None = None) -> AddReport:
        """Add rows; one whose key is there takes the place of the other.

        A row is unchanged, and not written, if its size and time of change are known and all of it but the vector and
        the thumbnail is as it is stored. Of rows of one key in one call the last counts. Two processes that write one
        key leave one row, of the one that was last.

        Args:
            rows: of unit length; read as they are needed.
            on_commit: called with the keys of each part (2,000 rows) that is safe: it survives a kill of the process,
                and in a local folder a power cut.

        Raises:
            ValueError: vectors of another width or length, or with numbers that are not finite.
            StoreError: it cannot be written, as on a full disk; parts that were committed before are kept.
        """
        added = updated = unchanged = 0
        iterator = iter(rows)
        while some := list(islice(iterator, _COMMIT)):
            latest = list({row.key: row for row in some}.values())
            store = self._store or self._create(len(latest[0].vector))
            wrong = next((row for row in latest if len(row.vector) != store.width), None)
            if wrong:
                raise ValueError(
                    f'{self.uri}: {wrong.key} has {len(wrong.vector)} numbers, the gallery {store.width}: not of one '
                    'model'
                )
            stored = self.known([row.key for row in latest if row.mtime_ns])
            changed = [row for row in latest if not _same(row, stored.get(row.key))]
            if changed:
                new, replaced = store.upsert(to_columns(changed))
                added, updated = added + new, updated + replaced
                self._committed(store)
            unchanged += len(latest) - len(changed)
            if on_commit:
                on_commit([row.key for row in latest])
        return AddReport(added, updated, unchanged)

    def known(self, keys: Sequence[str], columns: Sequence[str] = LIGHT) -> dict[str, GalleryRow]:
        """The rows of these keys that are there, by default without vectors and thumbnails, see `rows`."""
        found = {}
        for start in range(0, len(keys), _NAMES):
            for row in self.rows(Filter(keys=keys[start : start + _NAMES]), columns):
                found[row.key] = row
        return found

    def rows(self, where: Filter | None = None, columns: Sequence[str] = LIGHT) -> Iterator[GalleryRow]:
        """Rows in any order.

        Args:
            where: which.
            columns: of `COLUMNS`, what is read: by default all but `vector` and `thumbnail`.

        Raises:
            ValueError: no such column.
        """
        for name in columns:
            if name not in COLUMNS:
                raise ValueError(f'no column {name!r}; there are {", ".join(COLUMNS)}')
        names = list(dict.fromkeys(['key', *columns]))
        if self._store:
            for batch in self._store.scan(where or Filter(), names):
                yield from to_rows(batch)

    def remove(self, where: Filter) -> int:
        """Remove the rows that `where` means, and return how many.

        Raises:
            ValueError: a filter that leaves nothing out.
        """
        if not where:
            raise ValueError('a filter that leaves nothing out would remove all rows; delete the gallery instead')
        count = self._store.delete(where) if self._store else 0
        if count and self._store:
            self._committed(self._store)
        return count

    def set_vehicles(self, vehicles: Mapping[str, int | None]) -> int:
        """Give rows a vehicle; returns how many rows changed.

        Args:
            vehicles: name of a track, or key of a row -> vehicle, or None for unknown. A key comes before its track.
                Nothing else of a row is written, and what others write meanwhile stays; Milvus writes the whole row.
        """
        changed = 0
        for rows in changed_vehicles(self, vehicles, _NAMES):
            if self._store:
                changed += self._store.set_vehicles(rows)
                self._committed(self._store)
        return changed

    def search(
        self,
        vectors: Any,
        *,
        top: int = 10,
        where: Filter | None = None,
        exact: bool | None = None,
        by: str = 'image',
        rerank: int = 0,
        reranker: ranking.Reranker | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> list[list[GalleryMatch]]:
        """The most similar rows, or tracks, of each query, best first; equal ones in the order of their keys.

        Args:
            vectors: `(Q, D)` or `(D,)` of unit length.
            top: how many matches at the most.
            where: which rows count. With a filter a search is exact, as indices lose matches with one.
            exact: without the index; None for galleries up to `EXACT_LIMIT` rows. False uses an index where there is
                one, and no filter.
            by: `'track'` gives the best row of each track, and the mean of its images; a row without a track is one of
                its own.
            rerank: so many matches are put in order by k-reciprocal neighbors, 0 for none. Similarities stay cosines.
            reranker: `timm_dpa.train.evaluation.reranking.rerank`, or a function like it, for `rerank`.
            exclude: for each query keys that do not count, such as its own.

        Raises:
            ValueError: wrong shapes, numbers or options.
            StoreError: it cannot be read.
        """
        queries = unit_vectors(np.atleast_2d(np.asarray(vectors, np.float32))) if np.size(vectors) else np.empty((0, 0))
        if top < 1:
            raise ValueError(f'top must be at least 1, not {top}')
        if by not in ('image', 'track'):
            raise ValueError(f"by must be 'image' or 'track', not {by!r}")
        if rerank < 0 or (rerank and reranker is None):
            raise ValueError(
                'rerank is a number of matches, and needs reranker=timm_dpa.train.evaluation.reranking.rerank'
            )
        left_out = [frozenset(keys) for keys in exclude] if exclude is not None else [frozenset()] * len(queries)
        if len(left_out) != len(queries):
            raise ValueError(f'exclude has {len(left_out)} entries for {len(queries)} queries')
        if self._store is None or not len(queries):
            return [[] for _ in queries]
        where = where or Filter()
        task = ranking.Task(self._store, where, is_exact(self, where, exact), rerank, reranker)
        return task.by_image(queries, top, left_out) if by == 'image' else task.by_track(queries, top, left_out)

    def optimize(self, *, measure: bool = True) -> OptimizeReport:
        """Make searches fast: build or extend indices, merge small files, remove what is older than an hour.

        Args:
            measure: compare ten matches of 100 rows, themselves left out, by the index and without it.
        """
        start = time.monotonic()
        if self._store is None:
            return OptimizeReport(0, 0, 0.0, None, 0)
        self._store.optimize()
        rows, indexed = len(self), self._store.indexed()
        seconds = time.monotonic() - start
        recall, queries = ranking.measure_recall(self._store, _SAMPLE) if measure and indexed else (None, 0)
        return OptimizeReport(rows, indexed, seconds, recall, queries)

    def info(self) -> dict[str, Any]:
        """What is in the gallery, as JSON values: rows, cameras, tracks, vehicles, times, model, size in bytes."""
        return {
            'uri': self.uri,
            'width': self.width,
            'dtype': self._store.dtype if self._store else self._dtype,
            'model': self.origin.get('model', ''),
            'network_sha256': self.origin.get('network_sha256', ''),
            **summary(self._store.scan(Filter(), ('camera', 'track', 'vehicle', 'time')) if self._store else ()),
            'indexed': self.indexed,
            **(self._store.info() if self._store else {}),
        }

    def export(self, path: str | os.PathLike[str], where: Filter | None = None) -> int:
        """Write rows to a `.parquet` file (all columns) or a `.safetensors` embeddings file; returns how many.

        Raises:
            ValueError: another suffix, or no rows.
            OSError: it cannot be written; what was at `path` is still there.
        """
        if self._store is None:
            raise ValueError(f'{self.uri}: has no rows to export')
        return export_rows(self._store, Path(path), where or Filter())

    def check_origin(self, origin: Mapping[str, str], width: int | None = None) -> None:
        """Raise ValueError unless embeddings of `origin`, see `FeatureExtractor.describe`, belong in this gallery.

        Args:
            origin: without an entry `model`, nothing is compared.
            width: numbers of its vectors.
        """
        store = self._store
        if store is None or 'model' not in origin:
            return
        stored = EmbeddingsFile(np.empty((0, store.width), np.float32), [], np.empty((0, 2)), store.origin)
        known = ('source', 'checkpoint')  # where weights came from says nothing of what they are
        ours = {key: value for key, value in origin.items() if key not in known}
        check_same_origin(stored, ours, self.uri, width or store.width)

    def close(self) -> None:
        """Let go of files and connections."""
        if self._store:
            self._store.close()

    def _create(self, width: int) -> Store:
        self._store = create_store(self.uri, width, self._dtype, self._origin, self._options)
        self.check_origin(self._origin, width)  # another process may have made it meanwhile
        return self._store

    def _committed(self, store: Store) -> None:
        self._until_merge -= 1
        if self._until_merge <= 0:
            try:
                store.optimize(build=False)
            except StoreError as error:  # the rows are safe all the same
                _logger.warning('small files could not be merged: %s', error)
            self._until_merge = _commits_until_merge(len(self))


def _commits_until_merge(rows: int) -> int:
    """A merge writes the rows of all but the largest files again, and old versions keep them for an hour: at a fixed
    distance that would grow with the square of the rows, after a share of them it is a few times the rows."""
    return max(_MERGE_EVERY, min(rows, _REWRITTEN) // (4 * _COMMIT))


def is_exact(gallery: Gallery, where: Filter, exact: bool | None) -> bool:
    """Whether `Gallery.search` with these arguments looks at all rows, and not into an index."""
    return bool(where) or exact is True or (exact is None and len(gallery) <= EXACT_LIMIT) or not gallery.indexed


def _same(row: GalleryRow, stored: GalleryRow | None) -> bool:
    """Whether a row is as it is stored, as far as can be told without its vector."""
    if stored is None or not row.mtime_ns:
        return False
    for name in LIGHT:
        mine, theirs = getattr(row, name), getattr(stored, name)
        if name in ('quality', 'box'):  # which are stored as float32
            if (mine is None) != (theirs is None) or (mine is not None and not np.allclose(mine, theirs, atol=1e-4)):
                return False
        elif mine != theirs:
            return False
    return True
