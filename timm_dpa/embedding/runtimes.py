"""Runtimes that compute embeddings in place of PyTorch on a CPU: onnxruntime and OpenVINO, on a checked ONNX graph."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import resolve_data_config

from .models import autocast_dtype, network_sha256
from .runtime_cache import cached_graph, remembered
from .view import evaluation_view

__all__ = ['RUNTIMES', 'GraphRuntime', 'check_runtime', 'choose_runtimes', 'open_runtime']

_logger = logging.getLogger(__name__)

#: what computes embeddings
RUNTIMES = ('torch', 'onnxruntime', 'openvino', 'auto')
#: precision -> runtimes by speed on a CPU, fastest first, as benchmarks/runtimes.py measures them; see docs/runtimes.md
_ORDER = {
    'fp32': ('onnxruntime', 'openvino', 'torch'),
    'bf16': ('openvino', 'torch'),
    'fp16': ('torch',),
    'auto': ('openvino', 'onnxruntime', 'torch'),
    # where torch itself takes bf16, see `autocast_dtype`
    'auto, torch in bf16': ('openvino', 'torch'),
}
#: what a runtime must keep to PyTorch in float32: components in float32, cosines in bf16
MAX_DIFFERENCE, MIN_COSINE = 1e-4, 0.999
_SETTINGS = {'onnxruntime': ('auto', 'fp32'), 'openvino': ('auto', 'fp32', 'bf16')}
_EXTRAS = {'onnxruntime': 'export', 'openvino': 'openvino'}


def check_runtime(runtime: str) -> None:
    """Raise ValueError for an unknown runtime."""
    if runtime not in RUNTIMES:
        raise ValueError(f'unknown runtime {runtime!r}; choose one of {", ".join(RUNTIMES)}')


def choose_runtimes(runtime: str, precision: str, device: torch.device, by_name: bool) -> tuple[str, ...]:
    """The runtimes that are meant, to be tried in this order: one, or for `'auto'` those installed, fastest first.

    The order is a rule that was measured. A GPU computes with torch, and so does a module, whose weights may change. On
    a CPU it is OpenVINO, then onnxruntime, but torch before onnxruntime where torch computes in bf16; in float32 it is
    onnxruntime first. torch, which can do everything, ends the list.

    Args:
        runtime: a name in `RUNTIMES`.
        precision: as in `FeatureExtractor`.
        device: where the model is.
        by_name: whether the model was given by name, so that nobody else holds it.

    Raises:
        ValueError: an unknown runtime, or one that cannot do it.
        ImportError: its package is missing.
    """
    check_runtime(runtime)
    if runtime == 'auto':
        if device.type != 'cpu' or not by_name:
            return ('torch',)
        in_bf16 = precision == 'auto' and autocast_dtype('auto', device) is not None
        order = _ORDER['auto, torch in bf16' if in_bf16 else precision]
        return tuple(name for name in order if name == 'torch' or _is_installed(name))
    if runtime == 'torch':
        return (runtime,)
    if not by_name:
        raise ValueError(
            f'runtime {runtime!r} computes with the weights that there are when it starts, and those of a module may '
            "change; give the model by name or folder, or take runtime='torch'"
        )
    if device.type != 'cpu':
        raise ValueError(f"runtime {runtime!r} is for the CPU, not for {device}; take device='cpu' or runtime='torch'")
    if precision not in _SETTINGS[runtime]:
        raise ValueError(f'runtime {runtime!r} has no precision {precision!r}; choose {", ".join(_SETTINGS[runtime])}')
    _import(runtime)
    return (runtime,)


def _is_installed(runtime: str) -> bool:
    """Whether a runtime, and what exports its graph, can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in (runtime, 'onnx', 'onnxscript', 'onnxruntime'))


def _import(runtime: str) -> Any:
    try:
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            importlib.import_module(name)
        return importlib.import_module(runtime)
    except ImportError as error:
        extra = _EXTRAS[runtime]
        raise ImportError(
            f"runtime {runtime!r} needs more packages: pip install 'timm-dpa[{extra}]' ({error})"
        ) from error


class RuntimeMismatchError(RuntimeError):
    """A runtime does not give the embeddings of a model."""


class GraphRuntime(ABC):
    """A graph in a runtime, which is loaded when it is first needed.

    Several threads may call it at once. A process that is forked after it was used loads the graph anew, as the threads
    of the runtime are not copied; so does a copy by pickle. After `close` the next call loads it again.

    Args:
        path: an ONNX file that takes bytes, `(N, 3, H, W)` RGB.
        size: H and W.
        embedding_size: width of the embeddings.
        precision: `'auto'` for the runtime's own choice, `'fp32'`, or `'bf16'`.
        threads: that compute.
    """

    name: str

    def __init__(self, path: Path, size: tuple[int, int], embedding_size: int, precision: str, threads: int) -> None:
        self.path, self.size, self.embedding_size = path, size, embedding_size
        self.precision, self.threads = precision, threads
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key[0] != '_'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def close(self) -> None:
        """Free the graph, its memory and its threads."""
        with self._lock:
            self._loaded = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """`(B, 3, H, W)` uint8 RGB, B at least 1 -> `(B, D)` float32 of unit length."""
        return self._run(self._graph(), pixels)

    def embed(self, pixels: torch.Tensor, flip: bool = False) -> torch.Tensor:
        """The same for tensors; with `flip`, of each image and its mirror image.

        Raises:
            ValueError: images of another size than the graph was made for.
        """
        if tuple(pixels.shape[2:]) != self.size:
            height, width = self.size
            raise ValueError(f'the graph takes images of {height} x {width} pixels, not {tuple(pixels.shape[2:])}')
        if not len(pixels):
            return torch.empty(0, self.embedding_size)
        content = np.ascontiguousarray(pixels.cpu().numpy())
        # in float32: bf16 leaves a length that is 1 to three digits
        embedding = F.normalize(torch.from_numpy(self(content)), dim=1)
        if flip:
            mirrored = torch.from_numpy(self(np.ascontiguousarray(content[..., ::-1])))
            embedding = F.normalize(embedding + F.normalize(mirrored, dim=1), dim=1)
        return embedding

    def _graph(self) -> Any:
        process = os.getpid()
        loaded = self._loaded
        if loaded is None or loaded[0] != process:
            if loaded is not None:
                self._lock = threading.Lock()  # a thread that is not here may have held it
                _KEPT.append(loaded)
            with self._lock:
                if self._loaded is None or self._loaded[0] != process:
                    if not self.path.is_file():
                        raise FileNotFoundError(
                            f'{self.path}: the graph is gone from the cache; make the extractor anew'
                        )
                    self._loaded = process, self._load()
                loaded = self._loaded
        return loaded[1]

    @abstractmethod
    def _load(self) -> Any: ...

    @abstractmethod
    def _run(self, graph: Any, pixels: np.ndarray) -> np.ndarray: ...

    @property
    def computes_in(self) -> str:
        """`'fp32'` or `'bf16'`."""
        return 'fp32'


