"""Export to ONNX and torch.export: normalized images in, unit embeddings out, checked against PyTorch before it stays.

The exported graph takes `images`, float32 `(N, in_chans, H, W)`, normalized with the mean and std of the file's
metadata, and gives `embeddings`, float32 `(N, D)` with L2 norm 1. N is free, H and W are fixed, unless asked otherwise.
"""

from __future__ import annotations

import copy
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import resolve_data_config
from torch import nn

from ..files import atomic_file
from .models import fixed_size
from .onnx_file import MIN_OPSET, ExportError, check_onnx_size, import_onnx, write_onnx
from .view import evaluation_view, uncompiled

__all__ = ['FORMATS', 'ExportError', 'ExportReport', 'export_model', 'read_metadata']

#: what `export_model` writes
FORMATS = ('onnx', 'torch-export')

MIN_SIZE = 32
MIN_DYNAMIC_SIZE = 64  # below, the last map of a network of stride 32 has one position, which tracing would freeze
BATCH_SIZES = (1, 3)  # one image, and a batch of another size than the traced one
TRACED_BATCH = 2  # 0 and 1 would be frozen into the graph
OPSET = 18
METADATA_FILE = 'timm_dpa.json'


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked.

    Attributes:
        path: the file.
        format: `'onnx'` or `'torch-export'`.
        max_difference: largest absolute difference between unit embeddings of the file and of PyTorch.
        tolerance: the limit of that difference.
        batch_sizes: numbers of images per batch that were compared, each at each of `image_sizes`.
        image_sizes: sizes (height, width) in pixels that were compared.
        file_size: bytes.
        metadata: what the file says about itself, see `read_metadata`.
    """

    path: Path
    format: str
    max_difference: float
    tolerance: float
    batch_sizes: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]
    file_size: int
    metadata: dict[str, Any]


class _UnitEmbedding(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.model(images), dim=1)


def export_model(
    model: nn.Module,
    out: str | os.PathLike[str],
    format: str = 'onnx',
    image_size: int | tuple[int, int] | None = None,
    dynamic_size: bool = False,
    opset: int = OPSET,
    tolerance: float = 1e-4,
    batch: int | None = None,
) -> ExportReport:
    """Write `model` without its classifier to one file that is known to compute the same embeddings.

    The file takes `images`, float32 `(N, in_chans, H, W)`, normalized as its metadata say, and gives `embeddings`,
    float32 `(N, D)`, L2-normalized. It is written next to `out`, loaded again (onnxruntime or `torch.export.load`, on
    the CPU) and compared with PyTorch on seeded random images, batches of 1 and 3 at every size of the report; only
    then it takes the name `out`. Otherwise nothing is left behind, and a file that was there stays as it was.

    Args:
        model: a timm model, on any device, of any dtype and in any mode, compiled or not. A float32 copy in evaluation
            mode is exported; the model itself is not touched. Size and preprocessing are those of its `pretrained_cfg`.
        out: file to write; its folder must exist. An existing file is replaced.
        format: `'onnx'` (one file, weights inside) or `'torch-export'` (for `torch.export.load`).
        image_size: height and width in pixels, at least 32, or one number for both. None: that of the model's config.
        dynamic_size: leave H and W free as well. `image_size`, at least 64 here, is then the recommended size.
        opset: ONNX operator set, at least 16; 18 is what most runtimes know. The file has the lowest IR version that
            it allows, 8 up to opset 18. Not used by torch-export.
        tolerance: largest absolute difference allowed between any two components of unit embeddings, >= 0.
        batch: images in every batch, for runtimes that know no free axes, such as OpenCV 4; None leaves it free.

    Returns:
        What was written and checked.

    Raises:
        ValueError: a wrong argument, or a model that is none of timm's or does not give one vector per image.
        ExportError: a package is missing, the model cannot be exported in this way, or the file differs from PyTorch.
    """
    out = Path(out)
    if format not in FORMATS:
        raise ValueError(f'unknown format {format!r}; choose one of {", ".join(FORMATS)}')
    if not tolerance >= 0:
        raise ValueError(f'tolerance must be a number of at least 0, not {tolerance}')
    if format == 'onnx' and opset < MIN_OPSET:
        raise ValueError(f'opset must be at least {MIN_OPSET}, not {opset}')
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise ValueError(f'batch must be a whole number of at least 1, or None for any, not {batch!r}')
    if out.is_dir():
        raise ValueError(f'{out} is a folder; give the name of a file in it')
    if not out.parent.is_dir():
        raise ValueError(f'the folder {out.parent} does not exist; create it first')
    model = uncompiled(model)
    if not hasattr(model, 'reset_classifier'):
        raise ValueError(f'{type(model).__name__} is not a timm model: it has no reset_classifier')
    data_config = _data_config(model)
    own_size = fixed_size(model) or data_config['input_size'][1:]
    size = _size(own_size if image_size is None else image_size, dynamic_size)
    if format == 'onnx':
        import_onnx()
    axes = {2: 'height', 3: 'width'} if dynamic_size else {}
    if batch is None:
        axes = {0: 'batch', **axes}

    with (
        atomic_file(out) as temporary,
        torch.no_grad(),
        torch.autocast('cpu', enabled=False),
    ):
        network = _embedding_network(model)
        if format == 'onnx':
            check_onnx_size(network)
        batches = BATCH_SIZES if batch is None else (batch,)
        cases, sizes = _reference(network, data_config['input_size'][0], size, dynamic_size, batches)
        metadata = _metadata(model, data_config, size, list(axes.values()), embedding_size=cases[0][1].shape[1])
        traced_size = next((s for s in sizes if s[0] != s[1]), size) if dynamic_size else size
        traced_shape = (batch or TRACED_BATCH, data_config['input_size'][0], *traced_size)
        try:
            program = _trace(network, traced_shape, axes)
            if format == 'onnx':
                write_onnx(program, temporary, metadata, axes, opset)
            else:
                with temporary.open('wb') as file:  # whose name may end in anything
                    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
        except Exception as error:
            hint = '; try a fixed size' if dynamic_size else f'; try opset {OPSET}' if opset < OPSET else ''
            what = f'{format} of opset {opset}' if format == 'onnx' else format
            raise ExportError(f'{what} cannot express {metadata["model"]}: {_first_line(error)}{hint}') from error
        difference = _max_difference(_load(temporary, format), cases)
        if not difference <= tolerance:
            raise ExportError(
                f'the exported file is not the model: its embeddings differ from those of PyTorch by {difference:.3g}, '
                f'{tolerance:g} is allowed; {out} was not written'
            )
        file_size = temporary.stat().st_size
    return ExportReport(out, format, difference, tolerance, batches, sizes, file_size, metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Metadata of a file of `export_model`, of either format. Nothing is unpickled or run.

    Returns:
        - `model`: name of the architecture.
        - `input_size`: `[in_chans, height, width]`; with free axes `height` and `width` it is the recommended size.
        - `dynamic_axes`: names of the free axes of `images`, of `'batch'`, `'height'` and `'width'`.
        - `interpolation`, `crop_mode`, `crop_pct`: how timm resizes to that size.
        - `pixel_range`: what pixels are before they are normalized, `'0..1 RGB'`.
        - `mean`, `std`: one number per channel, the input is `(pixel - mean) / std`.
        - `embedding_size`: D.
        - `normalisation`: `'l2'`, the embeddings have L2 norm 1.
        - `timm_dpa_version`, `torch_version`: what wrote the file.

    Raises:
        ValueError: the file is neither format, or has no such metadata.
        ExportError: `onnx` is missing.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.rpartition('/')[2] == METADATA_FILE]
            metadata = json.loads(archive.read(names[0])) if names else {}
    else:
        onnx = import_onnx(runtime=False)
        try:
            properties = onnx.load(path, load_external_data=False).metadata_props
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f'{path} is neither an ONNX nor a torch.export file') from error
        metadata = {entry.key: _from_json(entry.value) for entry in properties}
    if 'timm_dpa_version' not in metadata:
        raise ValueError(f'{path} has no metadata of timm-dpa; export it with `timm-dpa export`')
    return metadata


def _data_config(model: nn.Module) -> dict[str, Any]:
    data_config = resolve_data_config(model=model)
    channels = getattr(model, 'in_chans', None) or data_config['input_size'][0]
    data_config['input_size'] = (channels, *data_config['input_size'][1:])
    for name in ('mean', 'std'):
        if len(data_config[name]) != channels:
            raise ValueError(
                f'the model takes {channels} channels, but its configuration has {name}={tuple(data_config[name])}; '
                f'set model.pretrained_cfg[{name!r}] to one number per channel'
            )
    return data_config


def _size(image_size: int | tuple[int, int], dynamic: bool) -> tuple[int, int]:
    size: Any = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    smallest = MIN_DYNAMIC_SIZE if dynamic else MIN_SIZE
    if len(size) != 2 or any(not isinstance(n, int) or n < smallest for n in size):
        raise ValueError(
            f'image_size must be one whole number of pixels or (height, width), each at least {smallest}'
            f'{" where the size is dynamic" if dynamic else ""}, not {image_size!r}'
        )
    height, width = size
    return height, width


def _embedding_network(model: nn.Module) -> nn.Module:
    network: Any = copy.deepcopy(evaluation_view(model))  # without what torch.compile made of its parts
    network.reset_classifier(0)
    network = network.to(device='cpu', dtype=torch.float32, memory_format=torch.contiguous_format)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise ExportError(f'the weights {name} hold values that are not finite; export a model that is in order')
    return _UnitEmbedding(network).eval().requires_grad_(False)


def _reference(
    network: nn.Module, channels: int, size: tuple[int, int], dynamic: bool, batches: tuple[int, ...]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[tuple[int, int], ...]]:
    """Random images with their embeddings in PyTorch, and the sizes of these images."""
    height, width = size
    candidates = [size]
    if dynamic:
        # smaller, larger, and multiples of no stride; a network may want multiples of its patch size
        candidates += [(height // 2, width), (height, width + width // 2), (height + 5, width + 27)]
        candidates = [s for s in candidates if min(s) >= MIN_DYNAMIC_SIZE]
    generator = torch.Generator().manual_seed(0)
    cases: list[tuple[np.ndarray, np.ndarray]] = []
    sizes: list[tuple[int, int]] = []
    for candidate in candidates:
        images = [torch.randn(batch, channels, *candidate, generator=generator) for batch in batches]
        try:
            embeddings = [network(batch) for batch in images]
        except Exception as error:
            if candidate == size:
                raise ExportError(f'the model does not run at {height} x {width}: {_first_line(error)}') from error
            continue
        for batch, embedding in zip(images, embeddings, strict=True):
            if embedding.dim() != 2:
                raise ValueError(
                    'the model must give one vector per image (N, D), but for images '
                    f'{tuple(batch.shape)} its output is {tuple(embedding.shape)}; give it a pooling (global_pool)'
                )
            if not embedding.isfinite().all():
                raise ExportError(
                    'the model itself gives embeddings that are not finite (NaN or infinity), so that nothing can be '
                    'compared; look for NaN in its weights and in the statistics of its batch norms'
                )
            cases.append((batch.numpy(), embedding.numpy()))
        sizes.append(candidate)
    if dynamic and len(sizes) < 2:
        raise ExportError(f'the model runs at {height} x {width} pixels only; export it with a fixed size')
    return cases, tuple(sizes)


def _metadata(
    model: nn.Module, data_config: dict[str, Any], size: tuple[int, int], axes: list[str], embedding_size: int
) -> dict[str, Any]:
    from .. import __version__

    channels = data_config['input_size'][0]
    pretrained_cfg = getattr(model, 'pretrained_cfg', None) or {}
    return {
        'model': pretrained_cfg.get('architecture') or type(model).__name__,
        'input_size': [channels, *size],
        'dynamic_axes': axes,
        'interpolation': data_config['interpolation'],
        'crop_mode': data_config['crop_mode'],
        'crop_pct': data_config['crop_pct'],
        'pixel_range': '0..1 RGB' if channels == 3 else '0..1',
        'mean': list(data_config['mean']),
        'std': list(data_config['std']),
        'embedding_size': embedding_size,
        'normalisation': 'l2',
        'timm_dpa_version': __version__,
        'torch_version': str(torch.__version__),
    }


def _trace(network: nn.Module, shape: tuple[int, ...], axes: dict[int, str]) -> torch.export.ExportedProgram:
    # DYNAMIC fails where the graph would hold for one value only, and leaves the range to the model's own conditions
    free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (torch.zeros(shape),), dynamic_shapes={'images': free})
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths of this machine
    return program


def _load(path: Path, format: str) -> Callable[[np.ndarray], np.ndarray]:
    """The file as a function, from the disk."""
    if format == 'onnx':
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        return lambda images: session.run(['embeddings'], {'images': images})[0]
    with path.open('rb') as file:
        program = torch.export.load(file).module()
    return lambda images: program(torch.from_numpy(images)).numpy()


def _max_difference(run: Callable[[np.ndarray], np.ndarray], cases: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Largest absolute difference, NaN where anything is not finite."""
    largest = 0.0
    for images, expected in cases:
        try:
            embeddings = run(images)
        except Exception as error:
            raise ExportError(f'the exported file fails on images {images.shape}: {_first_line(error)}') from error
        if embeddings.shape != expected.shape or embeddings.dtype != expected.dtype:
            raise ExportError(
                f'the exported file gives {embeddings.dtype} {embeddings.shape} for images {images.shape}, '
                f'the model {expected.dtype} {expected.shape}'
            )
        difference = float(np.abs(embeddings - expected).max())
        if not math.isfinite(difference):
            return math.nan
        largest = max(largest, difference)
    return largest


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # an entry of another program
        return text


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0][:300]}' if lines else type(error).__name__
