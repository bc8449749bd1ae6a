"""The plan of a rendered data set: its settings with their defaults and limits.

This module needs nothing but Python until a plan is used, because the help of `timm-dpa synth` shows the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .vehicles.identity import Identity

__all__ = ['CAMERAS', 'FOLDERS', 'FRAMES', 'MAX_DEGRADATION', 'MAX_FLIGHTS', 'PIXELS', 'Plan']

CAMERAS = 6  # default of `Plan.cameras` without tracks
FRAMES = (10, 30)  # fewest and most frames of a track
PIXELS = (16, 2048)  # smallest and largest long side of a crop
MAX_FLIGHTS = 99
MAX_DEGRADATION = 4
#: part -> folder of its images
FOLDERS = {'train': 'image_train', 'query': 'image_query', 'gallery': 'image_test'}


@dataclass(frozen=True)
class Plan:
    """What to render. The plan and the number of an image determine the image.

    Attributes:
        ids: number of vehicles, at least 2.
        images_per_id: images of each vehicle.
        seed: seed of everything, at least 0.
        sizes: smallest and largest long side of the crops, pixels in `PIXELS`.
        siblings: number of vehicles of each model.
        alike: probability that the vehicles of a model have the same color.
        cameras: number of flights that see each vehicle; None for `CAMERAS`, or for 1 with `tracks`.
        flights: number of flights in all; test vehicles are seen by other flights than training vehicles.
        test_share: share of the models that are held out for the test.
        degradation: strength of haze, blur, noise and JPEG: 0 = perfect cameras, 1 = typical drone footage, at most
            `MAX_DEGRADATION`.
        tracks: whether the images of a vehicle are the frames of one flight that watches it drive through a turn.

    Raises:
        ValueError: a setting is out of its range, or settings contradict each other.
    """

    ids: int = 1000
    images_per_id: int = 24
    seed: int = 0
    sizes: tuple[int, int] = (30, 300)
    siblings: int = 5
    alike: float = 0.8
    cameras: int | None = None
    flights: int = 60
    test_share: float = 0.25
    degradation: float = 1.0
    tracks: bool = False

    def __post_init__(self) -> None:
        if self.cameras is None:
            object.__setattr__(self, 'cameras', self._default_cameras)
        (low, high), cameras = self.sizes, self.views
        for wrong, message in (
            (self.ids < 2, f'ids must be at least 2, not {self.ids}'),
            (self.seed < 0, f'seed must be at least 0, not {self.seed}'),
            (
                not PIXELS[0] <= low <= high <= PIXELS[1],
                f'size must be one or two rising numbers in {PIXELS[0]}..{PIXELS[1]}, not {low} {high}',
            ),
            (self.siblings < 1, f'siblings must be at least 1, not {self.siblings}'),
            (not 0 <= self.alike <= 1, f'alike must be in 0..1, not {self.alike}'),
            (not 0 <= self.test_share <= 1, f'test_share must be in 0..1, not {self.test_share}'),
            (
                not 0 <= self.degradation <= MAX_DEGRADATION,
                f'degradation must be in 0..{MAX_DEGRADATION}, not {self.degradation}',
            ),
            (
                self.tracks and not FRAMES[0] <= self.images_per_id <= FRAMES[1],
                f'images_per_id must be in {FRAMES[0]}..{FRAMES[1]}, the frames of a track, not {self.images_per_id}; '
                'give --images-per-id 20, or leave --tracks out',
            ),
            (
                self.tracks and cameras != 1,
                f'cameras must be 1, the flight that sees the track, not {cameras}; leave --cameras out',
            ),
            (cameras < 1, f'cameras must be at least 1, not {cameras}'),
            (
                not 2 * cameras <= self.flights <= MAX_FLIGHTS,
                f'flights must be in {2 * cameras}..{MAX_FLIGHTS}, at least twice the cameras of a vehicle, not '
                f'{self.flights}',
            ),
            (
                self.images_per_id < cameras,
                f'images_per_id must be at least {cameras}, one by each camera, not {self.images_per_id}',
            ),
            # otherwise queries would find no match by another camera
            (
                self.test_share > 0 and cameras < 2 and not self.tracks,
                'cameras must be at least 2, or test_share 0: matches by the same camera do not count',
            ),
            (
                self.test_share > 0 and self.images_per_id < cameras + 2,
                f'images_per_id must be at least {cameras + 2} (a query by each camera and two to find), '
                f'or test_share 0, not {self.images_per_id}',
            ),
        ):
            if wrong:
                raise ValueError(message)

    @property
    def views(self) -> int:
        """`cameras`, which is set once the plan is made."""
        return self._default_cameras if self.cameras is None else self.cameras

    @property
    def _default_cameras(self) -> int:
        return 1 if self.tracks else CAMERAS

    @property
    def command(self) -> str:
        """The command that renders this plan, without the folder."""
        words = [f'timm-dpa synth --ids {self.ids}']
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if value == (self._default_cameras if item.name == 'cameras' else item.default):
                continue
            words.append('--size' if item.name == 'sizes' else f'--{item.name.replace("_", "-")}')
            if item.name != 'tracks':
                words += [f'{number:g}' for number in (value if isinstance(value, tuple) else (value,))]
        return ' '.join(words)

    @property
    def models(self) -> int:
        """Number of models."""
        return -(-self.ids // self.siblings)

    def test_models(self) -> frozenset[int]:
        """Return the numbers of the models that are held out for the test."""
        import numpy as np

        count = min(self.models - 1, round(self.models * self.test_share)) if self.test_share < 1 else self.models
        count = max(count, 1 if self.test_share > 0 and self.models > 1 else 0)
        order = np.random.default_rng([self.seed, 31]).permutation(self.models)
        return frozenset(int(m) for m in order[:count])

    @property
    def held_out(self) -> int:
        """Number of vehicles that are held out for the test."""
        test = self.test_models()
        return sum(number // self.siblings in test for number in range(self.ids))

    def identity(self, number: int) -> Identity:
        """Return the vehicle of that number."""
        from .vehicles.catalog import sample_identity, sample_model

        model = sample_model(self.seed, number // self.siblings)
        return sample_identity(self.seed, number, model, number % self.siblings, self.alike)

    def flights_of(self, number: int) -> list[int]:
        """Return the numbers of the flights that see a vehicle."""
        import numpy as np

        if self.test_share in (0, 1):
            choice = np.arange(self.flights)
        else:
            first = min(max(round(self.flights * 0.6), self.views), self.flights - self.views)
            test = number // self.siblings in self.test_models()
            choice = np.arange(first, self.flights) if test else np.arange(first)
        rng = np.random.default_rng([self.seed, number, 32])
        return [int(f) + 1 for f in rng.choice(choice, self.views, replace=False)]

    def shots(self, number: int) -> list[tuple[int, int, str]]:
        """Return (number of the image, flight, path below the root) of all images of a vehicle."""
        test = number // self.siblings in self.test_models()
        flights = self.flights_of(number)
        found = []
        for n in range(self.images_per_id):
            part = ('query' if n < self.views else 'gallery') if test else 'train'
            flight = flights[n % self.views]
            found.append((n, flight, f'{FOLDERS[part]}/{number:04d}_{flight:02d}_{n:04d}.jpg'))
        return found
