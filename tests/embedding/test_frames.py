"""Boxes of frames to vectors, compared with the embeddings of crops that are cut by hand."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.extractors import assert_same, reference
from timm_dpa.embedding.images import ImageError

#: the third and the fifth are no boxes of this frame
BOXES = ((4, 4, 60, 40), (50, 10, 90, 70), (30, 30, 30, 50), (-20, 20, 44, 90), (300, 0, 340, 20))
VALID = [True, True, False, True, False]


@pytest.fixture(scope='module')
def frame():
    pixels = np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((100, 80), Image.Resampling.BICUBIC))


@pytest.fixture(scope='module')
def expected(model, frame):
    crops = [frame[4:40, 4:60], frame[10:70, 50:90], frame[20:80, 0:44]]
    rows = np.zeros((5, 512))
    rows[VALID] = reference(model, [Image.fromarray(crop) for crop in crops])
    assert (rows @ rows.T - np.eye(5)).max() < 0.999  # or the order of rows could not be seen
    return rows


class TestOneFrame:
    def test_rows_of_the_valid_boxes_and_zeros_for_the_others(self, extractor, frame, expected):
        vectors, valid = extractor.embed_boxes(frame, BOXES, color='rgb')
        assert_same(vectors, expected)
        assert (valid.tolist(), valid.dtype) == (VALID, bool)

    def test_frames_of_opencv_images_and_files(self, extractor, frame, expected, tmp_path):
        Image.fromarray(frame).save(tmp_path / 'frame.png')
        assert_same(extractor.embed_boxes(frame[:, :, ::-1], torch.tensor(BOXES), color='bgr')[0], expected)
        assert_same(extractor.embed_boxes(Image.fromarray(frame), list(BOXES))[0], expected)
        detections = SimpleNamespace(xyxy=np.array(BOXES, np.float32), data={})
        assert_same(extractor.embed_boxes(tmp_path / 'frame.png', detections)[0], expected)

    def test_wrong_colors_would_show(self, extractor, frame, expected):
        vectors, valid = extractor.embed_boxes(frame, BOXES, color='bgr')
        assert ((vectors * expected).sum(1)[valid] < 0.998).all()  # random weights care less than trained ones

    def test_oriented_boxes(self, extractor, model, frame):
        """A quarter turn moves pixels and mixes none."""
        vectors, valid = extractor.embed_boxes(frame, [[50, 40, 40, 60, np.pi / 2]], color='rgb')
        assert valid.tolist() == [True]
        assert_same(vectors, reference(model, [Image.fromarray(np.rot90(frame[20:60, 20:80]))]))

    def test_margin_and_smallest_side(self, extractor, model, frame):
        boxes = [[20, 20, 60, 40], [0, 0, 9, 30]]
        vectors, valid = extractor.embed_boxes(frame, boxes, color='rgb', margin=0.1, min_side=10)
        assert valid.tolist() == [True, False]
        assert_same(vectors[:1], reference(model, [Image.fromarray(frame[18:42, 16:64])]))
        assert not vectors[1].any()

    def test_no_boxes_and_no_good_boxes(self, extractor, frame):
        for boxes in ([], np.empty((0, 4)), SimpleNamespace(xyxy=np.empty((0, 4)))):
            vectors, valid = extractor.embed_boxes(frame, boxes, color='bgr')
            assert (vectors.shape, vectors.dtype, valid.shape) == ((0, 512), np.float32, (0,))
        vectors, valid = extractor.embed_boxes(frame, [[np.nan] * 4] * 7, color='bgr')
        assert (vectors.any(), valid.tolist()) == (False, [False] * 7)

    def test_colors_must_be_said(self, extractor, frame):
        with pytest.raises(ValueError, match="say color='bgr' if OpenCV read it, or color='rgb'"):
            extractor.embed_boxes(frame, BOXES)


class TestManyFrames:
    @pytest.mark.parametrize('counts', [[5, 0, 2, 0, 0, 5, 1], [0, 0], [], [1] * 7, [0, 5, 5]])
    def test_each_frame_gets_what_it_gets_alone(self, extractor, frame, expected, counts):
        """The extractor has batches of 3, so that batches begin and end inside of frames."""
        result = list(extractor.embed_frames(((frame, BOXES[:n]) for n in counts), color='rgb'))
        assert [len(valid) for _, valid in result] == counts
        for (vectors, valid), n in zip(result, counts, strict=True):
            assert_same(vectors, expected[:n])
            assert valid.tolist() == VALID[:n]

    def test_batches_cross_frames(self, extractor, frame, monkeypatch):
        sizes = []
        inner = extractor.embed_pixels
        monkeypatch.setattr(extractor, 'embed_pixels', lambda pixels: sizes.append(len(pixels)) or inner(pixels))
        assert len(list(extractor.embed_frames([(frame, BOXES[:1])] * 7, color='rgb'))) == 7
        assert sizes == [3, 3, 1]

    def test_frames_may_be_read_into_one_buffer(self, extractor, frame, expected):
        buffer = np.empty_like(frame)

        def frames():
            for k in range(4):
                buffer[:] = frame if k % 2 else 0
                yield buffer, BOXES

        result = [vectors for vectors, _ in extractor.embed_frames(frames(), color='rgb')]
        assert_same(result[1], expected)
        assert_same(result[3], expected)

    def test_they_are_read_as_they_are_needed(self, extractor, frame):
        read = []

        def frames():
            for k in range(100):
                read.append(k)
                yield frame, BOXES[:2]

        results = extractor.embed_frames(frames(), color='rgb')
        assert read == []
        next(results)
        assert len(read) <= 3
        results.close()
        assert len(read) <= 3

    def test_nothing_of_a_pair_may_be_wrong(self, extractor, frame, tmp_path):
        good = (frame, BOXES)
        (tmp_path / 'a.png').write_bytes(b'text')
        for pair, kind, message in (
            ((frame, [[1, 2, 3]]), ValueError, 'frame 1: boxes must be'),
            ((frame[:, :, 0], BOXES), ValueError, 'frame 1: frame must be'),
            (('none.png', BOXES), FileNotFoundError, 'frame 1: none.png: no such file'),
            ((tmp_path / 'a.png', BOXES), ImageError, 'frame 1: .*a.png: not an image'),
            (frame, TypeError, r'frame 1: expected a pair \(frame, boxes\), not ndarray'),
            ((frame, BOXES, 3), TypeError, r'frame 1: expected a pair \(frame, boxes\), not tuple'),
        ):
            results = extractor.embed_frames([good, pair], color='rgb')
            with pytest.raises(kind, match=message):
                list(results)


class TestOtherThings:
    """What people pass where an image should be; the messages say what to pass."""

    @pytest.mark.parametrize(
        ('thing', 'message'),
        [
            ({'image': 1, 'label': 2}, "not dict; pass its images: item['image']"),
            (
                [{'img': 1}],
                "image 0 is of type dict; pass its images: item['img'], as in (item['img'] for item in items)",
            ),
            (
                [(1, 2)],
                'image 0 is of type tuple of int, int; pass one list of images, or the images alone: (image',
            ),
            ([['a.jpg', 'b.jpg']], 'image 0 is of type list of str, str; pass one list of images'),
            (SimpleNamespace(xyxy=1), "extractor.embed_boxes(frame, detections, color='bgr')"),
            (5, 'not int'),
            ([5], 'image 0 is of type int'),
        ],
    )
    def test_the_message_says_what_to_pass(self, extractor, thing, message):
        with pytest.raises(TypeError, match=re.escape(message)):
            extractor(thing)

    def test_detections_cannot_be_taken_for_an_option(self, extractor, frame):
        with pytest.raises(TypeError, match='positional'):
            extractor(frame, np.array(BOXES))
