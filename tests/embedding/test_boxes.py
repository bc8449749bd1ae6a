"""Crops of boxes, compared with slices, quarter turns and a frame whose pixels are a formula."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timm_dpa.embedding.boxes import crop_boxes, parse_boxes
from timm_dpa.embedding.images import ImageError

HEIGHT, WIDTH = 60, 80


@pytest.fixture(scope='module')
def frame():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def wave(x, y):
    """A picture without fine detail, RGB from -1 to 1, at places in pixels."""
    return np.stack([np.sin(x / 9 + y / 14), np.cos(x / 11 - y / 8), np.sin(x / 13) * np.cos(y / 10)], axis=-1)


def smooth() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.rint(127.5 + 120 * wave(x, y)).astype(np.uint8)


def touched(frame, x1, y1, x2, y2):
    """The pixels that a box touches, one by one."""
    rows = [i for i in range(frame.shape[0]) if i + 1 > y1 and i < y2]
    columns = [j for j in range(frame.shape[1]) if j + 1 > x1 and j < x2]
    return frame[np.ix_(rows, columns)]


class TestUpright:
    def test_pixels_that_a_box_touches(self, frame):
        boxes = [[3, 4, 30, 20], [3.5, 4.2, 30.1, 19.9], [-5, -7, 9, 9], [70, 50, 200, 300], [-9, -9, 999, 999]]
        crops, valid = crop_boxes(frame, boxes, color='rgb')
        assert valid.dtype == bool
        assert valid.tolist() == [True] * 5
        for crop, box in zip(crops, boxes, strict=True):
            assert (crop.dtype, crop.flags['C_CONTIGUOUS']) == (np.uint8, True)
            np.testing.assert_array_equal(crop, touched(frame, *box))
        assert crops[4].shape == frame.shape

    @pytest.mark.parametrize(
        'box',
        [
            [10, 10, 10, 20],  # no width
            [10, 10, 20, 9],  # inverted
            [20, 10, 10, 20],
            [10, 10, 11.9, 20],  # narrow
            [math.nan, 0, 9, 9],
            [0, 0, math.inf, 9],
            [-math.inf, 0, math.inf, 9],
            [-1e308, 0, 1.7e308, 9],
            [0, 0, 1e12, 9],
            [WIDTH, 0, WIDTH + 9, 9],  # beside the frame
            [-9, 0, 0, 9],
            [0, -30, 9, 1.5],  # all but a line is outside
        ],
    )
    def test_a_bad_box_is_not_valid_and_the_others_keep_their_order(self, frame, box):
        good = [[1, 2, 30, 20], [40, 5, 60, 50]]
        crops, valid = crop_boxes(frame, [good[0], box, good[1]], color='rgb', margin=0.5)
        assert valid.tolist() == [True, False, True]
        assert len(crops) == 2
        crops, valid = crop_boxes(frame, [good[0], box, good[1]], color='rgb')
        for crop, kept in zip(crops, good, strict=True):
            np.testing.assert_array_equal(crop, touched(frame, *kept))

    def test_large_numbers(self, frame):
        (crop,), _ = crop_boxes(frame, [[-1e9, -1e8, 1e9, 1e9]], color='rgb')
        np.testing.assert_array_equal(crop, frame)

    def test_margin_is_a_share_of_each_side(self, frame):
        (crop, edge), _ = crop_boxes(frame, [[20, 20, 40, 30], [60, 40, 80, 60]], color='rgb', margin=0.1)
        np.testing.assert_array_equal(crop, frame[19:31, 18:42])
        np.testing.assert_array_equal(edge, frame[38:60, 58:80])

    def test_smallest_side(self, frame):
        boxes = [[0, 0, 5, 9], [-3, 0, 6, 9], [0, 0, 6, 9]]
        assert crop_boxes(frame, boxes, color='rgb', min_side=6)[1].tolist() == [False, True, True]
        assert crop_boxes(frame, [[0, 0, 1, 1]], color='rgb', min_side=1)[1].tolist() == [True]

    def test_crops_outlive_the_frame(self, frame):
        """OpenCV's users read every frame into the same memory."""
        buffer = frame.copy()
        (crop,), _ = crop_boxes(buffer, [[0, 0, 9, 9]], color='rgb')
        buffer[:] = 0
        np.testing.assert_array_equal(crop, frame[:9, :9])

    def test_no_boxes(self, frame):
        for boxes in ([], np.empty((0, 4)), np.empty((0, 5)), np.empty((0, 4, 2)), torch.empty(0, 4), ()):
            crops, valid = crop_boxes(frame, boxes, color='bgr')
            assert (crops, valid.shape, valid.dtype) == ([], (0,), bool)