#: graphs of a parent process; to free one would wait for threads that are not here
_KEPT: list[Any] = []


class OnnxRuntime(GraphRuntime):
    """onnxruntime on the CPU, in float32."""

    name = 'onnxruntime'

    def _load(self) -> Any:
        onnxruntime = _import(self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.path, options, providers=['CPUExecutionProvider'])

    def _run(self, graph: Any, pixels: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = graph.run(['embeddings'], {'images': pixels})[0]
        return vectors


class OpenVino(GraphRuntime):
    """OpenVINO on the CPU: bf16 where the processor has it and the precision is left to it, else float32."""

    name = 'openvino'

    def _load(self) -> Any:
        openvino = _import(self.name)
        settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': self.threads}
        if self.precision != 'auto':
            settings['INFERENCE_PRECISION_HINT'] = {'fp32': 'f32', 'bf16': 'bf16'}[self.precision]
        return openvino.Core().compile_model(self.path, 'CPU', settings), threading.local()

    def _run(self, graph: Any, pixels: np.ndarray) -> np.ndarray:
        compiled, local = graph
        if not hasattr(local, 'request'):
            local.request = compiled.create_infer_request()  # one for each thread, which it may not be shared by
        vectors: np.ndarray = np.array(local.request.infer([pixels])[0])  # a copy: the request writes there again
        return vectors

    @property
    def computes_in(self) -> str:
        """`'fp32'` or `'bf16'`, which is what OpenVINO chose where the precision is `'auto'`."""
        name = self._graph()[0].get_property('INFERENCE_PRECISION_HINT').get_type_name()
        return {'bf16': 'bf16', 'f32': 'fp32'}.get(name, name)


def open_runtime(
    runtimes: Sequence[str], model: Any, size: tuple[int, int], precision: str
) -> tuple[str, GraphRuntime | None]:
    """The first runtime that gives the embeddings of a model, and the model's graph in it, which is None for torch.

    Beside the check of the graph itself, the first use of a runtime is compared with PyTorch on four random images: to
    1e-4 in each component where it computes in float32, to a cosine of 0.999 in bf16. The cache remembers it.
    A runtime that fails, and that another one follows, is left out with a warning.

    Args:
        runtimes: of `choose_runtimes`.
        model: a timm model, on the CPU for all but torch.
        size: height and width of images in pixels.
        precision: `'auto'`, `'fp32'` or, for OpenVINO, `'bf16'`.

    Raises:
        ExportError: the graph cannot be exported.
        RuntimeError: the last runtime computes something else.
    """
    for name in runtimes[:-1]:
        try:
            return name, _open(name, model, size, precision)
        except RuntimeMismatchError as error:
            _logger.warning('%s', error)
    return runtimes[-1], _open(runtimes[-1], model, size, precision)


def _open(runtime: str, model: Any, size: tuple[int, int], precision: str) -> GraphRuntime | None:
    if runtime == 'torch':
        return None
    graph = cached_graph(model, network_sha256(model), size)
    kind = {'onnxruntime': OnnxRuntime, 'openvino': OpenVino}[runtime]
    height, width = size
    opened = kind(graph, (height, width), int(model.head_hidden_size), precision, torch.get_num_threads())
    found = remembered(graph, runtime, runtime, precision, lambda: _compared(opened, model, size))
    in_float32 = found['precision'] == 'fp32'
    if not (found['difference'] <= MAX_DIFFERENCE if in_float32 else found['cosine'] >= MIN_COSINE):
        raise RuntimeMismatchError(
            f'{runtime} in {found["precision"]} does not give the embeddings of this model: cosine '
            f"{found['cosine']:.5f}, difference {found['difference']:.2g}; take runtime='torch', or another precision"
        )
    return opened


def _compared(opened: GraphRuntime, model: Any, size: tuple[int, int]) -> dict[str, Any]:
    from .export_check import Comparison

    config = resolve_data_config(model=model)
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ('mean', 'std'))
    pixels = torch.randint(0, 256, (4, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network: Any = evaluation_view(model)
    with torch.no_grad(), torch.autocast('cpu', enabled=False):
        images = ((pixels / 255 - mean) / std).to(next(model.parameters()).dtype)
        expected = F.normalize(network.forward_head(network.forward_features(images), pre_logits=True).float(), dim=1)
    found = Comparison(opened(pixels.numpy()), expected.numpy())
    return {'precision': opened.computes_in, 'cosine': found.min_cosine, 'difference': found.max_difference}
