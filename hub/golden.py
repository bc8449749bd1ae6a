"""Golden tensors: two images and their embeddings beside the weights, to check an installation or an export with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from timm_dpa import FeatureExtractor
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.weights.fetch import WeightsError

__all__ = ['GOLDEN_FILE', 'check_golden', 'write_golden']

GOLDEN_FILE = 'test/golden.safetensors'
_TOLERANCE = 1e-4  # of components of unit vectors: other kernels and numbers of threads sum in another order


def write_golden(folder: Path) -> None:
    """Write `test/golden.safetensors` of the model in `folder`.

    It holds `pixels`, `(2, 3, H, W)` uint8 RGB drawings of the model's image size, and `embedding`, `(2, D)` float32 of
    unit length, computed in float32 on the CPU.
    """
    extractor = _extractor(folder)
    pixels = torch.stack(
        [torch.as_tensor(extractor.transform(draw_vehicle(identity, view=0))) for identity in range(2)]
    )
    path = folder / GOLDEN_FILE
    path.parent.mkdir(exist_ok=True)
    save_file({'pixels': pixels.contiguous(), 'embedding': extractor.embed_pixels(pixels)}, path)
    path.chmod(0o644)  # safetensors writes for the user only


def check_golden(folder: Path) -> float:
    """Compute the golden embeddings again; returns the largest difference of a component.

    Raises:
        WeightsError: they differ by more than 1e-4: these are other weights, or the installation computes wrongly.
    """
    golden = load_file(folder / GOLDEN_FILE)
    difference = (_extractor(folder).embed_pixels(golden['pixels']) - golden['embedding']).abs().max().item()
    if not difference <= _TOLERANCE:
        raise WeightsError(f'{folder}: embeddings differ by {difference:.2g} from those of {GOLDEN_FILE}')
    return difference


def _extractor(folder: Path) -> FeatureExtractor:
    return FeatureExtractor(f'local-dir:{folder}', device='cpu', precision='fp32')