class TestForms:
    boxes = ((3, 4, 30, 20), (3.5, 4.25, 30, 19.5))

    @pytest.mark.parametrize(
        'convert',
        [
            list,
            np.array,
            lambda boxes: np.array(boxes, np.float16),
            torch.tensor,
            lambda boxes: torch.tensor(boxes, dtype=torch.bfloat16),
            lambda boxes: torch.tensor(boxes, requires_grad=True),
            lambda boxes: [torch.tensor(box) for box in boxes],
            lambda boxes: [np.array(box) for box in boxes],
            lambda boxes: SimpleNamespace(xyxy=np.array(boxes), data={}),
            lambda boxes: SimpleNamespace(xyxy=torch.tensor(boxes), data=torch.zeros(2, 6)),
        ],
    )
    def test_arrays_tensors_lists_and_detections(self, convert):
        boxes = parse_boxes(convert(self.boxes))
        assert boxes.dtype == np.float64
        np.testing.assert_array_equal(boxes, np.array(self.boxes))

    def test_corners_of_detections_are_preferred(self):
        corners = np.array([[[4, 4], [9, 5], [8, 9], [3, 8.0]]])
        for some in (
            SimpleNamespace(xyxy=[[3, 4, 9, 9]], data={'xyxyxyxy': corners}),
            SimpleNamespace(xyxy=[[3, 4, 9, 9]], xyxyxyxy=torch.tensor(corners)),
            corners,
            corners.reshape(1, 8),
        ):
            np.testing.assert_array_equal(parse_boxes(some), corners)

    def test_angle_turns_the_x_axis_toward_the_y_axis(self):
        (corners,) = parse_boxes([[10, 20, 6, 4, math.pi / 2]])
        np.testing.assert_allclose(corners, [[12, 17], [12, 23], [8, 23], [8, 17]], atol=1e-9)

    def test_corners_in_the_order_of_ultralytics_are_the_box_of_its_five_numbers(self):
        """Counterclockwise from the lower right; as they stand they would make a mirror image."""
        x, y, w, h, angle = box = (33, 25, 20, 12, 0.4)
        along = np.array([math.cos(angle), math.sin(angle)]) * w / 2
        across = np.array([-math.sin(angle), math.cos(angle)]) * h / 2
        corners = np.add([along + across, along - across, -along - across, across - along], [x, y])
        np.testing.assert_allclose(parse_boxes([corners]), parse_boxes([box]), atol=1e-9)

    @pytest.mark.parametrize(
        ('boxes', 'kind', 'message'),
        [
            ([1, 2, 3, 4], ValueError, 'not of shape (4,); one box alone is [box]'),
            (np.zeros((3, 6)), ValueError, 'not of shape (3, 6); the first four columns are boxes[:, :4]'),
            (np.zeros((3, 3)), ValueError, 'boxes must be (N, 4) x1, y1, x2, y2; (N, 5)'),
            ([[1, 2, 3], [1, 2, 3, 4]], TypeError, 'boxes must be numbers'),
            ('boxes.csv', TypeError, 'not str'),
            ({'x': 1}, TypeError, 'not dict'),
            (None, TypeError, 'not NoneType'),
            (5, TypeError, 'not int'),
        ],
    )
    def test_others_are_refused(self, frame, boxes, kind, message):
        with pytest.raises(kind, match=re.escape(message)):
            crop_boxes(frame, boxes, color='rgb')


