"""The training task: a model, its classification loss and its metric loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from timm.task import TrainingTask
from torch import nn

from ..losses import ClassifierLogits, create_metric_loss
from ..recipes.recipe import LossRecipe

__all__ = ['ReIDTask', 'pull_loss', 'smoothing_of_torch']


class ReIDTask(TrainingTask):
    """Images and identities in, the weighted sum of the losses out.

    Args:
        model: with `forward_features`, `global_pool`, `neck` and, for a classification loss, a linear `fc`.
        loss: see `LossRecipe`.
        start: the network whose embeddings `loss.pull` pulls to; it is frozen here. Without it, they come with each
            batch.

    Raises:
        ValueError: no loss at all, a classification loss without classifier, or unknown options of the metric loss.
    """

    def __init__(
        self,
        model: Any,
        loss: LossRecipe,
        device: torch.device | None = None,
        start: nn.Module | None = None,
    ) -> None:
        super().__init__(device=device, verbose=False)
        if loss.classifier == 'none' and loss.metric == 'none' and not loss.pull:
            raise ValueError('loss.classifier and loss.metric are both none: there is nothing to learn from')
        if loss.classifier != 'none' and model.num_classes < 2:
            raise ValueError(
                f'loss.classifier={loss.classifier} needs at least 2 identities to tell apart, not {model.num_classes}'
            )
        self.loss = loss
        self.model = model
        logits = None
        if loss.classifier != 'none':
            logits = ClassifierLogits(loss.classifier, scale=loss.scale, margin=loss.margin)
        else:  # no loss reaches them, and DistributedDataParallel would wait for their gradients
            model.fc.requires_grad_(False)
            if loss.metric_feature == 'before_neck' and not loss.pull:
                model.neck.requires_grad_(False)
        try:
            self.metric_loss = None if loss.metric == 'none' else create_metric_loss(loss.metric, **loss.metric_args)
        except (TypeError, ValueError) as error:
            raise ValueError(f'loss.metric={loss.metric} with loss.metric_args={loss.metric_args}: {error}') from error
        self.smoothing = smoothing_of_torch(loss.label_smoothing, model.num_classes, loss.smooth_target)
        self.network: nn.Module = _Network(model, logits)
        # in a tuple, which hides it from train(), from checkpoints and from DistributedDataParallel
        self.start: tuple[nn.Module, ...] = ()
        if start is not None:
            self.start = (_Network(start.eval().requires_grad_(False), None).eval(),)
        if loss.pull and not self.start and not loss.targets:
            raise ValueError(f'loss.pull={loss.pull} needs the network of the start')

    def get_trainable_module(self, ema: bool = False) -> nn.Module | None:
        """The model, or its moving average; timm's own choice, the task, would change the names in checkpoints."""
        return super().get_trainable_module(ema=True) if ema else self.model

    def no_sync(self) -> AbstractContextManager[None]:
        """While gradients are accumulated. timm's would ask the model, and what is distributed is the network around
        it."""
        if isinstance(self.network, nn.parallel.DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> ReIDTask:
        """Wrap the network in DistributedDataParallel; again after parameters were frozen or released."""
        network = getattr(self.network, 'module', self.network)
        self.network = nn.parallel.DistributedDataParallel(network, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, backend: str = 'inductor', mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compile the network in place, so that names in checkpoints stay as they are."""
        self.network.compile(backend=backend, mode=mode, **compile_kwargs)
        return self.network

    def forward(
        self, input: torch.Tensor, target: torch.Tensor, wanted: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Losses of a batch.

        Args:
            input: `(B, 3, H, W)`, normalized.
            target: `(B,)` int64, labels in 0..num_classes-1.
            wanted: `(B, D)` embeddings that `loss.pull` pulls to, where no network makes them.

        Returns:
            `loss` to minimize, its parts `classifier`, `metric` and `pull` where there are, as float32 scalars, and
            `output`, the logits `(B, num_classes)`, or the embeddings after the neck where there is no classifier.
        """
        before, after, logits = self.network(input, target)
        result = {'output': after if logits is None else logits}
        total = before.new_zeros((), dtype=torch.float32)
        if logits is not None:
            result['classifier'] = F.cross_entropy(logits.float(), target, label_smoothing=self.smoothing)
            total = total + self.loss.classifier_weight * result['classifier']
        if self.metric_loss is not None:
            feature = before if self.loss.metric_feature == 'before_neck' else after
            result['metric'] = self.metric_loss(feature, target)
            total = total + self.loss.metric_weight * result['metric']
        if self.loss.pull:
            if wanted is None:
                with torch.no_grad():
                    wanted = self.start[0](input, target)[1]
            result['pull'] = pull_loss(after.float(), wanted.float())
            total = total + self.loss.pull * result['pull']
        return {'loss': total, **result}


class _Network(nn.Module):
    """What DistributedDataParallel and torch.compile wrap: all that holds parameters, in one forward."""

    def __init__(self, model: Any, logits: ClassifierLogits | None) -> None:
        super().__init__()
        self.model = model
        self.logits = logits

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        before = self.model.global_pool(self.model.forward_features(images))
        after = self.model.whiten(self.model.neck(before))
        if self.model.drop_rate:
            after = F.dropout(after, p=float(self.model.drop_rate), training=self.training)
        if self.logits is None:
            return before, after, None
        return before, after, self.logits(after, self.model.fc.weight, labels)


def pull_loss(embeddings: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far embeddings are from those of a teacher, see `LossRecipe`.

    Args:
        embeddings: `(B, D)` float32.
        wanted: `(B, E)` float32, of the same images. Where E is not D, pairs are compared.

    Returns:
        Mean of 1 - cosine, 0..2; or mean squared difference of the cosines of all pairs, 0..4.
    """
    if embeddings.shape == wanted.shape:
        return (1 - F.cosine_similarity(embeddings, wanted)).mean()
    own, theirs = F.normalize(embeddings), F.normalize(wanted)
    return F.mse_loss(own @ own.T, theirs @ theirs.T)


def smoothing_of_torch(eps: float, num_classes: int, smooth_target: bool) -> float:
    """Smoothing for `F.cross_entropy`, which gives eps / N to all classes (eq. 13).

    Without `smooth_target` the target keeps 1 - eps and the N - 1 others share eps, as in the released code: the same
    as eq. 13 with eps N / (N - 1).
    """
    return eps if smooth_target or num_classes < 2 else min(1.0, eps * num_classes / (num_classes - 1))
