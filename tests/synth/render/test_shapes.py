"""Meshes of the renderer against formulas and trimesh."""

import numpy as np
import pytest

from tests.support.meshes import as_trimesh
from timm_dpa.synth.render.shapes import box, cylinder, ellipsoid


def test_volumes():
    block = as_trimesh(box((0, -1, 0.5), (4, 1, 2), 0.0))
    assert block.is_watertight
    assert block.volume == pytest.approx(12)
    rounded = as_trimesh(box((0, -1, 0.5), (4, 1, 2), 0.1))
    assert rounded.is_watertight
    assert 11.6 < rounded.volume < 12
    bar = as_trimesh(cylinder((0, 0, 0), (1, 2, 2), 0.3, 0, 12))
    assert bar.is_watertight
    assert bar.volume == pytest.approx(12 / 2 * np.sin(2 * np.pi / 12) * 0.3**2 * 3, rel=1e-4)
    lump = as_trimesh(ellipsoid((1, 1, 1), (0.5, 0.4, 0.3), 0, rows=40, sides=60))
    assert lump.is_watertight
    assert lump.volume == pytest.approx(4 / 3 * np.pi * 0.5 * 0.4 * 0.3, rel=0.01)
