"""What all details have in common, and the registry that holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, auto
from typing import Any, ClassVar

import numpy as np

from ...render.shapes import Mesh
from ..body import KINDS, Body
from ..colors import RGB, Paint
from ..identity import Identity
from ..swatches import MATT, PAINT, Swatches
from ..texture import Atlas, Color

__all__ = ['ANY', 'BLACK', 'CARS', 'CHROME_RGB', 'DETAILS', 'GLOSS', 'PAINTERS', 'Detail', 'Layer']
__all__ += ['darker', 'paints', 'roof_ends', 'seam_color']

BLACK: Color = (20, 20, 21, MATT)
GLOSS: Color = (14, 14, 16, PAINT)
CHROME_RGB: RGB = (188, 190, 192)

CARS = ('sedan', 'hatchback', 'estate', 'suv')
ANY = tuple(KINDS)


class Layer(IntEnum):
    """When something is painted: later layers cover earlier ones."""

    ROOF_COLOR = auto()
    PANELS = auto()
    STRIPES = auto()
    BUMPERS = auto()
    LOAD = auto()
    ON_LOAD = auto()
    WINDSHIELD = auto()
    SEATS = auto()
    DASHBOARD = auto()
    REAR_WINDOW = auto()
    REAR_SHELF = auto()
    SIDE_WINDOWS = auto()
    ROOF_GLASS = auto()
    SEAMS = auto()
    BED_FLOOR = auto()
    LAMPS = auto()
    PLATES = auto()
    WHEELS = auto()
    MARKINGS = auto()
    DENTS = auto()
    MISSING_PARTS = auto()
    DIRT = auto()


#: all details by name, in the order in which they are sampled
DETAILS: dict[str, type[Detail]] = {}
ColorSampler = Callable[[np.random.Generator, str, Paint], RGB]
Painter = Callable[['Identity', Body, Atlas], None]
#: what is painted on every vehicle
PAINTERS: list[tuple[Layer, Painter]] = []


@dataclass(frozen=True)
class Detail:
    """A detail that some vehicles have, with the values of one of them.

    A subclass is the home of its detail: it states the class attributes below, and overrides what the detail needs:
    `sample` or `sample_color`, `paint` (with a `layer`), `build` or `change_skin`. A new detail changes what existing
    seeds give, so the version of the renderer in `dataset.py` must be raised.

    Attributes:
        u, v: positions, 0..1.
        s: size, 0..1.
        n: count or variant, 1..4.
        rgb: color, or None where the detail needs none.
        text: text, or None where the detail shows none.
        name: name in `vehicles.csv`.
        order: position in the order of sampling; also decides between details of one layer.
        weight: relative frequency; 0 for a detail that vehicles get by `clear` and `usual` alone.
        kinds: kinds of vehicles that may have it.
        clear: whether every view from above shows it; siblings differ in a clear detail.
        colors: samples its color; None for a detail without a color of its own.
        layer: when it is painted; None for a detail without paint.
        replaces: details that a vehicle cannot have beside this one.
        usual: kind -> probability that a vehicle without it gets it all the same.
    """

    u: float
    v: float
    s: float
    n: int
    rgb: RGB | None = None
    text: str | None = None

    name: ClassVar[str]
    order: ClassVar[int]
    weight: ClassVar[float]
    kinds: ClassVar[tuple[str, ...]]
    clear: ClassVar[bool] = False
    colors: ClassVar[ColorSampler | None] = None
    layer: ClassVar[Layer | None] = None
    replaces: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[Mapping[str, float]] = {}

    def __init_subclass__(cls) -> None:
        for other in DETAILS.values():
            if cls.name == other.name or cls.order == other.order:
                raise ValueError(f'{cls.name}: {other.name} has this name or order {cls.order}; choose another')
        DETAILS[cls.name] = cls

    @classmethod
    def sample(cls, rng: np.random.Generator, kind: str, paint: Paint) -> Detail:
        """Sample the values for a vehicle of this kind and paint."""
        u, v, s = (float(round(rng.uniform(), 3)) for _ in range(3))
        return cls(u, v, s, int(rng.integers(1, 5)), cls.sample_color(rng, kind, paint))

    @classmethod
    def sample_color(cls, rng: np.random.Generator, kind: str, paint: Paint) -> RGB | None:
        """Sample the color; None for a detail without a color of its own."""
        return cls.colors(rng, kind, paint) if cls.colors else None

    def values(self) -> dict[str, Any]:
        """Return the values that are not None, as `vehicles.csv` stores them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def color(self, material: int) -> Color:
        """Return the sampled color in a material."""
        if self.rgb is None:
            raise ValueError(f'detail {self.name} has no color; set its colors=')
        return (*self.rgb, material)

    def paint(self, identity: Identity, body: Body, atlas: Atlas) -> None:
        """Paint the detail on the texture of its vehicle."""

    def build(self, identity: Identity, body: Body, swatches: Swatches) -> list[Mesh]:
        """Return meshes that are mounted on the body; their colors are added to `swatches`."""
        return []

    def change_skin(self, skin: Mesh) -> Mesh:
        """Return the mesh of the body as the detail changes it."""
        return skin


def paints(layer: Layer) -> Callable[[Painter], Painter]:
    """Register a function that paints something on every vehicle."""

    def register(painter: Painter) -> Painter:
        PAINTERS.append((layer, painter))
        return painter

    return register


def darker(color: Color, share: float) -> Color:
    """Return a color with its brightness multiplied by `share`."""
    red, green, blue, material = color
    return int(red * share), int(green * share), int(blue * share), material


def seam_color(identity: Identity) -> Color:
    """Return the color of gaps between panels: a dark tone of the paint."""
    red, green, blue = (max(8, int(v * 0.35)) for v in identity.paint.rgb)
    return red, green, blue, MATT


def roof_ends(body: Body) -> tuple[float, float]:
    """Return x of the front and of the rear end of the roof, in meters."""
    return body.screen_top - 0.15, body.rear_top + 0.12
