"""Export to ONNX and torch.export: images in, unit embeddings out, checked against PyTorch before it stays.

The exported graph takes `images` as its metadata say: float32 `(N, in_chans, H, W)`, normalized or in 0..1, or bytes,
and gives `embeddings`, float32 `(N, D)` with L2 norm 1. N is free, H and W are fixed, unless asked otherwise.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import nn

from ..files import atomic_file
from .export_check import (
    MIN_DYNAMIC_SIZE,
    Comparison,
    compare,
    load_file,
    reference_cases,
    rows,
    trace,
)
from .export_inputs import Consumer, UnitEmbedding, check_consumer, make_input, sample_crops
from .export_metadata import METADATA_FILE, data_config_of, file_metadata, read_metadata, write_sidecar
from .models import fixed_size
from .onnx_file import MIN_OPSET, ExportError, check_onnx_size, first_line, import_onnx, write_half, write_onnx
from .quantize import CalibrationImages, quantize
from .view import evaluation_view, uncompiled

__all__ = ['FORMATS', 'PRECISIONS', 'ExportError', 'ExportReport', 'export_model', 'read_metadata']

#: what `export_model` writes
FORMATS = ('onnx', 'torch-export')
#: precision -> the mean cosine to float32 below which a file is refused
PRECISIONS = {'float32': None, 'half': 0.999, 'int8': 0.98}

MIN_SIZE = 32
BATCH_SIZES = (1, 3)  # one image, and a batch of another size than the traced one
TRACED_BATCH = 2  # 0 and 1 would be frozen into the graph
OPSET = 18
CONSUMER_COSINE = 0.99  # between bilinear and the model's own resizing there is 0.997 on crops of vehicles


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked.

    Attributes:
        path: the file.
        format: `'onnx'` or `'torch-export'`.
        max_difference: largest absolute difference between unit embeddings of the float32 file and of PyTorch.
        tolerance: the limit of that difference.
        batch_sizes: numbers of images per batch that were compared, each at each of `image_sizes`.
        image_sizes: sizes (height, width) in pixels that were compared.
        file_size: bytes.
        metadata: what the file says about itself, see `read_metadata`.
        precision: `'float32'`, `'half'` or `'int8'`.
        float32_size: bytes of the same file in float32.
        mean_cosine, min_cosine: between embeddings of the file and in float32: of random images, and of held-out images
            for `'int8'`.
        images: how many images these are.
        consumer_cosine: the lowest cosine between embeddings of smooth random pictures, prepared as the program that
            the file is for prepares them, and those of `FeatureExtractor`; None where no program was named.
        sidecar: the file beside it for BoxMOT, or None.
    """

    path: Path
    format: str
    max_difference: float
    tolerance: float
    batch_sizes: tuple[int, ...]
    image_sizes: tuple[tuple[int, int], ...]
    file_size: int
    metadata: dict[str, Any]
    precision: str
    float32_size: int
    mean_cosine: float
    min_cosine: float
    images: int
    consumer_cosine: float | None
    sidecar: Path | None


