"""supervision's Detections, and trackers on them."""

import numpy as np
import pytest

from tests.support.extractors import assert_same
from tests.support.traffic import numbers_of
from timm_dpa.integrations.supervision import TrackLinker

pytestmark = pytest.mark.integrations

sv = pytest.importorskip('supervision')


def byte_track():
    """supervision's own tracker, which goes in 0.31; later versions have it no more."""
    if not hasattr(sv, 'ByteTrack'):
        pytest.skip('this supervision has no ByteTrack')
    return sv.ByteTrack(lost_track_buffer=2, frame_rate=30).update_with_detections


def roboflow_trackers():
    trackers = pytest.importorskip('trackers')
    return trackers.ByteTrackTracker(lost_track_buffer=2, minimum_consecutive_frames=1).update


def detected(boxes: np.ndarray):
    return sv.Detections(
        xyxy=boxes, confidence=np.full(len(boxes), 0.9, np.float32), class_id=np.zeros(len(boxes), int)
    )


class TestDetections:
    def test_they_are_boxes(self, extractor, moments):
        frame, boxes, _ = moments[0]
        expected, _ = extractor.embed_boxes(frame, boxes, color='rgb')
        vectors, valid = extractor.embed_boxes(np.ascontiguousarray(frame[:, :, ::-1]), detected(boxes), color='bgr')
        assert valid.all()
        assert_same(vectors, expected)
        crops = [sv.crop_image(frame, box) for box in boxes.astype(int)]
        assert_same(extractor(crops), expected)

    def test_none(self, extractor, moments):
        vectors, valid = extractor.embed_boxes(moments[0].frame, sv.Detections.empty(), color='rgb')
        assert (vectors.shape, valid.shape) == ((0, 2048), (0,))

    def test_corners_of_oriented_boxes(self, extractor, moments):
        frame, boxes, _ = moments[0]
        angle = 0.3
        numbers = [[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle] for x1, y1, x2, y2 in boxes]
        expected, _ = extractor.embed_boxes(frame, numbers, color='rgb')
        corners = np.array([[[x1, y1], [x2, y1], [x2, y2], [x1, y2]] for x1, y1, x2, y2 in boxes])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = corners.mean(axis=1, keepdims=True)
        corners = middle + (corners - middle) @ turn
        oriented = detected(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1))
        oriented.data['xyxyxyxy'] = corners
        assert_same(extractor.embed_boxes(frame, oriented, color='rgb')[0], expected)

    def test_given_alone_the_message_says_what_to_do(self, extractor, moments):
        with pytest.raises(TypeError, match=r"extractor\.embed_boxes\(frame, detections, color='bgr'\)"):
            extractor(detected(moments[0].boxes))


@pytest.mark.parametrize('make', [byte_track, roboflow_trackers])
def test_lost_numbers_come_back(extractor, moments, threshold, make):
    tracker, linker = make(), TrackLinker(extractor, threshold)
    given, linked = [], []
    for moment in moments:
        detections = tracker(detected(moment.boxes))
        before = detections.tracker_id.copy()
        after = linker.update(moment.frame, detections, color='rgb')
        assert isinstance(after, sv.Detections)
        np.testing.assert_array_equal(detections.tracker_id, before)  # it is a copy
        for numbers, some in ((given, before), (linked, after.tracker_id)):
            tracks = {int(k): box for k, box in zip(some, detections.xyxy, strict=True) if k >= 0}
            numbers.append(numbers_of(moment, tracks))
    assert len(linked[4]) == 4
    assert linked[-1] == linked[4]
    assert given[-1] != given[4]  # without the linker vehicles have other numbers when they come back
