"""Meshes of the renderer as trimesh reads them."""

import numpy as np
import trimesh

from timm_dpa.synth.render.shapes import Mesh


def as_trimesh(mesh: Mesh, digits: int = 5) -> trimesh.Trimesh:
    """With corners merged that lie in one place."""
    points = mesh.corners.reshape(-1, 3).astype(np.float64)
    result = trimesh.Trimesh(points, np.arange(len(points)).reshape(-1, 3), process=False)
    result.merge_vertices(merge_norm=True, merge_tex=True, digits_vertex=digits)
    return result
