"""Footage: whole frames of a drone that hovers over a road with a bridge, and the boxes of the vehicles.

The layout is that of MOTChallenge, so that trackers and their metrics can read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from timm_dpa.files import atomic_folder
from timm_dpa.train.data.sensor import degrade

from .plan import Plan
from .render.camera import View
from .render.image import Setting, render
from .render.shapes import box
from .render.tracing import Scene, Solid, make_solid
from .vehicles.build import build_solid
from .vehicles.swatches import MATT
from .world.flights import Flight, sample_flight
from .world.shots import visible_share

__all__ = ['Footage', 'FootageFrame', 'render_footage', 'write_footage']

_HEIGHT = 60.0  # of the drone, meters
_LANES = 4
_BRIDGE = ((3.0, -40.0, 5.5), (11.0, 40.0, 6.2))  # its corners, meters
_LEAST = 0.35  # share of a vehicle that has to be seen for its box to be listed


@dataclass(frozen=True)
class Footage:
    """What to render.

    Attributes:
        vehicles: number of vehicles that drive through, at least 1.
        frames: number of frames, at least 1.
        size: width and height of a frame in pixels, at least 64.
        scale: pixels for a meter on the ground.
        rate: frames a second.
        seed: of everything.

    Raises:
        ValueError: a number is out of its range.
    """

    vehicles: int = 10
    frames: int = 60
    size: tuple[int, int] = (720, 360)
    scale: float = 14.0
    rate: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (('vehicles', 1), ('frames', 1), ('scale', 1), ('seed', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} must be at least {least}, not {getattr(self, name)}')
        if min(self.size) < 64:
            raise ValueError(f'size must be at least 64 x 64 pixels, not {self.size[0]} x {self.size[1]}')
        if not self.rate > 0:
            raise ValueError(f'rate must be above 0, not {self.rate}')


@dataclass(frozen=True)
class FootageFrame:
    """A frame and what is in it.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB.
        vehicles: `(N,)` numbers of the vehicles that are seen, from 1, rising.
        boxes: `(N, 4)` x1, y1, x2, y2 in pixels, clipped to the frame.
        visible: `(N,)` share of each that is in the frame and not under the bridge.
    """

    pixels: np.ndarray
    vehicles: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray


def render_footage(footage: Footage) -> Iterator[FootageFrame]:
    """Render the frames one after the other.

    Vehicles drive along four lanes at the speed of their lane, and pass below a bridge that hides them for about a
    second and a half; all are other models, so that looks can tell them apart. The drone sways by some decimeters.
    """
    rng = np.random.default_rng([footage.seed, 51])
    flight = sample_flight(footage.seed, 1, 0.5)
    while flight.weather == 'overcast' or flight.sun_height < 35:  # shadows show that it is a scene
        flight = sample_flight(int(rng.integers(1 << 30)), 1, 0.5)
    place = replace(flight.place, kind='road', lanes=_LANES // 2, lane=3.4)
    plan = Plan(max(2, footage.vehicles), seed=footage.seed, siblings=1)
    solids = [build_solid(plan.identity(number))[0] for number in range(footage.vehicles)]
    bridge = _bridge()
    speeds = rng.uniform(6.5, 9.5, _LANES)
    gaps = rng.uniform(0, 6, footage.vehicles)
    reach = footage.size[0] / footage.scale / 2
    sway = rng.uniform(0, 2 * np.pi, 4)
    for n in range(footage.frames):
        time = n / footage.rate
        eye = np.array([0.5 * np.sin(time / 3 + sway[0]), 0.4 * np.sin(time / 4 + sway[1]), _HEIGHT])
        view = _view(footage, eye, 0.01 * np.sin(time / 5 + sway[2]))
        placed: dict[int, Solid] = {}
        for number, solid in enumerate(solids):
            lane, turn = number % _LANES, number // _LANES
            way = 1 if lane < _LANES // 2 else -1
            along = -reach - 4 - 17 * turn - gaps[number] + speeds[lane] * (time + 2.5)
            across = -way * (lane % 2 + 0.5) * place.lane
            if abs(along) < reach + 12:
                placed[number] = solid.placed(way * along, across, 0.0 if way == 1 else np.pi)
        yield _frame(footage, replace(flight, place=place), view, placed, bridge, n)


def _frame(
    footage: Footage, flight: Flight, view: View, placed: dict[int, Solid], bridge: Solid, n: int
) -> FootageFrame:
    rng = np.random.default_rng([footage.seed, n, 52])
    setting = Setting(flight.place, (0.0, 0.0, 0.0), flight.light, exposure=flight.exposure, steady=True)
    pixels = render(Scene([*placed.values(), bridge]), view, setting, rng)
    size = np.array([view.width, view.height])
    numbers, boxes, shares = [], [], []
    for number, solid in placed.items():
        visible, _ = visible_share(Scene([solid]), Scene([solid, bridge]), view)
        flat = view.project(solid.points)
        if visible >= _LEAST:
            numbers.append(number + 1)
            boxes.append(np.clip([flat.min(axis=0), flat.max(axis=0)], 0, size).ravel())
            shares.append(visible)
    pixels = degrade(pixels, replace(flight.sensor, reduce=1.0, motion=(0.0, 0.0)), rng)
    return FootageFrame(pixels, np.array(numbers, int), np.array(boxes, float).reshape(-1, 4), np.array(shares, float))


def _view(footage: Footage, eye: np.ndarray, roll: float) -> View:
    """A camera that looks straight down."""
    c, s = np.cos(roll), np.sin(roll)
    axes = np.array([[c, s, 0], [s, -c, 0], [0, 0, -1.0]])
    width, height = footage.size
    return View(eye, axes, footage.scale * _HEIGHT, (width / 2, height / 2), width, height)


def _bridge() -> Solid:
    mesh = box(*_BRIDGE, radius=0.05, color=0)
    texels = np.array([[126, 124, 120, MATT]], np.uint8)
    return make_solid(mesh, texels, np.full((len(mesh.corners), 3, 2), 0.5, np.float32), 1, rays=0)


def write_footage(folder: str | os.PathLike[str], footage: Footage) -> Path:
    """Render footage into a folder in MOTChallenge's layout.

    It writes `img1/000001.jpg` and so on; `gt/gt.txt` with frame, vehicle, left, top, width, height (the first pixel is
    1), 1, class 3 (car), visibility; `det/det.txt`, the same boxes as a detector would find them: in any order, without
    vehicles (-1), 3 % off, and some false ones; and `seqinfo.ini`.

    Raises:
        FileExistsError: the folder has files.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    rng = np.random.default_rng([footage.seed, 53])
    truth, found = [], []
    with atomic_folder(folder) as temporary:
        for part in ('img1', 'gt', 'det'):
            (temporary / part).mkdir()
        for n, frame in enumerate(render_footage(footage), start=1):
            Image.fromarray(frame.pixels).save(temporary / 'img1' / f'{n:06d}.jpg', quality=92)
            for number, (x1, y1, x2, y2), visible in zip(frame.vehicles, frame.boxes, frame.visible, strict=True):
                truth.append(f'{n},{number},{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},1,3,{visible:.2f}')
            for x1, y1, x2, y2 in rng.permutation(frame.boxes):
                x1, y1, x2, y2 = np.array([x1, y1, x2, y2]) + rng.normal(0, 0.03, 4) * np.tile([x2 - x1, y2 - y1], 2)
                score = rng.uniform(0.6, 0.99)
                found.append(f'{n},-1,{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},{score:.2f},-1,-1,-1')
            if n % 7 == 3:  # without a height, and outside of the frame
                found.append(f'{n},-1,30.0,40.0,50.0,0.0,0.31,-1,-1,-1')
                found.append(f'{n},-1,{footage.size[0] + 20:.1f},40.0,50.0,30.0,0.35,-1,-1,-1')
        (temporary / 'gt' / 'gt.txt').write_text('\n'.join(truth) + '\n', encoding='utf-8')
        (temporary / 'det' / 'det.txt').write_text('\n'.join(found) + '\n', encoding='utf-8')
        width, height = footage.size
        (temporary / 'seqinfo.ini').write_text(
            f'[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={footage.rate:g}\nseqLength={footage.frames}\n'
            f'imWidth={width}\nimHeight={height}\nimExt=.jpg\n',
            encoding='utf-8',
        )
    return folder
