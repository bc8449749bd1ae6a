"""Vehicle re-identification from drones as timm models.

`import timm_dpa` registers the models: `timm.create_model('dpa_resnet50')`.
"""

from importlib.metadata import PackageNotFoundError, version

from .attention import ChannelPoolingAttention, DualPoolingAttention, SpatialPoolingAttention, create_stage_attn
from .dpa_resnet import ReIDResNet
from .layers.odconv import ODConv2d
from .layers.pooling import AvgPool, GeMPool, MinPool, SoftPool
from .reid_timm import ReIDBackbone
from .weights.fetch import WeightsError

try:
    __version__ = version('timm-dpa')
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = '0.0.0'

__all__ = [
    'AvgPool',
    'ChannelPoolingAttention',
    'DualPoolingAttention',
    'FeatureExtractor',
    'GeMPool',
    'MinPool',
    'ODConv2d',
    'ReIDBackbone',
    'ReIDResNet',
    'SoftPool',
    'SpatialPoolingAttention',
    'WeightsError',
    'create_stage_attn',
    'init_backbone',
    'load_weights',
]

_LAZY = {'FeatureExtractor': 'embedding.extractor', 'init_backbone': 'weights.init', 'load_weights': 'weights.init'}


def __getattr__(name: str):
    # what most programs do not need does not slow down the import
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f'.{_LAZY[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
