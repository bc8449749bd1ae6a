"""Trackers on supervision's Detections, such as its ByteTrack and those of Roboflow's trackers: numbers that come back.

These trackers know places, not looks: a vehicle that was hidden for long gets a new number. Nothing of supervision is
imported: detections are objects with `xyxy` and `tracker_id`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..embedding.extractor import FeatureExtractor

__all__ = ['TrackLinker']


class TrackLinker:
    """Gives a vehicle that a tracker has lost its old number back, by what it looks like.

    ```python
    linker = TrackLinker(extractor, threshold)
    detections = linker.update(frame, tracker.update(detections), color='bgr')
    ```

    Numbers count from 1. When a track of the tracker begins, it is compared with the numbers that are not in the frame,
    by the cosine to the mean of their embeddings; the best pair is linked first, and no number is twice in a frame.

    Args:
        extractor: embeds the crops.
        threshold: smallest cosine of two tracks of one vehicle, -1 to 1.
        patience: frames after which a number that was not seen is forgotten.
        margin: share of the width and of the height that is added on each side of a box.

    Raises:
        ValueError: no cosine, or patience below 1.
    """

    def __init__(
        self, extractor: FeatureExtractor, threshold: float, *, patience: int = 300, margin: float = 0.0
    ) -> None:
        if not -1 <= threshold <= 1:
            raise ValueError(f'threshold must be a cosine, -1 to 1, not {threshold}')
        if patience < 1:
            raise ValueError(f'patience must be at least 1 frame, not {patience}')
        self.extractor, self.threshold, self.patience, self.margin = extractor, threshold, patience, margin
        self._frame = self._last = 0
        self._tracks: dict[int, tuple[int, int]] = {}  # of the tracker -> our number, and the last frame with it
        self._sums: dict[int, np.ndarray] = {}  # of the embeddings, by our number
        self._seen: dict[int, int] = {}  # last frame, by our number

    def update(self, frame: Any, detections: Any, *, color: str | None = None) -> Any:
        """Link the detections of the next frame.

        Args:
            frame, color: as of `FeatureExtractor.embed_boxes`.
            detections: object with `xyxy` and `tracker_id`, `(N,)` integers or None; below 0 is no track.

        Returns:
            A copy of `detections` with our numbers in `tracker_id`; what is no track keeps its number below 0. A track
            that begins with a box that cannot be embedded is not linked.

        Raises:
            ValueError: what `embed_boxes` refuses.
        """
        self._frame += 1
        linked = copy.copy(detections)
        if detections.tracker_id is None:
            return linked
        for number in [n for n, seen in self._seen.items() if self._frame - seen > self.patience]:
            del self._seen[number]
            self._sums.pop(number, None)
        tracks = [int(k) for k in detections.tracker_id]
        vectors, valid = self.extractor.embed_boxes(frame, detections, color=color, margin=self.margin)
        rows = {k: row for row, k in enumerate(tracks) if k >= 0}
        numbers = self._known(list(rows))
        begun = [k for k in rows if k not in numbers]
        good = [k for k in begun if valid[rows[k]]]
        numbers |= self._link(good, vectors[[rows[k] for k in good]], set(numbers.values()))
        for k in begun:
            if k not in numbers:
                numbers[k] = self._last = self._last + 1
        for k, number in numbers.items():
            self._tracks[k], self._seen[number] = (number, self._frame), self._frame
            self._sums[number] = self._sums.get(number, 0) + vectors[rows[k]]  # zeros where it is not valid
        linked.tracker_id = np.array([numbers.get(k, k) for k in tracks], int)
        return linked

    def _known(self, tracks: list[int]) -> dict[int, int]:
        """Our numbers of the tracker's tracks that go on. Where two have one number, the tracker found an old track
        again after a new one was linked to it; the one that was seen last keeps the number."""
        numbers: dict[int, int] = {}
        old = [(self._tracks[k][1], k) for k in tracks if k in self._tracks]
        for _, k in sorted(old, reverse=True):
            number = self._tracks[k][0]
            if number in self._seen and number not in numbers.values():
                numbers[k] = number
        return numbers

    def _link(self, begun: list[int], vectors: np.ndarray, present: set[int]) -> dict[int, int]:
        """Our numbers of those of the tracks that begin whose vehicle was seen before."""
        lost = [number for number in self._sums if number not in present and self._sums[number].any()]
        found: dict[int, int] = {}
        if begun and lost:
            means = np.stack([self._sums[number] for number in lost])
            cosine = vectors @ means.T / np.linalg.norm(means, axis=1)
            while cosine.max() >= self.threshold:
                row, column = np.unravel_index(cosine.argmax(), cosine.shape)
                found[begun[row]] = lost[column]
                cosine[row], cosine[:, column] = -np.inf, -np.inf
        return found
