"""What the adapters do by themselves, without the packages that they are for."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.extractors import SIZE, assert_same, make_model
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.integrations.boxmot import BoxMOTEmbedder
from timm_dpa.integrations.deep_sort_realtime import deep_sort_inputs
from timm_dpa.integrations.norfair import embedding_distance, norfair_detections
from timm_dpa.integrations.supervision import TrackLinker

BOXES = np.array([[4, 4, 60, 40], [50, 10, 90, 70], [300, 0, 340, 20], [30, 30, 30, 50.0]])


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor(make_model(), precision='fp32', batch_size=8, image_size=SIZE, workers=1)


@pytest.fixture(scope='module')
def frame():
    return np.random.default_rng(3).integers(0, 256, (80, 100, 3), dtype=np.uint8)


class TestBoxMOT:
    def test_features_are_those_of_a_bgr_frame(self, extractor, frame):
        expected, valid = extractor.embed_boxes(frame, BOXES, color='bgr')
        for boxes in (BOXES, np.column_stack([BOXES, np.ones((4, 2))])):  # with score and class
            features = BoxMOTEmbedder(extractor).get_features(boxes, frame)
            assert_same(features[valid], expected[valid])
            np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
            assert abs(features[2] @ features[3]) < 0.2  # boxes without a crop resemble nothing, nor each other
            assert np.abs(features[2:] @ features[:2].T).max() < 0.2

    def test_no_boxes(self, extractor, frame):
        assert BoxMOTEmbedder(extractor).get_features(np.empty((0, 4)), frame).shape == (0, 512)
        assert BoxMOTEmbedder(extractor).embedding_dim == 512

    def test_the_two_ways_to_write_an_oriented_box_give_one_crop(self, extractor, frame):
        boxes = np.array([[50, 40, 50, 30, 0.4], [50, 40, 30, 50, 0.4 - np.pi / 2], [50, 40, 30, 50, 0.4 + np.pi / 2]])
        before = boxes.copy()
        features = BoxMOTEmbedder(extractor).get_features(boxes, frame)
        np.testing.assert_array_equal(boxes, before)
        assert_same(features[[1, 2]], features[[0, 0]])
        expected, _ = extractor.embed_boxes(frame, boxes[1:2], color='bgr')
        assert_same(features[:1], expected)
        rows = np.column_stack([boxes, np.ones((3, 2))])
        assert_same(BoxMOTEmbedder(extractor).get_features(rows, frame), features)


class TestDeepSort:
    def test_lists_hold_the_valid_boxes(self, extractor, frame):
        expected, _ = extractor.embed_boxes(frame, BOXES, color='rgb')
        detections, embeds = deep_sort_inputs(
            extractor, frame, BOXES[[2, 0, 3, 1]], [0.1, 0.2, 0.3, 0.4], ['a', 'b', 'c', 'd'], color='rgb'
        )
        assert detections == [([4, 4, 56, 36], 0.2, 'b'), ([50, 10, 40, 60], 0.4, 'd')]
        assert_same(np.stack(embeds), expected[:2])
        assert deep_sort_inputs(extractor, frame, [], color='rgb') == ([], [])

    def test_of_an_oriented_box_the_box_around_it(self, extractor, frame):
        detections, _ = deep_sort_inputs(extractor, frame, [[50, 40, 40, 20, np.pi / 2]], color='rgb')
        np.testing.assert_allclose(detections[0][0], [40, 20, 20, 40], atol=1e-6)
        assert detections[0][1:] == (1.0, None)

    def test_numbers_must_fit(self, extractor, frame):
        with pytest.raises(ValueError, match='scores are 2 for 4 boxes'):
            deep_sort_inputs(extractor, frame, BOXES, [1, 2], color='rgb')


class TestNorfair:
    def test_distance_is_that_of_the_mean_embeddings(self):
        vectors = np.random.default_rng(0).normal(size=(5, 8))
        some = [SimpleNamespace(embedding=vector) for vector in (*vectors, None)]
        first = SimpleNamespace(past_detections=some[:2], last_detection=some[1])
        second = SimpleNamespace(past_detections=[some[2], some[5]], last_detection=some[4])
        a, b = vectors[:2].mean(0), vectors[[2, 4]].mean(0)
        expected = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
        assert embedding_distance(first, second) == pytest.approx(expected)
        none = SimpleNamespace(past_detections=[some[5]], last_detection=some[5])
        assert embedding_distance(first, none) == np.inf

    def test_without_the_package(self, extractor, frame, monkeypatch):
        monkeypatch.setitem(__import__('sys').modules, 'norfair', None)
        with pytest.raises(ImportError, match='pip install norfair'):
            norfair_detections(extractor, frame, BOXES, color='rgb')


class Eyes:
    """An extractor that knows vehicles by the color of the frame at their box; the rest is not what is tested."""

    def embed_boxes(self, frame, detections, **_):
        vectors = np.array([frame[int(y), int(x)] for x, y, *_ in detections.xyxy], np.float32).reshape(-1, 3)
        valid = vectors.any(axis=1)
        vectors[valid] /= np.linalg.norm(vectors[valid], axis=1, keepdims=True)
        return vectors, valid


class TestTrackLinker:
    """Scenes: which color is in which track of the tracker."""

    def numbers(self, scenes, threshold=0.9, **options):
        linker = TrackLinker(Eyes(), threshold, **options)
        result = []
        for scene in scenes:
            frame = np.zeros((4, 40, 3), np.uint8)
            for k, color in enumerate(scene.values()):
                if color != ' ':
                    frame[0, k, 'RGB'.index(color)] = 255
            boxes = np.array([[k, 0, k + 1, 1] for k in range(len(scene))], float).reshape(-1, 4)
            detections = SimpleNamespace(xyxy=boxes, tracker_id=np.array(list(scene), int))
            result.append(linker.update(frame, detections).tracker_id.tolist())
        return result

    def test_an_old_number_comes_back(self):
        assert self.numbers([{7: 'R', 9: 'G'}, {9: 'G'}, {12: 'B', 9: 'G'}, {15: 'R', 12: 'B', 9: 'G'}]) == [
            [1, 2], [2], [3, 2], [1, 3, 2],
        ]  # fmt: skip

    def test_not_that_of_a_vehicle_in_the_frame(self):
        assert self.numbers([{7: 'R'}, {7: 'R', 8: 'R'}]) == [[1], [1, 2]]

    def test_the_tracker_finds_its_own_track_again(self):
        """The number went to a new track meanwhile; it is not twice in a frame."""
        assert self.numbers([{7: 'R'}, {}, {8: 'R'}, {7: 'G', 8: 'R'}]) == [[1], [], [1], [2, 1]]

    def test_no_tracks_and_boxes_that_show_nothing(self):
        assert self.numbers([{-1: 'R'}, {7: ' '}, {7: 'R', 8: ' '}, {9: 'R'}]) == [[-1], [1], [1, 2], [1]]

    def test_patience(self):
        gone = [{7: 'R'}, {}, {}, {}, {8: 'R'}]
        assert self.numbers(gone, patience=4)[-1] == [1]
        assert self.numbers(gone, patience=3)[-1] == [2]

    def test_detections_without_tracks(self):
        detections = SimpleNamespace(xyxy=np.empty((0, 4)), tracker_id=None)
        linked = TrackLinker(Eyes(), 0.5).update(np.zeros((4, 4, 3), np.uint8), detections, color='rgb')
        assert linked.tracker_id is None
        assert linked is not detections

    @pytest.mark.parametrize('options', [{'threshold': 1.5}, {'threshold': 0.5, 'patience': 0}])
    def test_wrong_numbers(self, options):
        with pytest.raises(ValueError, match=re.escape([*options][-1])):
            TrackLinker(Eyes(), **options)
