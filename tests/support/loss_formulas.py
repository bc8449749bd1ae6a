"""The losses as their articles write them: float64, one pair after the other; nothing here uses the package."""

from __future__ import annotations

import torch

Rows = list[torch.Tensor]


def pairs(labels: list[int], anchor: int) -> tuple[list[int], list[int]]:
    """Positions of the positives and of the negatives of an anchor."""
    positives = [j for j, label in enumerate(labels) if label == labels[anchor] and j != anchor]
    return positives, [j for j, label in enumerate(labels) if label != labels[anchor]]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def mean_over_anchors(embeddings: torch.Tensor, labels: list[int], loss_of_anchor) -> torch.Tensor:
    losses = []
    for anchor in range(len(labels)):
        positives, negatives = pairs(labels, anchor)
        if positives and negatives:
            losses.append(loss_of_anchor(embeddings, anchor, positives, negatives))
    return torch.stack(losses).mean()


def triplet(embeddings, labels, margin=None, metric='euclidean', mining='hard'):
    def distance(a, b):
        return 1 - cosine(a, b) if metric == 'cosine' else (a - b).square().sum().sqrt()

    def weighted(distances, sign, shortage=0.0):
        weights = [(sign * d).exp() for d in distances]
        return sum(w * d for w, d in zip(weights, distances, strict=True)) / (sum(weights) + shortage)

    def of_anchor(x, i, positives, negatives):
        near = [distance(x[i], x[j]) for j in negatives]
        far = [distance(x[i], x[j]) for j in positives]
        if mining == 'hard':
            gap = max(far) - min(near)
        elif mining == 'softmax':
            gap = weighted(far, 1) - weighted(near, -1)
        else:  # the anchor is at distance 0 from itself
            gap = weighted([*far, torch.zeros(())], 1) - weighted(near, -1, 1e-6)
        return (1 + gap.exp()).log() if margin is None else (gap + margin).clamp(min=0)

    return mean_over_anchors(embeddings, labels, of_anchor)


def circle(embeddings, labels, margin=0.25, scale=128.0):
    def of_anchor(x, i, positives, negatives):
        product = torch.zeros(2, dtype=torch.float64)
        pull, push = product.unbind()
        for j in positives:
            s = cosine(x[i], x[j])
            pull = pull + (-scale * max(0, 1 + margin - s.item()) * (s - 1 + margin)).exp()
        for j in negatives:
            s = cosine(x[i], x[j])
            push = push + (scale * max(0, s.item() + margin) * (s - margin)).exp()
        return (1 + pull * push).log()

    return mean_over_anchors(embeddings, labels, of_anchor)


def multi_similarity(embeddings, labels, alpha=2.0, beta=40.0, base=0.5, epsilon=0.1):
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(labels)):
        positives, negatives = pairs(labels, i)
        if not positives or not negatives:
            continue
        pos = [cosine(embeddings[i], embeddings[j]) for j in positives]
        neg = [cosine(embeddings[i], embeddings[j]) for j in negatives]
        hard_pos = [s for s in pos if s - epsilon < max(neg)]
        hard_neg = [s for s in neg if s + epsilon > min(pos)]
        if hard_pos and hard_neg:
            total = total + (1 + sum((-alpha * (s - base)).exp() for s in hard_pos)).log() / alpha
            total = total + (1 + sum((beta * (s - base)).exp() for s in hard_neg)).log() / beta
    return total / len(labels)


def supcon(embeddings, labels, temperature=0.07):
    def of_anchor(x, i, positives, negatives):
        exps = {j: (cosine(x[i], x[j]) / temperature).exp() for j in positives + negatives}
        return -sum((exps[j] / sum(exps.values())).log() for j in positives) / len(positives)

    return mean_over_anchors(embeddings, labels, of_anchor)


FORMULAS = {'triplet': triplet, 'circle': circle, 'multi_similarity': multi_similarity, 'supcon': supcon}


def circle_softmax(embeddings, weight, labels, scale=64.0, margin=0.35):
    logits = torch.empty(len(embeddings), len(weight), dtype=torch.float64)
    for i in range(len(embeddings)):
        for c in range(len(weight)):
            s = cosine(embeddings[i], weight[c])
            if labels[i] == c:
                logits[i, c] = scale * max(0, 1 + margin - s.item()) * (s - (1 - margin))
            else:
                logits[i, c] = scale * max(0, s.item() + margin) * (s - margin)
    return logits
