"""The head of re-identification, on any trunk: pooling, batch-norm neck, whitening, classifier without bias.

He et al., "FastReID", 2020; Luo et al., "Bag of Tricks", CVPRW 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from torch import nn

from .layers.norm import VectorBatchNorm
from .layers.pooling import GeMPool
from .layers.whitening import Whitening

__all__ = ['GlobalGeMPool', 'ReIDHead']


class GlobalGeMPool(GeMPool):
    """GeM over all positions with one learnable exponent, `(B, C, H, W)` to `(B, C)`, with timm's pooling interface."""

    def __init__(
        self, p: float = 3.0, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(p, learnable=True, flatten=True, device=device, dtype=dtype)
        self.pool_type = 'gem'

    def feat_mult(self) -> int:
        return 1


class ReIDHead(nn.Module):
    """Mixin that gives a trunk the head; name it before the trunk's class.

    The embedding is taken after the neck (and the whitening) and is not normalized. The trunk's class sets
    `num_features`, `drop_rate` and `has_whitening`, and then calls `_build_head`.

    Attributes:
        thresholds: of a model that was created with pretrained weights for which they are known: false-match rate in
            0..1 -> cosine, in ascending order of the rates; of pairs of different vehicles, no more than this share
            had at least this cosine when it was measured. They are those of the weights that it was created with:
            None from `load_weights` on, but training does not change them. None if unknown.
    """

    if TYPE_CHECKING:  # TorchScript reads annotations of the class, and cannot resolve them
        num_classes: int
        num_features: int
        head_hidden_size: int
        feat_dim: int
        drop_rate: float
        has_whitening: bool
        in_chans: int
        pretrained_cfg: dict[str, Any]
        global_pool: Any  # timm's poolings have further methods
        neck: nn.Module
        whiten: nn.Module
        fc: nn.Module
        thresholds: dict[float, float] | None
    else:
        thresholds = None

    @staticmethod
    def _check_classifier(num_classes: int, global_pool: str) -> None:
        if num_classes > 0 and not global_pool:
            raise ValueError(f'num_classes={num_classes} needs a global_pool: a classifier takes no map')

    def _build_head(self, num_classes: int, global_pool: str) -> None:
        like = next(self.parameters())
        dd: dict[str, Any] = {'device': like.device, 'dtype': like.dtype}
        width = self._pool_by(global_pool, **dd)
        if not global_pool:
            self.neck, self.whiten = nn.Identity(), nn.Identity()
        elif isinstance(getattr(self, 'neck', nn.Identity()), nn.Identity) or width != self.head_hidden_size:
            # without a bias: a cosine metric wants no offset, and the released one is frozen at 0
            self.neck = VectorBatchNorm(width, bias=False, **dd)
            self.whiten = Whitening(width, **dd) if self.has_whitening else nn.Identity()
        self.num_classes = num_classes
        self.head_hidden_size = self.feat_dim = width  # the second is the name of open-metric-learning
        self.fc = nn.Identity()
        if num_classes > 0:
            self.fc = nn.Linear(width, num_classes, bias=False, **dd)
            nn.init.normal_(self.fc.weight, std=0.01)

    def _pool_by(self, global_pool: str, **dd: Any) -> int:
        """Set the pooling, unless it is of this kind already; returns the width of what it gives."""
        if global_pool != getattr(getattr(self, 'global_pool', None), 'pool_type', None):
            if global_pool == 'gem':
                self.global_pool = GlobalGeMPool(**dd)
            else:
                self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        return self.num_features * int(self.global_pool.feat_mult())

    @torch.jit.ignore
    def get_classifier(self, name_only: bool = False) -> str | nn.Module:
        """The classifier, or its name."""
        return 'fc' if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling if `global_pool` is another one.

        Pooling and neck keep what they learned unless their kind or width changes. New parts take over device, dtype
        and mode; a new neck and pooling are frozen if the old neck was.

        Raises:
            ValueError: a classifier without pooling, or another pooling of a trunk that pools by itself.
        """
        if global_pool is None:
            global_pool = str(getattr(self.global_pool, 'pool_type', 'own'))
        else:
            self._check_classifier(num_classes, global_pool)
            if global_pool != getattr(self.global_pool, 'pool_type', None):
                self.thresholds = None
        neck = list(self.neck.parameters())
        frozen = bool(neck) and not any(p.requires_grad for p in neck)
        # the list keeps the parameters alive: a new one could take over the id of one that is gone
        old = [*self.global_pool.parameters(), *neck]
        self._build_head(num_classes, global_pool)
        for module in (self.global_pool, self.neck, self.whiten, self.fc):
            module.train(self.training)
        if frozen:
            for parameter in (*self.global_pool.parameters(), *self.neck.parameters()):
                if not any(parameter is known for known in old):
                    parameter.requires_grad_(False)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """From the last map `(B, C, H, W)` the embedding `(B, head_hidden_size)`, or the logits `(B, num_classes)`."""
        if not torch.jit.is_scripting() and isinstance(self.neck, VectorBatchNorm):
            # in autocast: the neck takes off a mean that is large beside what is left, which rounding would spoil
            x = x.to(self.neck.running_mean.dtype)
        x = self.whiten(self.neck(self.global_pool(x)))
        if self.drop_rate:
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.fc(x)
