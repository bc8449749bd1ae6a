"""deep-sort-realtime: what `DeepSort(embedder=None).update_tracks` takes. Nothing of it is imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..embedding.boxes import parse_boxes
from ..embedding.extractor import FeatureExtractor

__all__ = ['DeepSortInputs', 'deep_sort_inputs']


class DeepSortInputs(NamedTuple):
    """The arguments `raw_detections` and `embeds` of `update_tracks`, in this order: `update_tracks(*inputs)`.

    Attributes:
        raw_detections: `([left, top, width, height], score, class)` of each valid box.
        embeds: its embedding, `(D,)` float32.
    """

    raw_detections: list[tuple[list[float], float, Any]]
    embeds: list[np.ndarray]


def deep_sort_inputs(
    extractor: FeatureExtractor,
    frame: Any,
    boxes: Any,
    scores: Any = None,
    classes: Any = None,
    *,
    color: str | None = None,
    margin: float = 0.0,
) -> DeepSortInputs:
    """Embed the boxes of a frame for deep-sort-realtime.

    ```python
    tracker = DeepSort(embedder=None, max_cosine_distance=1 - threshold)
    tracks = tracker.update_tracks(*deep_sort_inputs(extractor, frame, boxes, scores, color='bgr'))
    ```

    Boxes that are not valid are in neither list: the package drops detections without a width or height but keeps their
    embeddings, so that all that follow would have those of other vehicles.

    Args:
        extractor: embeds the crops.
        frame, boxes, color, margin: as of `FeatureExtractor.embed_boxes`. Of an oriented box the tracker gets the
            upright box around it.
        scores: `(N,)` of the detector; None for 1.
        classes: N names or numbers; None for none.

    Raises:
        ValueError: numbers of scores or classes that are not that of the boxes, and what `embed_boxes` refuses.
    """
    edges = parse_boxes(boxes)
    if edges.ndim == 3:
        edges = np.concatenate([edges.min(axis=1), edges.max(axis=1)], axis=1)
    scores = [1.0] * len(edges) if scores is None else list(scores)
    classes = [None] * len(edges) if classes is None else list(classes)
    for name, values in (('scores', scores), ('classes', classes)):
        if len(values) != len(edges):
            raise ValueError(f'{name} are {len(values)} for {len(edges)} boxes')
    vectors, valid = extractor.embed_boxes(frame, boxes, color=color, margin=margin)
    kept = np.flatnonzero(valid)
    lefts = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)
    return DeepSortInputs([(lefts[k].tolist(), float(scores[k]), classes[k]) for k in kept], [vectors[k] for k in kept])
