"""Models, which several vehicles share, and identities: the vehicles of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .colors import Paint
from .swatches import METALLIC

if TYPE_CHECKING:
    from .details.base import Detail

__all__ = ['Identity', 'Model']


@dataclass(frozen=True)
class Model:
    """What the identities of one make and type share.

    Attributes:
        number: number of the model.
        kind: one of `KINDS`.
        shape: length, width and height in meters, and the shares `a` to `h` in 0..1 that vary the proportions.
        look: shares in 0..1 that vary the colors and shapes of lamps, grille, windows and trim.
    """

    number: int
    kind: str
    shape: dict[str, float]
    look: dict[str, float]


@dataclass(frozen=True)
class Identity:
    """One vehicle.

    Attributes:
        number: number of the vehicle.
        model: its model.
        paint: paint of the body.
        second: paint of box bodies, trailers and cargo beds.
        details: name of a detail -> the detail with its values.
        grain: seed of dirt, plates, dents and cargo.
    """

    number: int
    model: Model
    paint: Paint
    second: Paint
    details: dict[str, Detail] = field(default_factory=dict)
    grain: int = 0

    def row(self) -> dict[str, str]:
        """Return every attribute as text, as `vehicles.csv` stores it."""
        return {
            'vehicle': f'{self.number:04d}',
            'model': f'{self.model.number}',
            'kind': self.model.kind,
            **{name: f'{self.model.shape[name]:.3f}' for name in ('length', 'width', 'height')},
            'colour': self.paint.name,  # the column keeps its old spelling
            'rgb': '#{:02x}{:02x}{:02x}'.format(*self.paint.rgb),
            'metallic': str(int(self.paint.material == METALLIC)),
            'details': ' '.join(sorted(self.details)),
            'detail_values': json.dumps({k: v.values() for k, v in self.details.items()}, sort_keys=True),
        }
