"""Any backbone of timm with the head of re-identification: GeM pooling, batch-norm neck, classifier without bias."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.models import generate_default_cfgs, register_model
from torch import nn

from .head import ReIDHead
from .layers.color import ColorNorm
from .weights.fetch import build_checked

__all__ = ['ReIDBackbone', 'reid_timm']


class ReIDBackbone(ReIDHead):
    """A timm model as a re-identification network, with the interface of `ReIDResNet`.

    Maps are pooled by GeM; tokens by the backbone's own pooling, as it was trained with.

    Args:
        backbone: name of a timm model, such as `'resnest50d'`.
        num_classes: identities of the classifier; 0 makes the embedding the output.
        global_pool: of maps, `'gem'` or a pooling of timm (`'avg'`, `'max'`, `'avgmax'`, `'catavgmax'`).
        backbone_args: further arguments of the backbone, such as `{'img_size': 256}`.
        color_norm: normalization of each image by its own colors before the backbone, see `ColorNorm`.
        whiten: a fixed linear map after the neck, see `Whitening`.

    Raises:
        ValueError: no such model in timm.
    """

    if TYPE_CHECKING:
        backbone_args: dict[str, Any]

    def __init__(
        self,
        backbone: str,
        num_classes: int = 0,
        global_pool: str = 'gem',
        in_chans: int = 3,
        drop_rate: float = 0.0,
        backbone_args: dict[str, Any] | None = None,
        color_norm: bool = False,
        whiten: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.backbone_args = dict(backbone_args or {})
        #: what `create_model` needs to make this network again
        self.model_args = {
            'backbone': backbone,
            'global_pool': global_pool,
            'drop_rate': drop_rate,
            'backbone_args': self.backbone_args,
            **({'color_norm': True} if color_norm else {}),
            **({'whiten': True} if whiten else {}),
        }
        self.color_norm: nn.Module = ColorNorm(in_chans) if color_norm else nn.Identity()
        try:
            self.backbone = timm.create_model(backbone, num_classes=0, in_chans=in_chans, **self.backbone_args)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f'backbone {backbone!r}: {error}') from error
        if not hasattr(self.backbone, 'forward_head'):
            raise ValueError(f'backbone {backbone!r}: gives maps without a head; leave out features_only')
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        size = self.backbone_args.get('img_size', self.backbone.pretrained_cfg['input_size'][1:])
        self.input_size = (in_chans, *((size, size) if isinstance(size, int) else size))
        with torch.no_grad():
            features = self.backbone.eval().forward_features(torch.zeros(1, in_chans, *self.input_size[1:]))
        self.backbone.train()
        self.feature_dim = -1  # of the channels
        self.token_width = 0
        one = isinstance(features, torch.Tensor)  # CrossViT gives a list of tokens
        if not one or features.ndim != 4:
            with torch.no_grad():
                self.token_width = self.backbone.forward_head(features, pre_logits=True).shape[1]
        elif features.shape[1] == self.backbone.num_features:
            self.feature_dim = 1
        self.num_features = features.shape[self.feature_dim] if one else self.token_width
        self.has_whitening = whiten
        self._check_classifier(num_classes, global_pool)
        self._build_head(num_classes, 'own' if self.token_width else global_pool)
        self.to(device=device, dtype=dtype)

    def _pool_by(self, global_pool: str, **dd: Any) -> int:
        if not self.token_width:
            return super()._pool_by(global_pool, **dd)
        if global_pool != 'own':
            raise ValueError(f'global_pool={global_pool!r}: this backbone makes tokens and pools them itself')
        self.global_pool = nn.Identity()
        return self.token_width

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The backbone's groups, for layer decay."""
        groups = self.backbone.group_matcher(coarse=coarse)

        def below(pattern: Any) -> Any:
            if isinstance(pattern, str):
                # timm matches at the start of a name, each alternative
                unanchored = re.sub(r'(?<!\[)\^', '', pattern)
                return rf'^backbone\.(?:{unanchored})'
            return [(below(item[0]), *item[1:]) for item in pattern]

        return {key: below(pattern) for key, pattern in groups.items()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """From images `(B, C, H, W)` maps `(B, D, h, w)`; the pooled `(B, D)` of backbones that make tokens."""
        x = self.backbone.forward_features(self.color_norm(x))
        if self.token_width:
            return self.backbone.forward_head(x, pre_logits=True)
        return x if self.feature_dim == 1 else x.permute(0, 3, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    # None: filled in from the backbone
    {'reid_timm': {'num_classes': 0, 'classifier': 'fc', 'input_size': None, 'interpolation': None}}
)


@register_model
def reid_timm(pretrained: bool = False, backbone: str = 'resnet50', **kwargs: Any) -> ReIDBackbone:
    """A timm backbone with a re-identification head; see `ReIDBackbone`."""
    model: ReIDBackbone = build_checked(ReIDBackbone, 'reid_timm', pretrained, backbone=backbone, **kwargs)
    # images are prepared as the backbone's weights expect it, unless a checkpoint of this model says otherwise
    theirs = model.backbone.pretrained_cfg
    if model.pretrained_cfg.get('input_size') is None:
        model.pretrained_cfg['input_size'] = model.input_size
    for key in ('fixed_input_size', 'mean', 'std', 'interpolation', 'first_conv', 'license'):
        if model.pretrained_cfg.get(key) is None and theirs.get(key) is not None:
            model.pretrained_cfg[key] = theirs[key]
    model.pretrained_cfg.update(crop_pct=1.0, crop_mode='squash')
    return model
