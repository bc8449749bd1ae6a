"""Losses of metric learning over all pairs of a batch, and the logits of the classifier.

A loss takes the embeddings `(B, D)` of any float dtype and the identities `(B,)` as integers, and gives a float32
scalar. It has no loop over the batch and never waits for the GPU. Over several processes it is the loss of the global
batch, see `gather_batch`.

Pairs are compared in float64: the product of a few hundred embeddings costs next to nothing beside the network, its
squared distances do not cancel as those of float32 do (two equal 2048-d features come out 0.03 apart there), and
neither autocast nor TF32 touches it. An embedding that is not finite makes the loss NaN, even where no pair uses it.
"""

from __future__ import annotations

import inspect

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

__all__ = [
    'METRIC_LOSSES',
    'CircleLoss',
    'ClassifierLogits',
    'MultiSimilarityLoss',
    'SupConLoss',
    'TripletLoss',
    'create_metric_loss',
    'gather_batch',
    'pairwise_distances',
]

# Below this squared length a vector has no direction, and below this squared distance two vectors are one place.
_TINY = 1e-12
# In place of -inf, whose differences are NaN; leaves room for a sum of two.
_NOTHING = -1e30


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.device.type == 'mps' else x.double()  # Apple's GPUs have no float64


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Rows of unit length; one without a direction is 0, and so is its gradient."""
    squares = x.square().sum(1, keepdim=True)
    return x * torch.where(squares > _TINY, squares.clamp(min=_TINY).rsqrt(), 0.0)


def _euclidean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    center = b.mean(0).detach()  # what all have in common would only cost digits
    a, b = a - center, b - center
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)
    return squares.clamp(min=_TINY).sqrt()  # the slope of the root is finite, and 0 at 0


def _cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 1 - _unit(a) @ _unit(b).T


_DISTANCES = {'euclidean': _euclidean, 'cosine': _cosine}


def pairwise_distances(a: torch.Tensor, b: torch.Tensor, metric: str = 'euclidean') -> torch.Tensor:
    """Distances between the rows of two matrices, without a `(N, M, D)` intermediate.

    The distance of a 2048-d feature to itself is below 1e-5, with a gradient of 0.

    Args:
        a: `(N, D)`, any float dtype.
        b: `(M, D)`.
        metric: `'euclidean'`, or `'cosine'` for 1 - cosine in 0..2, where a zero vector is at 1 from everything.

    Returns:
        `(N, M)` float32.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'a and b must be (N, D) and (M, D), not {tuple(a.shape)} and {tuple(b.shape)}')
    with torch.autocast(a.device.type, enabled=False):
        return _distance(metric)(_wide(a), _wide(b)).float()


def _distance(metric: str):
    if metric not in _DISTANCES:
        raise ValueError(f"metric must be 'euclidean' or 'cosine', not {metric!r}")
    return _DISTANCES[metric]