def export_model(
    model: nn.Module,
    out: str | os.PathLike[str],
    format: str = 'onnx',
    image_size: int | tuple[int, int] | None = None,
    dynamic_size: bool = False,
    opset: int = OPSET,
    tolerance: float = 1e-4,
    batch: int | None = None,
    *,
    input: str | None = None,
    consumer: str | None = None,
    precision: str = 'float32',
    calibrate: Any = None,
    min_cosine: float | None = None,
) -> ExportReport:
    """Write `model` without its classifier to one file that is known to compute the same embeddings.

    The file takes `images` as its metadata say and gives `embeddings`, float32 `(N, D)`, L2-normalized. It is written
    next to `out`, loaded again (onnxruntime or `torch.export.load`, on the CPU) and compared with PyTorch on seeded
    random images, batches of 1 and 3 at every size of the report; only then it takes the name `out`. Otherwise nothing
    is left behind, and a file that was there stays as it was. Beside an ONNX file of normalized images stands
    `<out>.metadata.json`, from which BoxMOT reads the size.

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
        input: what the file takes. `'normalized'`: float32 `(N, in_chans, H, W)`, `(pixel - mean) / std` of pixels in
            0..1; `'unit'`: the same without mean and std, which the graph applies; `'uint8-bgr'`: bytes
            `(N, H, W, 3)`, blue first, as OpenCV holds them. None: that of the consumer, or `'normalized'`.
        consumer: a program that runs the file: `'ultralytics'`, `'boxmot'` or `'openvino'`. It decides the input, and
            the file is also run with pixels that are resized as the program does it.
        precision: `'float32'`; `'half'`: float16 inside, float32 in and out; `'int8'`: 8 bits inside, see `quantize`.
            Both are of ONNX files only.
        calibrate: for `'int8'`: images, as `FeatureExtractor` takes them, at least 8 and better a hundred, like those
            that will be embedded. Some of them are held out for the comparison.
        min_cosine: the file is refused where its mean cosine to float32 is lower. None: 0.999 for `'half'`, 0.98 for
            `'int8'`.

    Returns:
        What was written and checked.

    Raises:
        ValueError: a wrong argument, or a model that is none of timm's or does not give one vector per image.
        ExportError: a package is missing, the model cannot be exported in this way, or the file differs from PyTorch.
    """
    out = Path(out)
    _check_arguments(out, format, tolerance, opset, batch)
    _check_precision(format, precision, calibrate, min_cosine)
    model = uncompiled(model)
    if not hasattr(model, 'reset_classifier'):
        raise ValueError(f'{type(model).__name__} is not a timm model: it has no reset_classifier')
    data_config = data_config_of(model)
    program = None if consumer is None else check_consumer(consumer, input, data_config)
    input = input or (program.input if program else 'normalized')
    channels = data_config['input_size'][0]
    if precision == 'int8' and channels != 3:
        raise ValueError(f'calibration images are RGB, and the model takes {channels} channels')
    kind = make_input(input, channels)
    own_size = fixed_size(model) or data_config['input_size'][1:]
    size = _size(own_size if image_size is None else image_size, dynamic_size)
    if format == 'onnx':
        import_onnx()
    axes = kind.axes(batch is None, dynamic_size)
    preparation = _Preparation(data_config, size, program)

    with (
        atomic_file(out) as temporary,
        tempfile.TemporaryDirectory(prefix='timm-dpa-export-') as folder,
        torch.no_grad(),
        torch.autocast('cpu', enabled=False),
    ):
        network = _embedding_network(model, kind, data_config)
        if format == 'onnx':
            check_onnx_size(network)
        # read before the work, so that what is wrong with them shows at once
        images = None
        if precision == 'int8':
            images = CalibrationImages(
                calibrate, preparation.of_user, lambda pixels: kind.from_pixels(pixels, *preparation.mean_std)
            )
        batches = BATCH_SIZES if batch is None else (batch,)
        cases, sizes = reference_cases(network, channels, size, dynamic_size, batches)
        metadata = file_metadata(
            model, data_config, input, kind, size, list(axes.values()), batch, cases[0][1].shape[1], precision
        )
        traced_size = next((s for s in sizes if s[0] != s[1]), size) if dynamic_size else size
        traced = torch.zeros(kind.shape(batch or TRACED_BATCH, channels, traced_size), dtype=kind.dtype)
        plain = temporary if precision == 'float32' else Path(folder, 'float32.onnx')
        try:
            graph = trace(network, traced, axes)
            if format == 'onnx':
                write_onnx(graph, plain, metadata, axes, opset)
            else:
                with plain.open('wb') as file:  # whose name may end in anything
                    torch.export.save(graph, file, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
        except Exception as error:
            hint = '; try a fixed size' if dynamic_size else f'; try opset {OPSET}' if opset < OPSET else ''
            what = f'{format} of opset {opset}' if format == 'onnx' else format
            raise ExportError(f'{what} cannot express {metadata["model"]}: {first_line(error)}{hint}') from error
        compared = compare(load_file(plain, format), cases)
        difference = compared.max_difference
        if not difference <= tolerance:
            raise ExportError(
                f'the exported file is not the model: its embeddings differ from those of PyTorch by {difference:.3g}, '
                f'{tolerance:g} is allowed; {out} was not written'
            )
        float32_size = plain.stat().st_size
        count = sum(len(batch) for batch, _ in cases)
        if precision == 'half':
            write_half(plain, temporary)
            compared = compare(load_file(temporary, format), cases)
        elif images is not None:
            compared, count = quantize(plain, temporary, images, batch), len(images.held_out)
        _check_cosine(compared, count, precision, min_cosine, out)
        consumer_cosine = None
        if program:
            consumer_cosine = _consumer_cosine(network, load_file(temporary, format), preparation, batch)
            if not consumer_cosine >= CONSUMER_COSINE:
                raise ExportError(
                    f'{program.title} would not get the embeddings of this model: pixels that are resized as it does '
                    f'it give a cosine of {consumer_cosine:.4f}, {CONSUMER_COSINE} is the least; {out} was not written'
                )
        file_size = temporary.stat().st_size
    sidecar = write_sidecar(out, metadata, data_config) if format == 'onnx' else None
    return ExportReport(
        path=out,
        format=format,
        max_difference=difference,
        tolerance=tolerance,
        batch_sizes=batches,
        image_sizes=sizes,
        file_size=file_size,
        metadata=metadata,
        precision=precision,
        float32_size=float32_size,
        mean_cosine=compared.mean_cosine,
        min_cosine=compared.min_cosine,
        images=count,
        consumer_cosine=consumer_cosine,
        sidecar=sidecar,
    )


def _check_arguments(out: Path, format: str, tolerance: float, opset: int, batch: int | None) -> None:
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


def _check_precision(format: str, precision: str, calibrate: Any, min_cosine: float | None) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f'unknown precision {precision!r}; choose one of {", ".join(PRECISIONS)}')
    if precision != 'float32' and format != 'onnx':
        raise ValueError(f"precision {precision!r} is of ONNX files; format {format!r} keeps 'float32'")
    if (precision == 'int8') != (calibrate is not None):
        raise ValueError("precision 'int8' needs images to calibrate with, and only this precision takes them")
    if min_cosine is not None and not -1 <= min_cosine <= 1:
        raise ValueError(f'min_cosine must be a number from -1 to 1, not {min_cosine}')


