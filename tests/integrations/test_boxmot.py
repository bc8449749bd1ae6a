"""BoxMOT's trackers with BoxMOTEmbedder. BoxMOT is under the AGPL: the test runs where somebody has installed it."""

import numpy as np
import pytest

from tests.support.traffic import numbers_of
from timm_dpa.integrations.boxmot import BoxMOTEmbedder

pytestmark = pytest.mark.integrations

boxmot = pytest.importorskip('boxmot')


@pytest.fixture(scope='module')
def embedder(extractor):
    return BoxMOTEmbedder(extractor)


def rows(boxes: np.ndarray) -> np.ndarray:
    """Boxes with a score and a class."""
    return np.column_stack([boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes))])


def test_botsort_finds_vehicles_again(embedder, moments, threshold):
    tracker = boxmot.BotSort(reid_model=embedder, appearance_thresh=1 - threshold, proximity_thresh=1.0)
    numbers = []
    for moment in moments:
        tracks = tracker.update(rows(moment.boxes), np.ascontiguousarray(moment.frame[:, :, ::-1]))
        numbers.append(numbers_of(moment, {int(track[4]): track[:4] for track in tracks}))
    assert len(numbers[4]) == 4
    assert numbers[-1] == numbers[4]


def test_oriented_boxes_and_boxes_outside(embedder, moments):
    """BoxMOT refuses features of zeros for the whole frame."""
    tracker = boxmot.BotSort(reid_model=embedder, is_obb=True)
    boxes = moments[0].boxes
    turned = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], np.zeros(len(boxes))])
    turned[0, :2] += 5000
    for _ in range(2):
        tracks = tracker.update(rows(turned), np.ascontiguousarray(moments[0].frame[:, :, ::-1]))
    assert len(tracks) == len(boxes)