class _Gather(torch.autograd.Function):
    """The rows of all processes. Each computes the same loss from them, so no gradient has to travel back."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        world = dist.get_world_size()
        return grad.chunk(world)[dist.get_rank()] * world


def gather_batch(embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of all processes in the order of their ranks, with gradient; without processes the batch itself.

    What is computed from it has to be the same in every process, as the losses here are. The gradient of its own rows
    is multiplied by the number of processes: after DistributedDataParallel has averaged the gradients over the
    processes, the weights have those of one process with the whole batch.

    Args:
        embeddings: `(B, D)`; B is the same in all processes.
        labels: `(B,)`.

    Raises:
        ValueError: batch sizes that differ. Looked at on the CPU only: on a GPU it would have to wait, and
            `IdentitySampler` gives every process the same size.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings, labels
    if embeddings.device.type == 'cpu':
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(labels)]))
        if len(set(torch.cat(sizes).tolist())) > 1:
            raise ValueError(
                f'the processes have batches of {torch.cat(sizes).tolist()} images: give each the same number, '
                'as IdentitySampler does'
            )
    everyone = [torch.empty_like(labels) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, labels.contiguous())
    return _Gather.apply(embeddings.contiguous()), torch.cat(everyone)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


class _PairLoss(nn.Module):
    """A loss of the pairs of a batch: checks, the global batch, float64. Subclasses define `_loss`."""

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or not len(labels):
            raise ValueError(
                f'embeddings must be (B, D) and labels (B,), not {tuple(embeddings.shape)} and {tuple(labels.shape)}'
            )
        if not embeddings.is_floating_point() or labels.is_floating_point():
            raise TypeError(f'embeddings must be floats and labels integers, not {embeddings.dtype} and {labels.dtype}')
        embeddings, labels = gather_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            wide = _wide(embeddings)
            same = labels[:, None] == labels
            itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
            loss = self._loss(wide, same & ~itself, ~same)
            # nothing where all is finite, NaN else; and a gradient where there is no pair at all
            return (loss + 0 * wide.sum()).float()

    def _loss(self, x: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """The loss of `(B, D)` embeddings; the masks `(B, B)` hold the pairs of an anchor (row)."""
        raise NotImplementedError


def _anchors(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    return positive.any(1) & negative.any(1)


class TripletLoss(_PairLoss):
    """Triplet loss over one positive and one negative distance per anchor (Hermans et al., 2017; eq. 14 of the paper).

    The mean over the anchors that have a positive and a negative; 0 where there are none.

    Args:
        margin: `None` is the soft margin `log(1 + exp(d_ap - d_an))`, a number m >= 0 the hinge
            `max(0, d_ap - d_an + m)`.
        metric: `'euclidean'` on the embeddings as they are, or `'cosine'`, 1 - cosine.
        mining: how the distances of an anchor become d_ap and d_an.
            `'hard'`: the farthest positive and the nearest negative.
            `'softmax'`: means with the weights softmax(d) over the positives and softmax(-d) over the negatives (Ye et
            al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021).
            `'weighted'`: the same as the authors' released code computes it. There the anchor is one of its own
            positives, and 1e-6 joins the sum below the weights of the negatives. So these vanish, and d_an with them,
            where all negatives are farther than about 18, as those of 2048-d features can be.
    """

    def __init__(self, margin: float | None = None, metric: str = 'euclidean', mining: str = 'hard') -> None:
        super().__init__()
        if margin is not None and not 0 <= margin < float('inf'):
            raise ValueError(f'margin must be None (soft margin) or a number of at least 0, not {margin}')
        if mining not in ('hard', 'softmax', 'weighted'):
            raise ValueError(f"mining must be 'hard', 'softmax' or 'weighted', not {mining!r}")
        self.margin = margin
        self.metric = metric
        self.mining = mining
        self._distances = _distance(metric)

    def _loss(self, x: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        distances = self._distances(x, x)
        if self.mining == 'hard':
            far = torch.where(positive, distances, _NOTHING).amax(1)
            near = torch.where(negative, distances, -_NOTHING).amin(1)
        else:
            released = self.mining == 'weighted'
            far = _weighted_mean(distances, ~negative if released else positive)
            near = _weighted_mean(distances, negative, -1, shortage=1e-6 if released else 0.0)
        anchors = _anchors(positive, negative)
        gap = torch.where(anchors, far - near, 0.0)
        return _masked_mean(F.softplus(gap) if self.margin is None else F.relu(gap + self.margin), anchors)

    def extra_repr(self) -> str:
        return f'margin={self.margin}, metric={self.metric!r}, mining={self.mining!r}'


def _weighted_mean(distances: torch.Tensor, mask: torch.Tensor, sign: int = 1, shortage: float = 0.0) -> torch.Tensor:
    """Mean per row with the weights exp(sign * d) / (their sum + shortage)."""
    exponents = torch.where(mask, sign * distances, _NOTHING)
    total = exponents.logsumexp(1, keepdim=True)
    if shortage:
        total = torch.logaddexp(total, torch.full_like(total, shortage).log())
    return ((exponents - total).exp() * torch.where(mask, distances, 0.0)).sum(1)


class CircleLoss(_PairLoss):
    """Circle loss of pairs on cosines (Sun et al., "Circle Loss", CVPR 2020, eq. 6).

    The mean over the anchors that have a positive and a negative; 0 where there are none.

    Args:
        margin: m, in 0..1; optima are 1 + m and -m, the boundaries 1 - m and m.
        scale: gamma. The defaults are those of the article for re-identification.
    """

    def __init__(self, margin: float = 0.25, scale: float = 128.0) -> None:
        super().__init__()
        self.margin, self.scale = _circle_arguments(margin, scale)

    def _loss(self, x: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        unit = _unit(x)
        to_positive, to_negative = _circle(unit @ unit.T, self.margin, self.scale)
        pull = torch.where(positive, -to_positive, _NOTHING).logsumexp(1)
        push = torch.where(negative, to_negative, _NOTHING).logsumexp(1)
        return _masked_mean(F.softplus(pull + push), _anchors(positive, negative))

    def extra_repr(self) -> str:
        return f'margin={self.margin}, scale={self.scale}'


def _circle_arguments(margin: float, scale: float) -> tuple[float, float]:
    if not 0 <= margin < 1:
        raise ValueError(f'margin must be at least 0 and below 1, not {margin}')
    return float(margin), _above_zero('scale', scale)


def _above_zero(name: str, value: float) -> float:
    if not 0 < value < float('inf'):
        raise ValueError(f'{name} must be a finite number above 0, not {value}')
    return float(value)


def _circle(cosine: torch.Tensor, margin: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of cosines as positives and as negatives; their weights are constants for the gradient."""
    still = cosine.detach()
    to_positive = scale * F.relu(1 + margin - still) * (cosine - (1 - margin))
    return to_positive, scale * F.relu(still + margin) * (cosine - margin)


