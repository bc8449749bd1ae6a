"""Graphs that runtimes load: exported once, checked, and kept in a cache folder for all processes of a user."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import locked, write_bytes

__all__ = ['cache_folder', 'cached_graph', 'remembered']

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where timm-dpa keeps what can be made again: `$TIMM_DPA_CACHE`, or `timm_dpa` in the cache folder of the user.

    That is `$XDG_CACHE_HOME`, or `~/.cache`. Where it cannot be written, it is a temporary folder, and a warning says
    so: it ends with the process.
    """
    named = os.environ.get('TIMM_DPA_CACHE')
    folder = Path(named) if named else Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'timm_dpa'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        return _temporary_folder(folder, str(error))


@cache
def _temporary_folder(wanted: Path, reason: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix='timm-dpa-cache-'))
    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    _logger.warning(
        '%s cannot be written (%s): graphs are exported again by each process; set TIMM_DPA_CACHE to another folder',
        wanted,
        reason,
    )
    return folder


def cached_graph(model: nn.Module, network_sha256: str, size: tuple[int, int]) -> Path:
    """The ONNX file of `model` for images of `size`; it takes bytes, `(N, 3, H, W)` RGB, and is in float32.

    It is exported at the first call, which takes seconds, and checked against PyTorch to 1e-4 in each component. The
    name is a digest of the weights, the structure, the size, the preprocessing and the versions of what writes it, so
    that a change of any makes another file. Processes that want the same file wait for the one that writes it.

    Args:
        model: a timm model on any device.
        network_sha256: digest of its weights.
        size: height and width in pixels.

    Raises:
        ExportError: the extra `export` is missing, or the graph cannot be exported.
    """
    from .export import export_model
    from .export_metadata import data_config_of

    config = data_config_of(model)
    key = _digest(
        network_sha256,
        repr(model),  # what decides the output beside the weights: activations, epsilons
        size,
        [config['mean'], config['std']],
        [_version(name) for name in ('timm-dpa', 'timm', 'torch', 'onnx', 'onnxscript', 'onnxruntime')],
    )
    path = cache_folder() / 'graphs' / f'{key}.onnx'
    with _made_once(path) as missing:
        if missing:
            _logger.info('exporting the graph of %s, once: %s', type(model).__name__, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            export_model(model, path, image_size=size, input='uint8-rgb')
    return path


def remembered(
    graph: Path, runtime: str, package: str, precision: str, check: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `check` found with this graph, version of the runtime and kind of processor, now or at an earlier time."""
    processor = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    name = f'{graph.stem}.{runtime}-{precision}-{_digest(_version(package), processor)[:12]}.json'
    path = graph.with_name(name)
    if not path.exists():
        write_bytes(path, json.dumps({'runtime': runtime, 'version': _version(package), **check()}).encode())
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


@contextmanager
def _made_once(path: Path) -> Iterator[bool]:
    """Whether `path` is missing, while no other process makes it."""
    if path.exists():
        yield False
        return
    while True:
        lock = locked(path.with_name(f'.{path.name}.lock'), path)
        try:
            lock.__enter__()
            break
        except BlockingIOError:  # whoever holds it is writing the file
            time.sleep(0.1)
    try:
        yield not path.exists()
    finally:
        lock.__exit__(None, None, None)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
