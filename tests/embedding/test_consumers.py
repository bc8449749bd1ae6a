"""Exported files in BoxMOT and Ultralytics, which crop, resize and normalize themselves; AGPL, so no dependencies."""

import numpy as np
import pytest

from tests.support.models import tiny
from timm_dpa import FeatureExtractor
from timm_dpa.embedding.export import export_model
from timm_dpa.train.data.toy_vehicles import draw_vehicle

pytestmark = pytest.mark.integrations
SIZE = (64, 96)
#: left, top, right, bottom
BOXES = np.float32([[10, 20, 138, 148], [160, 20, 288, 148], [300, 60, 400, 160]])


@pytest.fixture(scope='module')
def frame() -> np.ndarray:
    """BGR, with three vehicles."""
    frame = np.full((200, 420, 3), 128, np.uint8)
    for k, (left, top, right, bottom) in enumerate(BOXES.astype(int)):
        crop = np.asarray(draw_vehicle(k, k).resize((right - left, bottom - top)))
        frame[top:bottom, left:right] = crop[..., ::-1]
    return frame


def embeddings(model, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    crops = [frame[t:b, le:r, ::-1] for le, t, r, b in boxes.astype(int)]
    return FeatureExtractor(model, precision='fp32', image_size=SIZE)(crops)


@pytest.mark.parametrize('dynamic', [False, True])
def test_boxmot(frame, tmp_path, dynamic):
    runtime = pytest.importorskip('boxmot.reid.core.runtime')
    model = tiny('dpa')
    path = export_model(
        model, tmp_path / 'a.onnx', image_size=SIZE, consumer='boxmot', dynamic_size=dynamic
    ).path  # a free size is read from the sidecar
    features = runtime.ReID(path)(frame, boxes=BOXES)
    assert (features * embeddings(model, frame, BOXES)).sum(1).min() > 0.99


def test_ultralytics(frame, tmp_path, monkeypatch):
    monkeypatch.setenv('YOLO_AUTOINSTALL', 'false')
    monkeypatch.setenv('YOLO_CONFIG_DIR', str(tmp_path))
    reid = pytest.importorskip('ultralytics.trackers.utils.reid')
    model = tiny('dpa')
    path = export_model(model, tmp_path / 'a.onnx', image_size=SIZE, consumer='ultralytics').path
    encoder = reid.ReID(str(path), device='cpu')
    assert encoder.imgsz == SIZE
    left, top, right, bottom = BOXES.T
    detections = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], axis=1)
    features = np.stack(encoder(frame, detections))
    # it cuts a margin of 2 % and 10 pixels around each box
    half = np.stack([(right - left), (bottom - top)], 1) * 1.02 / 2 + 5
    center = detections[:, :2]
    wider = np.concatenate([center - half, center + half], 1).clip(0, [420, 200, 420, 200])
    assert (features * embeddings(model, frame, wider)).sum(1).min() > 0.99
    assert encoder.model.backend.metadata['dynamic']  # all crops of a frame in one batch
