"""The asset cache: solids that many images share, built once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..render.tracing import Solid
from ..vehicles.build import build_solid
from ..vehicles.catalog import sample_identity, sample_model
from .occluders.plants import make_palm, make_post, make_tree

__all__ = ['NEIGHBORS', 'AssetCache']

NEIGHBORS = 48  # vehicles that stand beside others: few, so that they say nothing about whom they stand beside
#: kind of an occluder -> its builder and the entropy of its seed
_OCCLUDERS: dict[str, tuple[Callable[[np.random.Generator], Solid], int]] = {
    'tree': (make_tree, 24),
    'palm': (make_palm, 36),
    'pole': (make_post, 36),
}


class AssetCache:
    """Builds solids once and keeps them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._solids: dict[tuple[str, int], Solid] = {}

    def neighbor(self, index: int) -> Solid:
        """Return a vehicle of the same population as all others that is none of them."""
        return self._keep('neighbor', index, self._build_neighbor)

    def occluder(self, kind: str, index: int) -> Solid:
        """Return an occluder; `kind` is tree, palm or pole."""
        make, entropy = _OCCLUDERS[kind]
        return self._keep(kind, index, lambda number: make(np.random.default_rng([self.seed, number, entropy])))

    def _build_neighbor(self, index: int) -> Solid:
        number = 10_000_000 + index
        return build_solid(sample_identity(self.seed, number, sample_model(self.seed, number), 0))[0]

    def _keep(self, kind: str, index: int, build: Callable[[int], Solid]) -> Solid:
        if (kind, index) not in self._solids:
            self._solids[kind, index] = build(index)
        return self._solids[kind, index]
