"""norfair: detections with embeddings, and the distance by which it finds a lost vehicle again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..embedding.boxes import parse_boxes
from ..embedding.extractor import FeatureExtractor

__all__ = ['embedding_distance', 'norfair_detections']


def norfair_detections(
    extractor: FeatureExtractor,
    frame: Any,
    boxes: Any,
    scores: Any = None,
    *,
    color: str | None = None,
    margin: float = 0.0,
) -> list[Any]:
    """Make `norfair.Detection` objects of the boxes of a frame, with their embeddings.

    ```python
    tracker = norfair.Tracker(
        distance_function='iou', distance_threshold=0.7, past_detections_length=10,
        reid_distance_function=embedding_distance, reid_distance_threshold=1 - threshold, reid_hit_counter_max=100,
    )
    tracked = tracker.update(norfair_detections(extractor, frame, boxes, scores, color='bgr'))
    ```

    Args:
        extractor: embeds the crops.
        frame, boxes, color, margin: as of `FeatureExtractor.embed_boxes`. Of an oriented box norfair gets the upright
            box around it.
        scores: `(N,)` of the detector, or None.

    Returns:
        A detection for each box whose numbers are finite and not inverted. Its points are the upper left and the lower
        right corner. `embedding` is None where too little of the box lies inside the frame; `data` is its index among
        the boxes.

    Raises:
        ValueError: another number of scores than of boxes, and what `embed_boxes` refuses.
        ImportError: norfair is not installed.
    """
    try:
        from norfair import Detection
    except ImportError as error:
        raise ImportError('norfair is not installed: pip install norfair') from error
    edges = parse_boxes(boxes)
    if edges.ndim == 3:
        edges = np.concatenate([edges.min(axis=1), edges.max(axis=1)], axis=1)
    if scores is not None and len(scores) != len(edges):
        raise ValueError(f'scores are {len(scores)} for {len(edges)} boxes')
    vectors, valid = extractor.embed_boxes(frame, boxes, color=color, margin=margin)
    return [
        Detection(
            points=edges[k].reshape(2, 2),
            scores=None if scores is None else np.full(2, float(scores[k])),
            embedding=vectors[k] if valid[k] else None,
            data=k,
        )
        for k in range(len(edges))
        if np.isfinite(edges[k]).all() and (edges[k, 2:] > edges[k, :2]).all()
    ]


def embedding_distance(new: Any, lost: Any) -> float:
    """The `reid_distance_function` of `norfair.Tracker`: 1 minus the cosine of two tracks.

    A track is the mean of the embeddings of the detections that norfair remembers of it (`past_detections_length`).

    Args:
        new: `TrackedObject` that has just appeared.
        lost: `TrackedObject` that may be the same vehicle.

    Returns:
        0 to 2; infinity where one of them has no embedding.
    """
    first, second = sum(_embeddings(new)), sum(_embeddings(lost))
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return math.inf if norm == 0 else float(1 - np.vdot(first, second) / norm)


def _embeddings(track: Any) -> Iterator[np.ndarray]:
    known = list(track.past_detections)
    if not any(detection is track.last_detection for detection in known):
        known.append(track.last_detection)
    yield from (detection.embedding for detection in known if detection.embedding is not None)
