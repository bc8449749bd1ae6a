"""Vehicle re-identification from drones as timm models.

`import timm_dpa` registers the models: `timm.create_model('dpa_resnet50')`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import ChannelPoolingAttention, DualPoolingAttention, SpatialPoolingAttention, create_stage_attn
    from .dpa_resnet import ReIDResNet
    from .embedding.extractor import FeatureExtractor
    from .embedding.files import load_embeddings
    from .layers.odconv import ODConv2d
    from .layers.pooling import AvgPool, GeMPool, MinPool, SoftPool
    from .reid_timm import ReIDBackbone
    from .weights.fetch import WeightsError
    from .weights.init import init_backbone, load_weights

    __version__: str

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
    'load_embeddings',
    'load_weights',
]

_HOMES = {
    'attention': ('ChannelPoolingAttention', 'DualPoolingAttention', 'SpatialPoolingAttention', 'create_stage_attn'),
    'dpa_resnet': ('ReIDResNet',),
    'embedding.extractor': ('FeatureExtractor',),
    'embedding.files': ('load_embeddings',),
    'layers.odconv': ('ODConv2d',),
    'layers.pooling': ('AvgPool', 'GeMPool', 'MinPool', 'SoftPool'),
    'reid_timm': ('ReIDBackbone',),
    'weights.fetch': ('WeightsError',),
    'weights.init': ('init_backbone', 'load_weights'),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def register_models() -> None:
    """Register the models with timm; `import timm_dpa` does it already, except in the process of the command line."""
    from . import dpa_resnet, reid_timm  # noqa: F401  importing them registers


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f'.{_HOME_OF[name]}', __name__), name)
    if name == '__version__':
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version('timm-dpa')
        except PackageNotFoundError:  # a source tree that is not installed
            return '0.0.0'
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _starts_command_line() -> bool:
    """Whether this process is `timm-dpa` or `python -m timm_dpa.cli`: its help needs no torch, which takes seconds."""
    program = sys.argv[0] if sys.argv else ''
    return Path(program).stem == 'timm-dpa' or (program == '-m' and 'timm_dpa.cli' in sys.orig_argv)


if not _starts_command_line():
    register_models()
