"""Small models, and what a user without this package gets from their exported files."""

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from packaging.version import Version
from torch import nn

#: 2.11 and 2.12 guard free sizes of these networks with conditions that their own images break; 2.13 was not tried
GUARDS_FREE_SIZES = Version(torch.__version__) >= Version('2.14')


def tiny(**kwargs) -> nn.Module:
    """A model of timm's own that exports in seconds."""
    torch.manual_seed(0)
    return timm.create_model('test_resnet', **kwargs)


def unit(embeddings: np.ndarray) -> np.ndarray:
    embeddings = embeddings.astype(np.float64)
    return embeddings / np.sqrt((embeddings**2).sum(1, keepdims=True))


def eager(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Unit embeddings of a model that still has its classifier."""
    model = copy.deepcopy(model).float().eval()
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy(images))
        return unit(model.forward_head(features, pre_logits=True).numpy())


@lru_cache(maxsize=4)
def loaded(path: Path):
    if path.suffix == '.onnx':
        return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return torch.export.load(path).module()


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """What a user without this package gets from the file."""
    if path.suffix == '.onnx':
        return loaded(path).run(None, {'images': images})[0]
    with torch.no_grad():
        return loaded(path)(torch.from_numpy(images)).numpy()


def suffix(format: str) -> str:
    return {'onnx': '.onnx', 'torch-export': '.pt2'}[format]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape, dtype=np.float32)
