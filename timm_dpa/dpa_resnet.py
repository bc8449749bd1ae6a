"""ResNets for vehicle re-identification with attention after chosen stages.

Guo et al., "A novel dual-pooling attention module for UAV vehicle re-identification", Scientific Reports 2024.
The backbone is timm's ResNet with last stride 1; the head is `ReIDHead` with GeM pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from .attention import ATTN_TEXTS, create_stage_attn
from .head import ReIDHead
from .layers.color import ColorNorm
from .layers.norm import InstanceBatchNorm2d
from .weights.fetch import build_checked, locate_weights
from .weights.manifest import PART_TAGS, Release, read_manifest

__all__ = ['ReIDResNet']  # register_model adds the architectures


class ReIDResNet(ReIDHead, ResNet):
    """timm's ResNet as a re-identification network.

    The embedding, the output with `num_classes=0` and of `forward_head(x, pre_logits=True)`, is taken after the neck
    (and the whitening) and is not normalized. A classifier of `num_classes` identities follows it for training.

    Args:
        block, layers: as in timm's `ResNet`, and so are all arguments that are not listed here.
        attn_layer: attention after the stages of `attn_stages`, a name of `create_stage_attn`; None for none (to take
            it off through `timm.create_model`, which drops None, use `attn_stages=()`).
        attn_stages: stages 1-4 that end with an attention, in any combination (table 5 of the paper).
        attn_blocks: after how many of the last blocks of each of these stages an attention stands, one number for all
            or one for each of `attn_stages`. That of the last block is `layerN.attn`, that of block 3 `layerN.attn_3`.
        attn_args: further options of the attention, such as `{'kernel_num': 4}`. `dpa` and `spa` get the base grid of
            their stage at 256 x 256 pixels unless `grid_size` is given.
        last_stride: stride of stage 4, 1 (no dilation) or 2.
        stem_pool_ceil: max-pool of the stem without padding in ceil mode, as in the released code and FastReID; else
            timm's with padding, which ImageNet weights expect.
        global_pool: `'gem'`, a pooling of timm (`'avg'`, `'max'`, `'avgmax'`, `'catavgmax'`), or `''` for none, which
            makes the output a map `(B, C, H, W)`.
        ibn: IBN-a (Pan et al., ECCV 2018): the first norm of each block of stages 1-3 is instance norm on half of its
            channels, `InstanceBatchNorm2d`. ImageNet weights of a plain ResNet do not fit.
        color_norm: normalization of each image by its own colors before the stem, see `ColorNorm`. Weights that hold
            one give the model one.
        whiten: a fixed linear map after the neck, see `Whitening`. Weights that hold one give the model one.

    Raises:
        ValueError: unknown `attn_layer`, a stage outside of 1-4, `attn_blocks` that a stage does not have, another
            `last_stride`, a classifier without pooling.
    """

    if TYPE_CHECKING:
        feature_info: list[dict[str, Any]]
        layer1: nn.Sequential
        layer2: nn.Sequential
        layer3: nn.Sequential
        layer4: nn.Sequential
        color_norm: nn.Module

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        num_classes: int = 0,
        global_pool: str = 'gem',
        attn_layer: str | None = None,
        attn_stages: int | Sequence[int] = (3,),
        attn_blocks: int | Sequence[int] = 1,
        attn_args: dict[str, Any] | None = None,
        last_stride: int = 1,
        stem_pool_ceil: bool = False,
        ibn: bool = False,
        color_norm: bool = False,
        whiten: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        stages = (attn_stages,) if isinstance(attn_stages, int) else tuple(attn_stages)
        if len(set(stages)) != len(stages) or not set(stages) <= {1, 2, 3, 4}:
            raise ValueError(f'attn_stages must be different stages of 1, 2, 3, 4, not {attn_stages!r}')
        counts = (attn_blocks,) * len(stages) if isinstance(attn_blocks, int) else tuple(attn_blocks)
        if len(counts) != len(stages) or not all(1 <= n <= layers[s - 1] for s, n in zip(stages, counts, strict=True)):
            raise ValueError(
                f'attn_blocks must be 1 or more of the blocks of each stage, one number or one for each of '
                f'attn_stages={attn_stages!r}, not {attn_blocks!r}'
            )
        if attn_layer is None and attn_args:
            raise ValueError(f'attn_args={attn_args!r} without an attn_layer')
        self._check_classifier(num_classes, global_pool)
        if last_stride not in (1, 2):
            raise ValueError(f'last_stride must be 1 or 2, not {last_stride!r}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__(block, layers, num_classes=0, global_pool='avg', **kwargs, **dd)

        # the first of the children, which timm's features_only calls one after the other
        first: dict[str, Any] = {'color_norm': ColorNorm(self.in_chans, device) if color_norm else nn.Identity()}
        self._modules = {**first, **self._modules}
        if stem_pool_ceil:
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        if last_stride == 1:
            self._remove_last_stride()
        if ibn:
            for part in (*self.layer1, *self.layer2, *self.layer3):
                part.bn1 = InstanceBatchNorm2d(part.conv1.out_channels, **dd)
        for stage, count in sorted(zip(stages, counts, strict=True)) if attn_layer else ():
            info = self.feature_info[stage]
            args = {'grid_size': 256 // info['reduction'], **(attn_args or {}), **dd}
            # inside the stage, where everything that timm does with stages includes it
            blocks = list(self.get_submodule(info['module']).children())
            extended = nn.Sequential()
            for index, part in enumerate(blocks, start=1):
                extended.add_module(str(index - 1), part)
                if index > len(blocks) - count:
                    name = 'attn' if index == len(blocks) else f'attn_{index - 1}'
                    extended.add_module(name, create_stage_attn(str(attn_layer), info['num_chs'], **args))
            setattr(self, info['module'], extended)

        self.has_whitening = whiten
        self._build_head(num_classes, global_pool)

    def _remove_last_stride(self) -> None:
        first: Any = self.layer4[0]
        if first.stride == 1:  # output_stride dilates instead
            return
        # pools that halve the map where timm is asked for an average (avg_down) or an anti-aliased (aa_layer) stride
        first.aa = nn.Identity()
        if isinstance(first.downsample, nn.Sequential) and isinstance(first.downsample[0], nn.AvgPool2d):
            first.downsample[0] = nn.Identity()
        for module in first.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        first.stride = 1
        self.feature_info[4]['reduction'] = self.feature_info[3]['reduction']

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """From images `(B, C, H, W)` the map after stage 4, `(B, D, h, w)`."""
        return self._forward_stages(self.color_norm(x))

    # TorchScript knows no super(), and takes a method by its name
    _forward_stages = FunctionType(
        ResNet.forward_features.__code__, ResNet.forward_features.__globals__, '_forward_stages'
    )

    @torch.jit.ignore
    def forward_intermediates(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Like timm's `ResNet.forward_intermediates`."""
        return super().forward_intermediates(self.color_norm(x), *args, **kwargs)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by depth; an attention comes after its block, that of a stage last in it."""
        blocks = [
            (r'^layer(\d+)\.(\d+)', None),
            (r'^layer(\d+)\.attn_(\d+)', (0,)),
            (r'^layer(\d+)\.attn', (99,)),
        ]
        return {'stem': r'^conv1|bn1|maxpool', 'blocks': r'^layer(\d+)' if coarse else blocks}


_BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}


def _create_reid_resnet(variant: str, pretrained: bool = False, **kwargs: Any) -> ReIDResNet:
    attn_layer, _, depth = variant.partition('_resnet')
    block, layers = _BLOCKS[int(depth)]
    model_args = {'block': block, 'layers': layers, 'attn_layer': None if attn_layer == 'reid' else attn_layer}
    model: ReIDResNet = build_checked(ReIDResNet, variant, pretrained, **{**model_args, **kwargs})
    return model


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        'num_classes': 0,  # released weights carry no classifier
        'input_size': (3, 256, 256),
        'pool_size': (16, 16),
        'crop_pct': 1.0,
        'crop_mode': 'squash',
        'interpolation': 'bicubic',
        'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'first_conv': 'conv1',
        'classifier': 'fc',
        'license': 'apache-2.0',
        'paper_name': 'A novel dual-pooling attention module for UAV vehicle re-identification',
        **kwargs,
    }


def _released_cfgs(manifest: dict[str, Release]) -> dict[str, dict[str, Any]]:
    """`arch.tag` -> configuration of all weights in the manifest that exist: in this package, else on the Hub."""
    cfgs = {}
    for name, release in manifest.items():
        repository, packaged = locate_weights(release)
        if repository or packaged:
            # JSON has no tuples, timm's configurations have no lists
            own = {key: tuple(value) if isinstance(value, list) else value for key, value in release.cfg.items()}
            cfgs[name] = _cfg(hf_hub_id=repository, file=str(packaged) if packaged else None, **own)
    return cfgs


_ARCHITECTURES = [
    f'{attn}_resnet{depth}' for depth in _BLOCKS for attn in ('reid', 'dpa', 'cpa', 'spa', 'se', 'cbam', 'ca', 'nl')
]
_released = _released_cfgs(read_manifest())
default_cfgs = generate_default_cfgs(
    {
        **{arch: _cfg() for arch in _ARCHITECTURES if not any(name.startswith(f'{arch}.') for name in _released)},
        **_released,
        **{f'{arch}.{tag}': _cfg() for arch in _ARCHITECTURES for tag in PART_TAGS},
    }
)


def _add_entry_point(arch: str) -> None:
    def entry_point(pretrained: bool = False, **kwargs: Any) -> ReIDResNet:
        return _create_reid_resnet(arch, pretrained, **kwargs)

    attn, _, depth = arch.partition('_resnet')
    what = f'with {ATTN_TEXTS[attn]} after stage 3' if attn in ATTN_TEXTS else 'without attention: the baseline'
    entry_point.__name__ = entry_point.__qualname__ = arch
    entry_point.__doc__ = f'ResNet-{depth} {what}.'
    globals()[arch] = register_model(entry_point)


for _arch in _ARCHITECTURES:
    _add_entry_point(_arch)
