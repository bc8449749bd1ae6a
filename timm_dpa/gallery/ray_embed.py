"""Embedding image files to a gallery by many processes, or many machines, of a Ray cluster."""

from __future__ import annotations

import importlib
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub.utils import tqdm

from ..embedding.extractor import FeatureExtractor
from ..embedding.images import ImageError, ImageItem
from .facts import FactsTable
from .gallery import Gallery
from .ingest import IngestReport, Listing, embedded_rows, list_images
from .rows import arrow_schema, to_rows
from .store import StoreError

__all__ = ['embed_with_ray']

_LISTED = ('key', 'image', 'camera', 'time', 'track', 'vehicle', 'box', 'size', 'mtime_ns')
_REACH = 'all workers of the cluster must reach images, checkpoint and gallery at the same paths'
_THREADS = 4  # of an actor, at the most, if nothing else is asked for
_OBJECT_STORE = 100_000_000  # bytes, of a local cluster: the listing is all that goes through it
#: errors that cross to the driver as data, so that they arrive as one line and of their kind
_SPEAKING = {kind.__name__: kind for kind in (FileNotFoundError, ImportError, StoreError, ValueError)}


@dataclass(frozen=True)
class _Work:
    """What an actor is to do."""

    settings: dict[str, Any]
    uri: str
    options: dict[str, str] | None
    threads: int
    thumbnails: bool


