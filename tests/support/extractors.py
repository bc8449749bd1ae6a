"""A small model for extractors, and what timm and the plain model give."""

import copy

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

from tests.support.models import lively

SIZE = 64


def make_model(**kwargs) -> nn.Module:
    torch.manual_seed(1)
    return lively(timm.create_model('dpa_resnet18', **kwargs))


def reference(model: nn.Module, images: list[Image.Image], size=(SIZE, SIZE)) -> np.ndarray:
    """Unit embeddings, one image at a time, by timm's transform."""
    transform = create_transform(**{**resolve_data_config(model=model), 'input_size': (3, *size)})
    model = copy.deepcopy(model).float().eval()
    with torch.no_grad():
        rows = [model.forward_head(model.forward_features(transform(im)[None]), pre_logits=True)[0] for im in images]
    rows = torch.stack(rows).double()
    return (rows / rows.norm(dim=1, keepdim=True)).numpy()


def assert_same(actual, expected, tolerance=1e-5):
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
