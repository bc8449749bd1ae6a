"""norfair with our embeddings and distance."""

import numpy as np
import pytest

from tests.support.traffic import numbers_of
from timm_dpa.integrations.norfair import embedding_distance, norfair_detections

pytestmark = pytest.mark.integrations

norfair = pytest.importorskip('norfair')


@pytest.mark.parametrize('looks', [True, False])
def test_vehicles_are_found_again_by_their_looks(extractor, moments, threshold, looks):
    options = {
        'reid_distance_function': embedding_distance,
        'reid_distance_threshold': 1 - threshold,
        'reid_hit_counter_max': 100,
    }
    tracker = norfair.Tracker(
        distance_function='iou', distance_threshold=0.9, hit_counter_max=2, initialization_delay=1,
        past_detections_length=10, **(options if looks else {}),
    )  # fmt: skip
    numbers = []
    for moment in moments:
        boxes = np.concatenate([moment.boxes, [[np.nan] * 4, [9, 9, 3, 30], [2000, 9, 2090, 60]]])
        detections = norfair_detections(extractor, moment.frame, boxes, np.full(len(boxes), 0.9), color='rgb')
        assert [d.embedding is not None for d in detections] == [True] * len(moment.boxes) + [False]
        tracked = tracker.update(detections)
        numbers.append(numbers_of(moment, {track.id: track.estimate.ravel() for track in tracked}))
    assert len(numbers[4]) == 4
    assert (numbers[-1] == numbers[4]) == looks
