"""deep-sort-realtime with our embeddings."""

import numpy as np
import pytest

from tests.support.traffic import numbers_of, traffic
from timm_dpa.integrations.deep_sort_realtime import deep_sort_inputs

pytestmark = pytest.mark.integrations

deepsort_tracker = pytest.importorskip('deep_sort_realtime.deepsort_tracker')


def test_vehicles_are_found_again_and_bad_boxes_move_no_embedding(extractor, threshold):
    """After an absence it compares looks only, of tracks that are near enough for its motion model."""
    tracker = deepsort_tracker.DeepSort(
        embedder=None, max_cosine_distance=1 - threshold, n_init=1, max_age=60, gating_only_position=True
    )
    numbers = []
    for moment in traffic(swap=False):
        boxes = np.concatenate([[[20, 20, 20, 60], [np.nan] * 4], moment.boxes])  # the first has no width
        scores = np.linspace(0.5, 0.9, len(boxes))
        inputs = deep_sort_inputs(extractor, moment.frame, boxes, scores, color='rgb')
        assert [detection[1] for detection in inputs.raw_detections] == scores[2:].tolist()
        tracks = tracker.update_tracks(*inputs)
        shown = [track for track in tracks if track.is_confirmed() and track.time_since_update == 0]
        numbers.append(numbers_of(moment, {int(track.track_id): track.to_ltrb(orig=True) for track in shown}))
    assert len(numbers[4]) == 4
    assert numbers[-1] == numbers[4]
