"""The catalog: samples models, and the vehicles of a model, which differ in paint and details."""

from __future__ import annotations

import numpy as np

from .body import KINDS
from .colors import sample_paint
from .details import DETAILS
from .identity import Identity, Model

__all__ = ['sample_identity', 'sample_model']

#: kind -> share in traffic
_SHARES = {'sedan': 0.20, 'hatchback': 0.165, 'estate': 0.085, 'suv': 0.20, 'pickup': 0.06, 'van': 0.08}
_SHARES |= {'minibus': 0.025, 'bus': 0.03, 'box_truck': 0.045, 'flatbed': 0.04, 'tipper': 0.01}
_SHARES |= {'semitrailer': 0.025, 'container': 0.015, 'skeleton': 0.01, 'tanker': 0.01}
_LOOK: tuple[str, ...] = (
    'lamp',
    'lamp_height',
    'grille',
    'pillar',
    'trim',
    'rim',
    'line',
    'interior',
    'frame',
    'bumper',
    'windows',
)
_LOOK += ('tail',)


def sample_model(seed: int, number: int) -> Model:
    """Sample the model of that number; the same arguments give the same model."""
    rng = np.random.default_rng([seed, number, 11])
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    size = {
        name: float(round(rng.uniform(*span), 3))
        for name, span in zip(('length', 'width', 'height'), KINDS[kind], strict=True)
    }
    shape = {**size, **{name: float(round(rng.uniform(), 3)) for name in 'abcdefgh'}}
    return Model(number, kind, shape, {name: float(round(rng.uniform(), 3)) for name in _LOOK})


def sample_identity(seed: int, number: int, model: Model, index: int, alike: float = 1.0) -> Identity:
    """Sample the vehicle of that number; the same arguments give the same vehicle.

    Args:
        seed: seed of the data set.
        number: number of the vehicle.
        model: its model.
        index: position among the vehicles of the model, from 0; their most visible details differ.
        alike: probability that all vehicles of a model have the same color.
    """
    shared = np.random.default_rng([seed, model.number, 12])
    own = np.random.default_rng([seed, number, 13])
    kind = model.kind
    source = shared if shared.uniform() < alike else own
    paint = sample_paint(source, kind)
    second = sample_paint(source, 'container' if kind == 'container' else 'box_truck', load=True)
    # each model has its own order of clear details, and its vehicles take one each
    possible = [detail for detail in DETAILS.values() if kind in detail.kinds]
    clear = [detail.name for detail in possible if detail.clear]
    names = [clear[shared.permutation(len(clear))[index % len(clear)]]]
    common = [detail for detail in possible if detail.weight]
    weights = np.array([detail.weight for detail in common])
    count = min(int(own.choice([0, 1, 2, 3, 4], p=[0.12, 0.3, 0.3, 0.18, 0.1])), len(common))
    more = own.choice(len(common), count, replace=False, p=weights / weights.sum())
    chosen = dict.fromkeys([*names, *(common[i].name for i in more)])
    for detail in DETAILS.values():
        if detail.name in chosen:
            for other in detail.replaces:
                chosen.pop(other, None)
    for detail in possible:
        if kind in detail.usual and detail.name not in chosen and own.uniform() < detail.usual[kind]:
            chosen[detail.name] = None
    details = {name: DETAILS[name].sample(own, kind, paint) for name in chosen}
    return Identity(number, model, paint, second, details, int(own.integers(2**31)))
