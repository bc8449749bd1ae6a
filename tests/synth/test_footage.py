"""Footage: whole frames and the boxes in them."""

import numpy as np

from timm_dpa.synth.footage import Footage, render_footage


def test_boxes_are_where_the_vehicles_are():
    """Windows, roof and edges have more contrast than a road; and the same footage has the same pixels."""
    footage = Footage(4, 3, (220, 140), scale=6, seed=5)
    frames = list(render_footage(footage))
    again = list(render_footage(footage))
    assert sum(len(frame.boxes) for frame in frames) >= 3
    for frame, same in zip(frames, again, strict=True):
        np.testing.assert_array_equal(frame.pixels, same.pixels)
        gray = frame.pixels.astype(int).mean(-1)
        for (x1, y1, x2, y2), visible in zip(frame.boxes.round().astype(int), frame.visible, strict=True):
            assert x2 - x1 >= 2
            if visible > 0.95:
                assert gray[y1:y2, x1:x2].std() > 8


def test_vehicles_drive_and_are_hidden_by_the_bridge():
    """They keep to their lane, in one direction, and those under the bridge are not listed."""
    footage = Footage(2, 14, (200, 100), scale=4, rate=4, seed=2)
    places: dict[int, list[tuple[int, float, float]]] = {}
    for n, frame in enumerate(render_footage(footage)):
        for number, (x1, y1, x2, y2), visible in zip(frame.vehicles, frame.boxes, frame.visible, strict=True):
            places.setdefault(int(number), []).append((n, (x1 + x2) / 2, (y1 + y2) / 2))
            assert 0.8 <= visible <= 1
    assert set(places) == {1, 2}
    for track in places.values():
        frames, x, y = np.array(track).T
        assert (np.diff(x) > 0).all()
        assert np.ptp(y) < 12
        assert np.diff(frames).max() >= 3  # under the bridge