class MultiSimilarityLoss(_PairLoss):
    """Multi-similarity loss with its mining on cosines (Wang et al., CVPR 2019).

    A negative counts if its cosine + epsilon is above that of the least similar positive, a positive if its cosine -
    epsilon is below that of the most similar negative. The mean over all images of the batch; one without such pairs
    is a 0 in it, as in the authors' code.

    Args:
        alpha, beta: sharpness of positive and of negative pairs.
        base: the cosine that both are measured from, lambda of the article.
        epsilon: margin of the mining. The defaults are those of the authors' code; the article has beta 50, base 1.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 40.0, base: float = 0.5, epsilon: float = 0.1) -> None:
        super().__init__()
        self.alpha = _above_zero('alpha', alpha)
        self.beta = _above_zero('beta', beta)
        self.base = float(base)
        self.epsilon = float(epsilon)

    def _loss(self, x: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        unit = _unit(x)
        cosine = unit @ unit.T
        still = cosine.detach()
        # an anchor without positives has no hard negatives, and the other way round
        lowest = torch.where(positive, still, -_NOTHING).amin(1, keepdim=True)
        highest = torch.where(negative, still, _NOTHING).amax(1, keepdim=True)
        positive = positive & (still - self.epsilon < highest)
        negative = negative & (still + self.epsilon > lowest)
        pull = torch.where(positive, self.alpha * (self.base - cosine), _NOTHING).logsumexp(1)
        push = torch.where(negative, self.beta * (cosine - self.base), _NOTHING).logsumexp(1)
        return (F.softplus(pull) / self.alpha + F.softplus(push) / self.beta).mean()

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, base={self.base}, epsilon={self.epsilon}'


class SupConLoss(_PairLoss):
    """Supervised contrastive loss on cosines (Khosla et al., NeurIPS 2020, eq. 2).

    The mean over the anchors that have a positive and a negative; 0 where there are none.

    Args:
        temperature: tau; the default is that of the authors' code.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = _above_zero('temperature', temperature)

    def _loss(self, x: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        unit = _unit(x)
        logits = unit @ unit.T / self.temperature
        others = torch.where(positive | negative, logits, _NOTHING).logsumexp(1)
        of_positives = torch.where(positive, logits, 0.0).sum(1) / positive.sum(1).clamp(min=1)
        return _masked_mean(others - of_positives, _anchors(positive, negative))

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}'


class ClassifierLogits(nn.Module):
    """Logits of embeddings for a classifier's weight, which stays in the model (`model.fc.weight`); float32.

    `'linear'` is `x w^T`, `'cosine'` is `scale cos(x, w)`, and `'circle'` the Circle loss of a classifier (Sun et al.,
    CVPR 2020, eq. 6 with one positive): `scale [1 + m - cos]+ (cos - 1 + m)` for the image's own class and
    `scale [cos + m]+ (cos - m)` for the others, their first factors constant for the gradient. All three are for
    `F.cross_entropy`.

    Args:
        kind: `'linear'`, `'cosine'` or `'circle'`.
        scale: of the last two.
        margin: m of `'circle'`, at least 0 and below 1. The defaults are those of the released code.
    """

    def __init__(self, kind: str = 'linear', scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__()
        if kind not in ('linear', 'cosine', 'circle'):
            raise ValueError(f"kind must be 'linear', 'cosine' or 'circle', not {kind!r}")
        self.kind = kind
        self.margin, self.scale = _circle_arguments(margin, scale)

    def forward(
        self, embeddings: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The logits `(B, C)`.

        Args:
            embeddings: `(B, D)`.
            weight: `(C, D)`.
            labels: `(B,)`, the classes in 0..C-1, which only `'circle'` looks at. None, as in evaluation, gives scaled
                cosines there.
        """
        if embeddings.ndim != 2 or weight.ndim != 2 or embeddings.shape[1] != weight.shape[1]:
            raise ValueError(
                f'embeddings and weight must be (B, D) and (C, D), not {tuple(embeddings.shape)} and '
                f'{tuple(weight.shape)}'
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, weight = embeddings.float(), weight.float()
            if self.kind == 'linear':
                return F.linear(embeddings, weight)
            cosine = F.linear(_unit(embeddings), _unit(weight))
            if self.kind == 'cosine' or labels is None:
                return self.scale * cosine
            to_positive, to_negative = _circle(cosine, self.margin, self.scale)
            own = labels[:, None] == torch.arange(len(weight), device=labels.device)  # F.one_hot waits for the GPU
            return torch.where(own, to_positive, to_negative)

    def extra_repr(self) -> str:
        return f'kind={self.kind!r}, scale={self.scale}, margin={self.margin}'


METRIC_LOSSES: dict[str, type[nn.Module]] = {
    'triplet': TripletLoss,
    'circle': CircleLoss,
    'multi_similarity': MultiSimilarityLoss,
    'supcon': SupConLoss,
}


def create_metric_loss(name: str, **kwargs) -> nn.Module:
    """A loss of `METRIC_LOSSES` by its name; `kwargs` are the arguments of its class.

    Raises:
        ValueError: unknown name, or an argument out of its range.
        TypeError: an argument that this loss does not have.
    """
    if name not in METRIC_LOSSES:
        raise ValueError(f'unknown loss {name!r}; known: {", ".join(METRIC_LOSSES)}')
    options = inspect.signature(METRIC_LOSSES[name]).parameters
    for key in kwargs:
        if key not in options:
            raise TypeError(f'loss {name!r} has no argument {key!r}; it has: {", ".join(options)}')
    return METRIC_LOSSES[name](**kwargs)