def _check_cosine(compared: Comparison, count: int, precision: str, min_cosine: float | None, out: Path) -> None:
    limit = PRECISIONS[precision] if min_cosine is None else min_cosine
    if limit is not None and not compared.mean_cosine >= limit:
        raise ExportError(
            f'{precision} changes the embeddings: their mean cosine to float32 is {compared.mean_cosine:.4f} on '
            f'{count} images (least {compared.min_cosine:.4f}), {limit:g} is asked for; {out} was not written'
        )


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


def _embedding_network(model: nn.Module, kind: Any, data_config: dict[str, Any]) -> UnitEmbedding:
    network: Any = copy.deepcopy(evaluation_view(model))  # without what torch.compile made of its parts
    network.reset_classifier(0)
    network = network.to(device='cpu', dtype=torch.float32, memory_format=torch.contiguous_format)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise ExportError(f'the weights {name} hold values that are not finite; export a model that is in order')
    unit = UnitEmbedding(network, kind, data_config['mean'], data_config['std'])
    return unit.eval().requires_grad_(False)


class _Preparation:
    """Decoded images to pixels in 0..1 of one size: as the model wants it, and as the program that runs the file."""

    def __init__(self, data_config: dict[str, Any], size: tuple[int, int], program: Consumer | None) -> None:
        self.mean_std = data_config['mean'], data_config['std']
        self.size, self.program = size, program
        channels = data_config['input_size'][0]
        settings = {**data_config, 'input_size': (channels, *size), 'use_prefetcher': True}
        self.transform: Any = create_transform(**settings)

    def of_model(self, image: Any) -> torch.Tensor:
        """`(C, H, W)`, rounded to bytes."""
        return torch.as_tensor(self.transform(image)).float() / 255

    def of_user(self, image: Any) -> torch.Tensor:
        """`(C, H, W)` as the program gives it, or, where none is named, as the model wants it."""
        return self.program.prepare(np.asarray(image), self.size) if self.program else self.of_model(image)


def _consumer_cosine(network: UnitEmbedding, run: Any, preparation: _Preparation, batch: int | None) -> float:
    """The lowest cosine between the embedding of a program's pixels by the file and of the model's own by PyTorch."""
    crops = sample_crops()

    def packed(prepare: Any) -> torch.Tensor:
        return network.kind.from_pixels(torch.stack([prepare(crop) for crop in crops]), *preparation.mean_std)

    expected = network(packed(preparation.of_model)).numpy()
    return Comparison(rows(run, packed(preparation.of_user).numpy(), batch), expected).min_cosine