class TestOriented:
    def test_without_an_angle_it_is_the_upright_box(self, frame):
        upright = np.array([[4, 4, 30, 20], [10, 10, 50, 30], [-6, 50, 10, 66]])
        center, size = (upright[:, :2] + upright[:, 2:]) / 2, upright[:, 2:] - upright[:, :2]
        turned = np.column_stack([center, size, np.zeros(3)])
        for margin in (0, 0.5):
            expected, _ = crop_boxes(frame, upright, color='rgb', margin=margin)
            for crop, other in zip(crop_boxes(frame, turned, color='rgb', margin=margin)[0], expected, strict=True):
                np.testing.assert_array_equal(crop, other)

    @pytest.mark.parametrize('turns', range(4))
    def test_quarter_turns_are_exact(self, frame, turns):
        corners = [[10, 20], [40, 20], [40, 32], [10, 32]]
        crop = crop_boxes(frame, [np.roll(corners, -turns, axis=0)], color='rgb')[0][0]
        np.testing.assert_array_equal(crop, np.rot90(frame[20:32, 10:40], turns))

    @pytest.mark.parametrize('angle', [0.3, -1.1, 2.5])
    def test_any_angle(self, angle):
        w, h = 24, 14
        crops, valid = crop_boxes(smooth(), [[40, 30, w, h, angle]], color='rgb')
        assert valid.all()
        j, i = np.meshgrid(np.arange(w) + 0.5 - w / 2, np.arange(h) + 0.5 - h / 2)
        x, y = 40 + j * math.cos(angle) - i * math.sin(angle), 30 + j * math.sin(angle) + i * math.cos(angle)
        assert crops[0].shape == (h, w, 3)
        assert np.abs(crops[0] - (127.5 + 120 * wave(x, y))).max() < 2.5

    def test_margin(self):
        crop = crop_boxes(smooth(), [[40, 30, 20, 10, 0.3]], color='rgb', margin=0.1)[0][0]
        np.testing.assert_array_equal(crop, crop_boxes(smooth(), [[40, 30, 24, 12, 0.3]], color='rgb')[0][0])

    def test_beyond_the_border_it_is_repeated(self):
        frame = np.full((40, 40, 3), 90, np.uint8)
        frame[:, :3] = 200
        crops, valid = crop_boxes(frame, [[2, 20, 30, 20, math.pi / 4]], color='rgb')
        assert valid.all()
        assert crops[0].min() >= 75  # no black from outside; bicubic overshoots a little
        assert crops[0].max() <= 215
        assert crops[0].shape[0] == 20
        assert 15 <= crops[0].shape[1] < 30  # the end that lies outside is cut off

    def test_a_skewed_quadrilateral_is_its_nearest_parallelogram(self):
        corners = np.array([[20, 20], [45, 22], [44, 35], [21, 35]], float)
        crop = crop_boxes(smooth(), [corners], color='rgb')[0][0]
        assert crop.shape == (14, 24, 3)
        center, along, across = corners.mean(0), np.array([24, 1]), np.array([0, 14])
        s, t = np.meshgrid((np.arange(24) + 0.5) / 24 - 0.5, (np.arange(14) + 0.5) / 14 - 0.5)
        x, y = (center[k] + s * along[k] + t * across[k] for k in (0, 1))
        assert np.abs(crop - (127.5 + 120 * wave(x, y))).max() < 2.5

    @pytest.mark.parametrize(
        'corners',
        [
            [[10, 10], [20, 10], [10, 20], [20, 20]],  # crosses itself
            [[10, 10], [20, 20], [30, 30], [40, 40]],  # a line
            [[10, 10]] * 4,
            [[10, 10], [40, 10], [40, 11], [10, 11]],  # narrow
            [[math.nan, 10], [20, 10], [20, 20], [10, 20]],
            [[math.inf, 10], [20, 10], [20, 20], [10, 20]],
            [[1e200, 10], [2e200, 10], [2e200, 20], [1e200, 20]],
            [[-30, 10], [-10, 10], [-10, 20], [-30, 20]],  # outside
            [[-27, 23], [23, -27], [13, -37], [-37, 13]],  # outside, though the box around it is not
        ],
    )
    def test_bad_corners_are_not_valid(self, frame, corners):
        assert crop_boxes(frame, [corners], color='rgb')[1].tolist() == [False]

    @pytest.mark.parametrize('size', [(-5, 9), (0, 9), (-5, -9), (math.nan, 9), (1.5, 9)])
    def test_bad_sizes_are_not_valid(self, frame, size):
        assert crop_boxes(frame, [[30, 30, *size, 0.2]], color='rgb')[1].tolist() == [False]


