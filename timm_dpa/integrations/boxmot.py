"""BoxMOT: its trackers ask an object for the features of the boxes of a frame. Nothing of BoxMOT is imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..embedding.extractor import FeatureExtractor

__all__ = ['BoxMOTEmbedder']


class BoxMOTEmbedder:
    """What BoxMOT's trackers take as `reid_model`.

    ```python
    tracker = boxmot.BotSort(reid_model=BoxMOTEmbedder(extractor), appearance_thresh=1 - threshold)
    ```

    BoxMOT's default `appearance_thresh` of 0.25 accepts a cosine of 0.75; set it by the threshold of your weights.

    Args:
        extractor: embeds the crops.
        margin: share of the width and of the height that is added on each side of a box.
    """

    def __init__(self, extractor: FeatureExtractor, margin: float = 0.0) -> None:
        self.extractor, self.margin = extractor, margin
        self._random = np.random.default_rng(0)

    @property
    def embedding_dim(self) -> int:
        """Width D of a feature."""
        return self.extractor.embedding_size

    def get_features(self, boxes: Any, image: np.ndarray) -> np.ndarray:
        """Embed the boxes of a frame.

        Args:
            boxes: `(N, 4)` x1, y1, x2, y2 or `(N, 5)` cx, cy, w, h, radians; further columns are not read when there
                are 6 (edges, score, class) or 7 (oriented, score, class). An oriented box is cut with its long side
                upright, so that the two ways to write it give one crop.
            image: `(H, W, 3)` uint8 BGR.

        Returns:
            `(N, D)` float32 of Euclidean length 1. BoxMOT refuses rows of zeros, so a box without a crop (outside of
            the frame, without an area) has a random direction, which resembles nothing: its cosine is 0 on average,
            with a deviation of 1 / sqrt(D), 0.02 for `dpa_resnet50`.

        Raises:
            ValueError: other shapes.
        """
        rows = np.asarray(boxes, np.float64)
        if rows.ndim == 2 and rows.shape[1] in (6, 7):
            rows = rows[:, :-2]
        if rows.ndim == 2 and rows.shape[1] == 5:
            rows = _upright(rows)
        vectors, valid = self.extractor.embed_boxes(image, rows, color='bgr', margin=self.margin)
        if not valid.all():
            random = self._random.normal(size=(int((~valid).sum()), self.embedding_dim))
            vectors[~valid] = random / np.linalg.norm(random, axis=1, keepdims=True)
        return vectors


def _upright(boxes: np.ndarray) -> np.ndarray:
    """The same oriented boxes, not wider than high, with angles from -90 up to 90 degrees."""
    wide = boxes[:, 2] > boxes[:, 3]
    upright = np.where(wide[:, None], boxes[:, [0, 1, 3, 2, 4]], boxes)
    upright[:, 4] = (upright[:, 4] + np.where(wide, np.pi, np.pi / 2)) % np.pi - np.pi / 2
    return upright
