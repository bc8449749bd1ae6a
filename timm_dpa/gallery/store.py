"""What a gallery needs of the engine that holds its rows; `lance` and `milvus` provide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .filters import Filter
from .rows import Columns

__all__ = ['Store', 'StoreError', 'create_store', 'open_store']


class StoreError(RuntimeError):
    """The engine failed; the message says where and what to do."""


class Store(Protocol):
    """Rows with unique keys.

    Vectors go in and come out as `(N, D)` float32, whatever the store keeps. What a method has acknowledged by
    returning survives a kill of the process. Errors are FileNotFoundError, ValueError or StoreError with a message of
    one line that begins with the address.

    Attributes:
        location: the address, as users know it.
        width: numbers D of a vector.
        dtype: `'float32'` or `'float16'`, as the vectors are kept.
        origin: what made the vectors, and other metadata.
    """

    location: str
    width: int
    dtype: str
    origin: dict[str, str]

    def upsert(self, columns: Columns) -> tuple[int, int]:
        """Write rows, all columns of them, whose keys differ from each other; returns how many were new and how many
        took the place of a row. All of them are there afterwards, or none."""

    def set_vehicles(self, vehicles: Mapping[str, int | None]) -> int:
        """Write the vehicle of rows, key -> vehicle, and of those that are there only; returns how many."""

    def delete(self, where: Filter) -> int:
        """Remove rows; returns how many. `where` restricts something."""

    def count(self, where: Filter) -> int:
        """Number of rows."""

    def scan(self, where: Filter, columns: Sequence[str], batch_size: int = 4096) -> Iterator[Columns]:
        """Rows in batches, in any order; only `columns`. Rows that are written meanwhile may be missing."""

    def search(
        self, vectors: np.ndarray, top: int, where: Filter, columns: Sequence[str], exact: bool
    ) -> list[Columns]:
        """For each vector `(D,)` of `(Q, D)` float32 the `top` most similar rows, or fewer where there are fewer.

        `columns` come back, and `similarity`, a list of cosines; best first. `exact` is a search without the index.
        """

    def indexed(self) -> int:
        """Rows that an index of vectors knows; 0 without an index."""

    def optimize(self, build: bool = True) -> None:
        """Make searches fast: merge small files, extend indices, remove old versions; `build` missing indices."""

    def info(self) -> dict[str, Any]:
        """What is particular to the engine: `engine`, `bytes`, `version`, and the like; JSON values."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_store(uri: str, storage_options: Mapping[str, str] | None = None) -> Store:
    """The store at an address.

    Raises:
        FileNotFoundError: no gallery there.
        ValueError: something else is there, a newer version, or a wrong address.
        StoreError: it cannot be reached, or it is damaged.
        ImportError: the engine's package is not installed.
    """
    return _engine(uri).open_store(uri, storage_options)


def create_store(
    uri: str, width: int, dtype: str, origin: Mapping[str, str], storage_options: Mapping[str, str] | None = None
) -> Store:
    """A new, empty store; where another process has made one meanwhile, that one. Raises as `open_store`."""
    return _engine(uri).create_store(uri, width, dtype, origin, storage_options)


def _engine(uri: str) -> Any:
    scheme = uri.split('://', 1)[0].lower() if '://' in uri else ''
    if scheme in ('http', 'https'):
        from . import milvus

        return milvus
    if scheme not in ('', 's3', 's3+ddb', 'gs', 'az', 'file'):
        raise ValueError(
            f'{uri}: a gallery is a folder, an object store at s3://, gs:// or az://, or a Milvus server at http://'
        )
    from . import lance

    return lance
