"""Weights and activations of 8 bits by onnxruntime's static quantization, calibrated on images."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .export_check import Comparison, load_file, rows
from .images import Decoding, ImageError, iter_images, load_rgb
from .onnx_file import ExportError, first_line, import_onnx

__all__ = ['CALIBRATION_IMAGES', 'HELD_OUT_IMAGES', 'CalibrationImages', 'quantize']

_logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 24  # at most; results of all of them are in memory at once
HELD_OUT_IMAGES = 64
MIN_IMAGES = 8  # half of them to calibrate
_BATCH = 8
#: the products of attention modules are a thousandth of the work, and cost more cosine than all convolutions
_OPERATORS = ('Conv',)
#: a range holds this percentage of values: a few values of crops that stand out would make the steps of all others
#: coarse (whole ranges of 59 crops: cosine 0.981 for the released `dpa_resnet50`), and ranges that leave out more
#: (99.99) lose such crops (0.989, but 0.86 for one of 64)
_PERCENTILE = 99.999


class CalibrationImages:
    """Images that calibrate a file, and others of the same folder on which it is compared afterwards.

    They are picked at random with a fixed seed: at most `CALIBRATION_IMAGES` and `HELD_OUT_IMAGES`, and a third of a
    small folder is held out. Images that cannot be read are left out with a warning.

    Args:
        images: whatever `FeatureExtractor` takes: paths, folders, arrays.
        prepare: decoded RGB image -> `(3, H, W)` pixels in 0..1, resized as the file's user will do it.
        pack: `(N, 3, H, W)` pixels in 0..1 -> what the file takes.

    Raises:
        ValueError: fewer than `MIN_IMAGES` images that can be read.
        FileNotFoundError: a path does not exist.
    """

    def __init__(
        self,
        images: Any,
        prepare: Callable[[Any], torch.Tensor],
        pack: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        items = list(iter_images(images))
        order = np.random.default_rng(0).permutation(len(items))
        pixels: list[torch.Tensor] = []
        for index in order:
            if len(pixels) == CALIBRATION_IMAGES + HELD_OUT_IMAGES:
                break
            try:
                pixels.append(prepare(load_rgb(items[index], Decoding())))
            except ImageError as error:
                _logger.warning('left out: %s', error)
        if len(pixels) < MIN_IMAGES:
            raise ValueError(
                f'calibration needs at least {MIN_IMAGES} images that can be read, better a hundred; '
                f'these are {len(pixels)}'
            )
        held_out = len(pixels) - min(CALIBRATION_IMAGES, 2 * len(pixels) // 3)
        packed = pack(torch.stack(pixels)).numpy()
        self.held_out, self.calibration = packed[:held_out], packed[held_out:]

    def batches(self, batch: int | None) -> Iterator[np.ndarray]:
        """The calibration images, all batches of the same number of images where `batch` says one."""
        size = batch or _BATCH
        for start in range(0, len(self.calibration), size):
            part = self.calibration[start : start + size]
            if batch and len(part) < batch:
                part = self.calibration[np.arange(start, start + batch) % len(self.calibration)]
            yield part


def quantize(source: Path, path: Path, images: CalibrationImages, batch: int | None) -> Comparison:
    """Write the ONNX file `source` with weights and activations of 8 bits.

    Convolutions compute with 8 bits, the rest in float32; weights have a scale for each channel of the output. Input,
    output and metadata stay as they are.

    Args:
        source: a float32 file of `export_model`.
        path: where to write.
        images: what calibrates the ranges of activations.
        batch: images in every batch, None for any number.

    Returns:
        Embeddings of the held-out images by the new file, against those by `source`.

    Raises:
        ExportError: onnxruntime cannot quantize the graph.
    """
    onnx = import_onnx()
    quantization = importlib.import_module('onnxruntime.quantization')
    shape_inference = importlib.import_module('onnxruntime.quantization.shape_inference')

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.batches = images.batches(batch)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.batches, None)
            return None if part is None else {'images': part}

    prepared = path.with_name(f'prepared-{path.name}')
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime warns there, of steps that are done
    try:
        shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            quantization.quantize_static(
                prepared,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
                calibrate_method=quantization.CalibrationMethod.Percentile,
                extra_options={'CalibPercentile': _PERCENTILE},
            )
    except Exception as error:
        raise ExportError(f'onnxruntime cannot quantize the graph: {first_line(error)}') from error
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)
    proto = onnx.load(path)
    properties = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)
    runs = [load_file(file, 'onnx') for file in (path, source)]
    pieces = [images.held_out[k : k + _BATCH] for k in range(0, len(images.held_out), _BATCH)]
    actual, expected = (np.concatenate([rows(run, piece, batch) for piece in pieces]) for run in runs)
    return Comparison(actual, expected)