class TestFrames:
    boxes = ((3, 4, 30, 20),)

    def test_colors_of_opencv(self, frame):
        (expected,), _ = crop_boxes(frame, self.boxes, color='rgb')
        for boxes in (self.boxes, [[16.5, 12, 27, 16, 0]]):
            (crop,), _ = crop_boxes(frame[:, :, ::-1], boxes, color='bgr')
            np.testing.assert_array_equal(crop, expected)

    def test_images_and_files_are_rgb(self, frame, tmp_path):
        Image.fromarray(frame).save(tmp_path / 'frame.png')
        for some in (Image.fromarray(frame), tmp_path / 'frame.png', str(tmp_path / 'frame.png')):
            for color in (None, 'rgb'):
                (crop,), _ = crop_boxes(some, self.boxes, color=color)
                np.testing.assert_array_equal(crop, frame[4:20, 3:30])
            with pytest.raises(ValueError, match="color='bgr' is for arrays"):
                crop_boxes(some, self.boxes, color='bgr')

    def test_views_of_any_strides(self, frame):
        (crop,), _ = crop_boxes(frame[::-1, ::-2], [[0, 0, 9, 9]], color='rgb')
        np.testing.assert_array_equal(crop, np.ascontiguousarray(frame[::-1, ::-2])[:9, :9])

    @pytest.mark.parametrize(
        ('some', 'color', 'kind', 'message'),
        [
            (np.zeros((9, 9, 3), np.uint8), None, ValueError, "say color='bgr' if OpenCV read it, or color='rgb'"),
            (np.zeros((9, 9, 3), np.uint8), 'BGR', ValueError, "must be 'rgb' or 'bgr', not 'BGR'"),
            (np.zeros((9, 9, 4), np.uint8), 'rgb', ValueError, 'frame must be an array (H, W, 3) of uint8'),
            (np.zeros((9, 9, 3)), 'rgb', ValueError, 'not (9, 9, 3) of float64'),
            (np.zeros((9, 9), np.uint8), 'rgb', ValueError, 'not (9, 9) of uint8'),
            (torch.zeros(3, 9, 9), 'rgb', TypeError, 'frame is a tensor; make it an array'),
            (None, 'bgr', TypeError, 'which OpenCV gives for a frame that it cannot read'),
            ('none.png', None, FileNotFoundError, 'none.png: no such file'),
        ],
    )
    def test_others_are_refused(self, some, color, kind, message):
        with pytest.raises(kind, match=re.escape(message)):
            crop_boxes(some, self.boxes, color=color)

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / 'a.jpg').write_bytes(b'nothing')
        with pytest.raises(ImageError, match=r'a\.jpg'):
            crop_boxes(tmp_path / 'a.jpg', self.boxes)

    @pytest.mark.parametrize('option', [{'margin': -0.1}, {'margin': 10}, {'margin': math.nan}, {'min_side': 0}])
    def test_numbers_out_of_range(self, frame, option):
        with pytest.raises(ValueError, match=next(iter(option))):
            crop_boxes(frame, self.boxes, color='rgb', **option)


number = st.one_of(
    st.floats(-50, 150), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 60.0, 80.0, 1e9, -1e12])
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5).flatmap(lambda n: st.lists(st.lists(number, min_size=8, max_size=8), min_size=n, max_size=n)))
def test_whatever_the_numbers_are_rows_are_kept_and_crops_have_pixels(rows):
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for columns in (4, 5, 8):
        crops, valid = crop_boxes(frame, [row[:columns] for row in rows], color='rgb', margin=0.2)
        assert len(valid) == len(rows)
        assert len(crops) == valid.sum()
        for crop in crops:
            assert min(crop.shape[:2]) >= 1
            assert max(crop.shape[:2]) <= 2.5 * math.hypot(HEIGHT, WIDTH)