def embed_with_ray(
    settings: Mapping[str, Any],
    images: Any,
    uri: str | os.PathLike[str],
    *,
    address: str | None = None,
    actors: int | None = None,
    threads: int | None = None,
    facts: FactsTable | None = None,
    dtype: str = 'float32',
    thumbnails: bool = True,
    on_error: str = 'report',
    save_every: int = 1000,
    progress: bool | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> IngestReport:
    """What `embed_to_gallery` does, by the actors of a Ray cluster.

    Ray Data hands blocks of the listing to actors, each of which holds an extractor and writes the rows of a block to
    the gallery in one commit. An actor or a machine that dies is replaced, where the cluster has the room, and its
    block is done again; as rows are written by key, none is there twice. After an interruption the same call embeds
    what is missing. All workers must reach images, checkpoint and gallery at the same paths, and have this version of
    timm-dpa.

    Args:
        settings: arguments of `FeatureExtractor`; `model` is a name.
        images: a path or folder, or several.
        uri: the gallery, which is made where there is none.
        address: of a running cluster: `'auto'`, or `'host:port'` of its head; None starts one on this machine. Where
            the process is connected to a cluster already, that one is used.
        actors: how many extractors; None for one on each GPU, or, without GPUs, as many as the CPUs have threads for.
        threads: of each actor; it asks the cluster for as many CPUs. None for up to 4.
        facts: what is known of the images.
        dtype: of the vectors of a new gallery.
        thumbnails: keep a small JPEG of each.
        on_error: `'report'` leaves out images that cannot be read; `'raise'` stops, and keeps what was committed.
        save_every: images in a block, 1..2000.
        progress: show a bar; None shows one on a terminal only.
        storage_options: settings of the object store, see `Gallery`.

    Raises:
        ImportError: `timm-dpa[ray]` is not installed.
        ConnectionError: no cluster at `address`.
        ValueError: wrong arguments, embeddings of other weights, or more actors than the cluster has room for.
        FileNotFoundError: something that is there is not reached by a worker.
        StoreError, ImageError: as `embed_to_gallery`.
        RuntimeError: an actor failed for another reason.
    """
    for name, value in (('actors', actors), ('threads', threads), ('save_every', save_every)):
        if value is not None and value < 1:
            raise ValueError(f'{name} must be at least 1, not {value}')
    if save_every > 2000:
        raise ValueError(f'save_every must be at most 2000, which is one commit, not {save_every}')
    check_address(address)
    ray = _ray()
    ours = FeatureExtractor(**{**settings, 'device': 'cpu', 'precision': 'fp32', 'runtime': 'torch'})
    origin, width = {**ours.origin, **ours.describe()}, ours.embedding_size
    del ours
    options = dict(storage_options) if storage_options else None
    embedded, failures = 0, dict[str, str]()
    # Ray first: it starts processes, which LanceDB's threads do not like
    with _connected(ray, address):
        count, cpus, gpus = _resources(ray, actors, threads)
        with Gallery(uri, origin=origin, create=True, dtype=dtype, width=width, storage_options=options) as gallery:
            listing = list_images(gallery, images, facts, on_error=on_error)
        blocks = _blocks(listing, width, save_every)
        work = _Work(_shared(settings), _absolute(uri), options, cpus, thumbnails)
        bar = tqdm(
            total=len(listing.pending),
            unit='image',
            desc='embedding',
            disable=None if progress is None else not progress,
        )
        with bar:
            for done in _results(ray, blocks, work, min(count, len(blocks)), gpus) if blocks else ():
                if done['kind']:
                    _raise(done)
                if done['key'] and on_error == 'raise':
                    raise ImageError(done['reason'])
                if done['key']:
                    failures[done['key']] = done['reason']
                embedded += done['embedded']
                bar.update(done['embedded'] or 1)
    return IngestReport(embedded, listing.relabeled, listing.unchanged, failures)


def check_address(address: str | None) -> None:
    """Raise ValueError for what is no address of a cluster."""
    if address not in (None, 'auto') and not re.fullmatch(r'[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}', str(address)):
        raise ValueError(
            f'{address}: the address of a Ray cluster is auto, or HOST:PORT of its head (--ray comes last)'
        )


def _ray() -> Any:
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_BACKEND_LOG_LEVEL', 'fatal')  # what matters comes as an exception
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # else it warns on machines without a GPU
    try:
        ray = importlib.import_module('ray')
        importlib.import_module('ray.data')
    except ImportError as error:
        raise ImportError(f"embedding with Ray needs ray: pip install 'timm-dpa[ray]' ({error})") from error
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """In a cluster, quietly; one that was started here ends afterwards."""
    own = not ray.is_initialized()
    if own:
        quiet = {'log_to_driver': False, 'logging_level': logging.ERROR}
        try:
            if address is None:
                ray.init(address='local', include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet)
            else:
                if address != 'auto':  # Ray itself would try for minutes
                    host, port = address.rsplit(':', 1)
                    socket.create_connection((host.strip('[]'), int(port)), timeout=10).close()
                ray.init(address=address, **quiet)
        except (OSError, RuntimeError) as error:
            if address is None:
                raise
            raise ConnectionError(
                f'{address}: no Ray cluster there; start one with: ray start --head ({str(error).splitlines()[0]})'
            ) from error
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def _resources(ray: Any, actors: int | None, threads: int | None) -> tuple[int, int, int]:
    """How many actors; CPUs and GPUs of each.

    Raises:
        ValueError: the cluster has no room for them.
    """
    nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
    nodes = [node for node in nodes if node.get('CPU')]
    gpus = sum(int(node.get('GPU', 0)) for node in nodes)
    each = 1 if gpus else 0
    if threads is None:
        shares = [int(node['CPU'] // max(1, node.get('GPU', 1))) for node in nodes if not gpus or node.get('GPU')]
        threads = max(1, min([_THREADS, *shares]))
    room = sum(
        min(int(node['CPU'] // threads), int(node.get('GPU', 0)) if gpus else int(node['CPU'])) for node in nodes
    )
    if room < (actors or 1):
        raise ValueError(
            f'the Ray cluster has no room for {actors or 1} actors with {threads} threads each, but for {room}; '
            'lower --ray-actors or --ray-threads'
        )
    return actors or room, threads, each


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that mean the same in another folder."""
    shared = dict(settings)
    if isinstance(shared.get('pretrained'), (str, os.PathLike)):
        shared['pretrained'] = os.path.abspath(shared['pretrained'])
    model = str(shared.get('model', ''))
    if model.startswith('local-dir:'):
        shared['model'] = 'local-dir:' + os.path.abspath(model[len('local-dir:') :])
    elif model and os.path.isdir(model):
        shared['model'] = os.path.abspath(model)
    return shared


def _absolute(uri: str | os.PathLike[str]) -> str:
    name = os.fspath(uri)
    return name if '://' in name else os.path.abspath(name)


def _blocks(listing: Listing, width: int, size: int) -> list[Any]:
    """The listing as Arrow tables; `path` holds bytes, as names of files do."""
    pa: Any = importlib.import_module('pyarrow')
    schema = arrow_schema(width, 'float32', {})
    blocks = []
    for start in range(0, len(listing.pending), size):
        some = listing.pending[start : start + size]
        columns = {name: pa.array([getattr(row, name) for _, row in some], schema.field(name).type) for name in _LISTED}
        columns['path'] = pa.array([os.fsencode(os.path.abspath(item.source)) for item, _ in some], pa.binary())
        blocks.append(pa.table(columns))
    return blocks


def _results(ray: Any, blocks: list[Any], work: _Work, actors: int, gpus: int) -> Iterator[dict[str, Any]]:
    """What the actors report, as they do: see `_Actor`."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ('ray.data', 'ray'):
        logging.getLogger(name).setLevel(logging.ERROR)
    data = ray.data.from_arrow(blocks).map_batches(
        _Actor,
        batch_size=None,  # a block at a time
        batch_format='pyarrow',
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(work,),
        num_cpus=work.threads,
        num_gpus=gpus,
    )
    try:
        yield from data.iter_rows()
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise RuntimeError(f'Ray: {last}; what was committed is kept, and the same call resumes') from error


def _raise(done: dict[str, Any]) -> None:
    """Raise the error that an actor reports."""
    if done['kind'] == 'FileNotFoundError':
        raise FileNotFoundError(f'{done["reason"]} (on {done["node"]}); {_REACH}')
    raise _SPEAKING.get(done['kind'], RuntimeError)(f'{done["reason"]} (on {done["node"]})')


class _Actor:
    """Embeds blocks and writes them. It makes its extractor with the first one, so that an error arrives as data.

    A call gives a table with a row for the whole block (`embedded`, the images that are committed), one for each image
    that could not be read (`key`, `reason`), or one for an error that ends the run (`kind`, `reason`, `node`).
    """

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._extractor: FeatureExtractor | None = None
        self._gallery: Gallery | None = None

    def __call__(self, block: Any) -> Any:
        try:
            embedded, failures = self._embed(block.to_pydict())
            rows = [_report(embedded=embedded)] * bool(embedded)
            rows += [_report(key=key, reason=reason) for key, reason in failures.items()]
        except (OSError, ImportError, RuntimeError, ValueError) as error:
            kind = next((name for name, known in _SPEAKING.items() if isinstance(error, known)), 'RuntimeError')
            rows = [_report(kind=kind, reason=' '.join(str(error).split()), node=socket.gethostname())]
        pa: Any = importlib.import_module('pyarrow')
        kinds = {'embedded': pa.int64(), **dict.fromkeys(('key', 'reason', 'kind', 'node'), pa.string())}
        return pa.Table.from_pylist(rows, pa.schema(kinds))

    def _embed(self, columns: dict[str, Any]) -> tuple[int, dict[str, str]]:
        paths = [os.fsdecode(path) for path in columns.pop('path')]
        rows = to_rows(columns)
        extractor, gallery = self._open()
        known = [(path, row) for path, row in zip(paths, rows, strict=True) if row.mtime_ns]  # by the driver
        if known and not any(os.path.exists(path) for path, _ in known):
            raise FileNotFoundError(f'{known[0][0]}: no such file')
        pending = [(ImageItem(path, row.key), row) for path, row in zip(paths, rows, strict=True)]
        written, failures = [], dict[str, str]()
        for some, failed in embedded_rows(extractor, pending, thumbnails=self._work.thumbnails, progress=False):
            written += some
            failures.update(failed)
        gallery.add(written)
        return len(written), failures

    def _open(self) -> tuple[FeatureExtractor, Gallery]:
        work = self._work
        if self._extractor is None:
            torch: Any = importlib.import_module('torch')
            torch.set_num_threads(work.threads)
            settings = {**work.settings, 'workers': work.settings.get('workers') or work.threads}
            self._extractor = FeatureExtractor(**settings)
        if self._gallery is None:
            origin = self._extractor.describe()  # another checkpoint on this machine is refused
            self._gallery = Gallery(work.uri, origin=origin, storage_options=work.options)
        return self._extractor, self._gallery


def _report(embedded: int = 0, key: str = '', reason: str = '', kind: str = '', node: str = '') -> dict[str, Any]:
    return {
        'embedded': embedded,
        **{
            name: value.encode('utf-8', 'backslashreplace').decode()
            for name, value in (('key', key), ('reason', reason), ('kind', kind), ('node', node))
        },
    }
