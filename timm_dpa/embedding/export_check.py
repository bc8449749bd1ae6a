"""Whether an exported file computes what the model does: images, their embeddings in PyTorch, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .export_inputs import UnitEmbedding
from .onnx_file import ExportError, first_line

__all__ = ['MIN_DYNAMIC_SIZE', 'Comparison', 'compare', 'load_file', 'reference_cases', 'rows', 'trace']

MIN_DYNAMIC_SIZE = 64  # below, the last map of a network of stride 32 has one position, which tracing would freeze

#: images, and their embeddings in PyTorch
Cases = list[tuple[np.ndarray, np.ndarray]]
#: images -> embeddings
Run = Callable[[np.ndarray], np.ndarray]


class Comparison:
    """How far embeddings `(N, D)` of unit length are from those that they should be; NaN where one is not finite.

    Attributes:
        max_difference: of any two components.
        mean_cosine, min_cosine: between the embeddings of an image.
    """

    def __init__(self, actual: np.ndarray, expected: np.ndarray) -> None:
        cosines = (actual.astype(np.float64) * expected).sum(1)
        self.max_difference = float(np.abs(actual - expected).max())
        self.mean_cosine, self.min_cosine = float(cosines.mean()), float(cosines.min())


def reference_cases(
    network: UnitEmbedding, channels: int, size: tuple[int, int], dynamic: bool, batches: tuple[int, ...]
) -> tuple[Cases, tuple[tuple[int, int], ...]]:
    """Seeded random images with their embeddings in PyTorch, and the sizes of these images."""
    height, width = size
    candidates = [size]
    if dynamic:
        # smaller, larger, and multiples of no stride; a network may want multiples of its patch size
        candidates += [(height // 2, width), (height, width + width // 2), (height + 5, width + 27)]
        candidates = [s for s in candidates if min(s) >= MIN_DYNAMIC_SIZE]
    generator = torch.Generator().manual_seed(0)
    cases: Cases = []
    sizes: list[tuple[int, int]] = []
    for candidate in candidates:
        images = [_random_images(network, (batch, channels, *candidate), generator) for batch in batches]
        try:
            embeddings = [network(batch) for batch in images]
        except Exception as error:
            if candidate == size:
                raise ExportError(f'the model does not run at {height} x {width}: {first_line(error)}') from error
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


def _random_images(network: UnitEmbedding, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Images that normalize to a standard normal distribution, as far as their range allows, as the file takes them."""
    kind = network.kind
    mean: torch.Tensor = network.mean / kind.white
    std: torch.Tensor = network.std / kind.white
    noise = torch.randn(shape, generator=generator)
    if not kind.normalizes:
        return noise
    pixels = (noise * std + mean).clamp(0, 1)
    return kind.from_pixels(pixels, mean.flatten().tolist(), std.flatten().tolist())


def load_file(path: Path, format: str) -> Run:
    """The file as a function, from the disk."""
    if format == 'onnx':
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        return lambda images: session.run(['embeddings'], {'images': images})[0]
    with path.open('rb') as file:
        program = torch.export.load(file).module()
    return lambda images: program(torch.from_numpy(images)).numpy()


def rows(run: Run, images: np.ndarray, batch: int | None) -> np.ndarray:
    """Embeddings of `images`, `batch` at once where the file takes no other number; the last batch is filled up."""
    if batch is None:
        return run(images)
    filled = images[np.arange(len(images) + -len(images) % batch) % len(images)]
    parts = [run(filled[start : start + batch]) for start in range(0, len(filled), batch)]
    return np.concatenate(parts)[: len(images)]


def compare(run: Run, cases: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
    """Embeddings of a file against those of PyTorch.

    Raises:
        ExportError: the file fails, or gives something else than such embeddings.
    """
    actual = []
    for images, expected in cases:
        try:
            embeddings = run(images)
        except Exception as error:
            reason = first_line(error)
            if 'Guard failed' in reason:  # of torch.export, seen up to 2.12
                reason += f'; torch {torch.__version__} guards free sizes wrongly: update torch, or export onnx'
            raise ExportError(f'the exported file fails on images {images.shape}: {reason}') from error
        if embeddings.shape != expected.shape or embeddings.dtype != expected.dtype:
            raise ExportError(
                f'the exported file gives {embeddings.dtype} {embeddings.shape} for images {images.shape}, '
                f'the model {expected.dtype} {expected.shape}'
            )
        actual.append(embeddings)
    return Comparison(np.concatenate(actual), np.concatenate([expected for _, expected in cases]))


def trace(network: nn.Module, images: torch.Tensor, axes: dict[int, str]) -> torch.export.ExportedProgram:
    """The network as a graph whose `axes` are free."""
    # DYNAMIC fails where the graph would hold for one value only, and leaves the range to the model's own conditions
    free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    program: Any = torch.export.export(network, (images,), dynamic_shapes={'images': free})
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # paths of this machine
    return program
