"""Vehicles: models, which several identities share, and identities, which differ in paint and details."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .body import ARTICULATED, KINDS, TRUCKS, VANS
from .swatches import METALLIC, PAINT

__all__ = ['Identity', 'Model', 'Paint', 'sample_identity', 'sample_model']

_SHARES = {
    'sedan': 0.20,
    'hatchback': 0.165,
    'estate': 0.085,
    'suv': 0.20,
    'pickup': 0.06,
    'van': 0.08,
    'minibus': 0.025,
    'bus': 0.03,
    'box_truck': 0.045,
    'flatbed': 0.04,
    'tipper': 0.01,
    'semitrailer': 0.025,
    'container': 0.015,
    'skeleton': 0.01,
    'tanker': 0.01,
}

#: color -> share in traffic, sRGB from .. to, share of metallic paint
_COLORS: dict[str, tuple[float, tuple[int, int, int], tuple[int, int, int], float]] = {
    'white': (0.25, (214, 214, 212), (233, 233, 231), 0.1),
    'black': (0.19, (16, 16, 18), (34, 34, 37), 0.5),
    'grey': (0.20, (66, 68, 71), (122, 124, 127), 0.85),
    'silver': (0.13, (158, 160, 162), (192, 194, 196), 1.0),
    'blue': (0.09, (22, 40, 82), (52, 92, 158), 0.7),
    'red': (0.065, (112, 16, 20), (186, 30, 32), 0.4),
    'brown': (0.025, (62, 46, 38), (112, 90, 72), 0.8),
    'green': (0.02, (26, 56, 44), (70, 98, 70), 0.6),
    'beige': (0.02, (168, 156, 132), (204, 192, 168), 0.5),
    'yellow': (0.01, (206, 160, 24), (228, 188, 50), 0.0),
    'orange': (0.01, (188, 84, 24), (216, 110, 40), 0.2),
}
_COMMERCIAL = {'white': 0.62, 'grey': 0.08, 'silver': 0.08, 'blue': 0.08, 'red': 0.05, 'yellow': 0.05, 'black': 0.04}
_CONTAINER = {'blue': 0.27, 'red': 0.2, 'green': 0.12, 'white': 0.12, 'grey': 0.1, 'orange': 0.1, 'brown': 0.09}
_BUS = {'white': 0.32, 'yellow': 0.13, 'red': 0.16, 'blue': 0.15, 'green': 0.12, 'silver': 0.07, 'orange': 0.05}

_CARS = ('sedan', 'hatchback', 'estate', 'suv')
_WAGONS = ('hatchback', 'estate', 'suv')
_ANY = tuple(KINDS)
#: detail -> (kinds that may have it, weight)
_DETAILS: dict[str, tuple[tuple[str, ...], float]] = {
    'sunroof': (_CARS, 1.6),
    'panorama': (_CARS, 1.0),
    'rails': (('estate', 'suv', *VANS, 'hatchback'), 1.0),
    'bars': ((*_WAGONS, 'sedan', *VANS), 0.8),
    'roof_box': (_CARS, 0.6),
    'spoiler': (_CARS, 0.7),
    'aerial': ((*_CARS, *VANS, 'pickup'), 0.8),
    'fin': (_CARS, 0.8),
    'spare_wheel': (('suv',), 0.5),
    'bumpers': ((*_CARS, 'pickup', *VANS), 0.8),
    'stripes': ((*_CARS, 'pickup', *VANS, 'bus'), 0.7),
    'decal': (_ANY, 1.2),
    'lettering': (
        (*VANS, 'bus', 'box_truck', 'hatchback', 'estate', 'flatbed', 'pickup', 'tipper', 'semitrailer'),
        1.0,
    ),
    'roof_number': ((*VANS, 'bus', 'box_truck', 'sedan', 'estate', 'flatbed', 'suv', 'tipper', *ARTICULATED), 0.5),
    'panel': ((*_CARS, *VANS, 'pickup'), 0.7),
    'two_tone': (_CARS, 0.5),
    'roof_patch': ((*_CARS, *VANS, 'tipper', *ARTICULATED), 0.4),
    'taxi_sign': (('sedan', 'estate', 'hatchback', *VANS), 0.35),
    'ladder': ((*VANS, 'pickup', 'estate'), 0.5),
    'beacon': ((*VANS, 'pickup', 'suv', 'box_truck', 'flatbed', 'tipper'), 0.4),
    'missing': ((*_CARS, 'pickup', *VANS), 0.4),
    'dents': (_ANY, 0.7),
    'dirt': (_ANY, 0.7),
    'sunshade': ((*_CARS, *VANS, 'pickup', 'flatbed', 'box_truck', 'tipper', *ARTICULATED), 0.6),
    'seats': (_CARS, 0.6),
    'shelf': (('sedan', 'hatchback', 'estate'), 0.5),
    'bonnet_scoop': ((*_CARS, 'pickup'), 0.4),
    'cover': (('pickup',), 1.2),
    'toolbox': (('pickup',), 0.8),
    'roll_bar': (('pickup',), 0.7),
    'vents': ((*VANS, 'bus', 'box_truck', 'semitrailer', 'container'), 1.4),
    'air_conditioner': (('bus', 'box_truck', *VANS, 'semitrailer'), 1.0),
    'hatches': (('bus', 'box_truck', 'tanker'), 1.2),
    'skylight': (('box_truck', *VANS), 0.8),
    'deflector': (ARTICULATED, 1.0),
    'bed_floor': (('flatbed', 'pickup', 'tipper', 'skeleton'), 0.8),
}
# what any view from above shows; every one of several siblings has at least one that no other has in the same way
_PLAIN = {
    'sunroof',
    'panorama',
    'bars',
    'roof_box',
    'stripes',
    'panel',
    'two_tone',
    'roof_patch',
    'taxi_sign',
    'ladder',
    'roof_number',
    'cover',
    'toolbox',
    'vents',
    'air_conditioner',
    'hatches',
    'skylight',
    'cargo',
    'deflector',
    'bed_floor',
    'sunshade',
}


@dataclass(frozen=True)
class Paint:
    """A color: its name, sRGB 0..255 and material."""

    name: str
    rgb: tuple[int, int, int]
    material: int


@dataclass(frozen=True)
class Model:
    """What the identities of one make and type share.

    Attributes:
        number: of the model.
        kind: one of `KINDS`.
        shape: length, width, height in meters, and the shares that vary the proportions.
        look: colors and forms of lamps, grille, windows and trim; shares in 0..1.
    """

    number: int
    kind: str
    shape: dict[str, float]
    look: dict[str, float]


@dataclass(frozen=True)
class Identity:
    """One vehicle.

    Attributes:
        number: of the vehicle.
        model: its model.
        paint: of the body.
        second: paint of what may differ from it: box bodies, stripes.
        details: name -> its own numbers, as of `_DETAILS`.
        grain: seed of its dirt and scratches.
    """

    number: int
    model: Model
    paint: Paint
    second: Paint
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    grain: int = 0

    def row(self) -> dict[str, str]:
        """Every attribute, for a table."""
        return {
            'vehicle': f'{self.number:04d}',
            'model': f'{self.model.number}',
            'kind': self.model.kind,
            **{name: f'{self.model.shape[name]:.3f}' for name in ('length', 'width', 'height')},
            'colour': self.paint.name,
            'rgb': '#{:02x}{:02x}{:02x}'.format(*self.paint.rgb),
            'metallic': str(int(self.paint.material == METALLIC)),
            'details': ' '.join(sorted(self.details)),
            'detail_values': json.dumps(self.details, sort_keys=True),
        }


def sample_model(seed: int, number: int) -> Model:
    """The model of that number; the same arguments give the same model."""
    rng = np.random.default_rng([seed, number, 11])
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    size = {
        name: float(round(rng.uniform(*span), 3))
        for name, span in zip(('length', 'width', 'height'), KINDS[kind], strict=True)
    }
    shape = {**size, **{name: float(round(rng.uniform(), 3)) for name in 'abcdefgh'}}
    look = {
        name: float(round(rng.uniform(), 3))
        for name in (
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
            'tail',
        )
    }
    return Model(number, kind, shape, look)


def sample_identity(seed: int, number: int, model: Model, place: int, alike: float = 1.0, rest: int = 1) -> Identity:
    """The vehicle of that number.

    Args:
        seed: of the data set.
        number: of the vehicle.
        model: its model.
        place: which of the model's vehicles it is, from 0; its clearest detail is another than theirs.
        alike: probability that all vehicles of a model have one color.
        rest: number of vehicles of the model.

    Returns:
        The same for the same arguments.
    """
    shared = np.random.default_rng([seed, model.number, 12])
    own = np.random.default_rng([seed, number, 13])
    common = shared.uniform() < alike
    paint = _sample_paint(shared if common else own, model.kind)
    second = _sample_paint(
        shared if common else own, 'container' if model.kind == 'container' else 'box_truck', load=True
    )
    # clear details in an order of the model's own, dealt out to its vehicles
    names = [n for n, (kinds, _) in _DETAILS.items() if model.kind in kinds]
    clear = [n for n in names if n in _PLAIN] + ['cargo'] * (model.kind in ('flatbed', 'tipper', 'pickup'))
    clear = [clear[i] for i in shared.permutation(len(clear))]
    details = {clear[place % len(clear)]: {}} if place or rest == 1 or shared.uniform() < 0.6 else {}
    weights = np.array([_DETAILS[n][1] for n in names])
    count = min(int(own.choice([0, 1, 2, 3, 4], p=[0.12, 0.3, 0.3, 0.18, 0.1])), len(names))
    for index in own.choice(len(names), count, replace=False, p=weights / weights.sum()):
        details.setdefault(names[index], {})
    for one, other in (
        ('panorama', 'sunroof'),
        ('cover', 'cargo'),
        ('two_tone', 'roof_patch'),
        ('roof_box', 'panorama'),
        ('taxi_sign', 'roof_box'),
        ('ladder', 'roof_box'),
    ):
        if one in details:
            details.pop(other, None)
    if model.kind in ('flatbed', 'tipper') and 'cargo' not in details and own.uniform() < 0.5:
        details['cargo'] = {}
    details = {name: _sample_detail(name, own, model.kind, paint) for name in details}
    return Identity(number, model, paint, second, details, int(own.integers(2**31)))


def _sample_paint(rng: np.random.Generator, kind: str, *, load: bool = False) -> Paint:
    shares = _BUS if kind == 'bus' else _COMMERCIAL if kind in (*VANS, *TRUCKS) else None
    if kind == 'container' and load:
        shares = _CONTAINER
    if shares is None:
        shares = {name: entry[0] for name, entry in _COLORS.items()}
    weights = np.array(list(shares.values()))
    name = str(rng.choice(list(shares), p=weights / weights.sum()))
    _, low, high, metallic = _COLORS[name]
    share = rng.uniform(0, 1)
    rgb = np.array(low) + (np.array(high) - np.array(low)) * np.clip(share + rng.normal(0, 0.04, 3), 0, 1)
    tint = rng.normal(0, 3.0 if name not in ('white', 'silver') else 1.0, 3)
    red, green, blue = (int(v) for v in np.clip(rgb + tint, 8, 238))
    return Paint(name, (red, green, blue), METALLIC if rng.uniform() < metallic else PAINT)


def _any_color(rng: np.random.Generator) -> list[int]:
    choices = (
        (230, 230, 228),
        (24, 24, 26),
        (176, 26, 30),
        (30, 62, 140),
        (226, 180, 30),
        (40, 110, 60),
        (222, 110, 30),
        (128, 130, 132),
        (70, 160, 200),
    )
    return [int(v) for v in np.clip(np.array(choices[int(rng.integers(len(choices)))]) + rng.normal(0, 6, 3), 5, 240)]


def _muted(rng: np.random.Generator) -> list[int]:
    """Grays, browns and dirty greens."""
    gray = rng.choice([28, 60, 100, 150, 200])
    return [int(v) for v in np.clip(gray + rng.normal(0, 8) + np.array([1, 0, -1]) * rng.normal(2, 6), 8, 230)]


def _near(rng: np.random.Generator, paint: Paint) -> list[int]:
    """Gray, black or white, or another tone of the paint."""
    if rng.uniform() < 0.6:
        tone = float(rng.choice([24, 70, 130, 180, 224]))
        return [int(np.clip(tone + rng.normal(0, 6), 5, 240))] * 3
    return [
        int(v)
        for v in np.clip(
            np.array(paint.rgb) * rng.uniform(0.6, 0.85) + rng.normal(0, 4, 3) + rng.choice([0, 55]), 5, 240
        )
    ]


def _contrasting(rng: np.random.Generator, paint: Paint, least: float = 60.0) -> list[int]:
    for _ in range(20):
        color = _any_color(rng)
        if np.abs(np.subtract(color, paint.rgb)).max() > least:
            break
    return color


_LETTERS = 'ABCDEFGHIKLMNOPRSTUVWXZ'


def _word(rng: np.random.Generator, low: int = 3, high: int = 8) -> str:
    vowels = 'AEIOU'
    return ''.join(
        (vowels if i % 2 else _LETTERS)[int(rng.integers(5 if i % 2 else len(_LETTERS)))]
        for i in range(int(rng.integers(low, high)))
    )


def _sample_detail(name: str, rng: np.random.Generator, kind: str, paint: Paint) -> dict[str, Any]:
    """The numbers of a detail: `u` and `v` are places, `s` a size, all in 0..1; `n` a count."""
    values: dict[str, Any] = {key: float(round(rng.uniform(), 3)) for key in 'uvs'}
    values['n'] = int(rng.integers(1, 5))
    quiet = 0.5 if kind in ('bus', *VANS, *TRUCKS) else 0.8
    if name in ('stripes', 'decal', 'lettering', 'panel', 'roof_number', 'roof_patch', 'roof_box', 'two_tone'):
        values['rgb'] = _near(rng, paint) if rng.uniform() < quiet else _contrasting(rng, paint)
    if name in ('cargo', 'ladder', 'cover', 'toolbox', 'bars', 'rails', 'sunshade', 'bed_floor'):
        values['rgb'] = _muted(rng) if rng.uniform() < 0.7 else _any_color(rng)
    if name == 'two_tone' and rng.uniform() < 0.85:
        values['rgb'] = [18, 18, 20] if max(paint.rgb) > 60 else [214, 214, 212]
    if name == 'roof_box' and rng.uniform() < 0.9:
        values['rgb'] = _muted(rng)
    if name in ('lettering', 'roof_number'):
        values['text'] = _word(rng) if name == 'lettering' else str(int(rng.integers(10, 999)))
    return values
