"""A rendered data set on disk, in VeRi-UAV's layout: planned from a seed, rendered by several processes, resumable."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import tqdm
from PIL import Image

from timm_dpa.train.data.provenance import ABOUT_FILE, write_about
from timm_dpa.train.data.sensor import Sensor, degrade, vary

from .render.tracing import Scene, build_solid
from .vehicles.catalog import Identity, sample_identity, sample_model
from .world.clips import Clip, sample_clip
from .world.flights import Flight, sample_flight
from .world.scenes import AssetCache, Rendering, render_shot, render_still
from .world.tracks import frame_shot, sample_track

__all__ = ['Plan', 'count_cores', 'render_data_set', 'render_stills']

_VERSION = 2  # raised when the same plan gives other images
_SETTINGS = 'synth.json'
_WORK = '.synth'  # what is known of finished vehicles, and files half written; gone when all is done
_FOLDERS = {'train': 'image_train', 'query': 'image_query', 'gallery': 'image_test'}
IMAGE_COLUMNS = (
    'image',
    'vehicle',
    'camera',
    'part',
    'width',
    'height',
    'left',
    'top',
    'right',
    'bottom',
    'visible',
    'hidden_by',
    'neighbours',
    'altitude',
    'pitch',
    'heading',
    'place',
    'weather',
    'sun_height',
    'haze',
    'blur',
    'motion',
    'noise',
    'jpeg',
)
#: of tracks, after those: seconds, place and course of the vehicle on the ground (meters, degrees), direction and
#: roll of the camera, the angle between its axis and the vehicle (degrees), its focal length (pixels), and light
TRACK_COLUMNS = ('time', 'x', 'y', 'course', 'azimuth', 'roll', 'off_axis', 'focal', 'exposure', 'gain')


@dataclass(frozen=True)
class Plan:
    """What to render; every image follows from it and its number alone.

    Attributes:
        ids: vehicles.
        images_per_id: of each.
        seed: of everything.
        sizes: long sides of the crops in pixels, from .. to.
        siblings: vehicles of one model.
        alike: probability that the vehicles of a model have one color, too.
        cameras: flights by which each vehicle is seen; None for 6, or for the one of a track.
        flights: in all; those of the test vehicles are others than those of the training vehicles.
        test_share: share of the models that are held out.
        degradation: 0 for perfect cameras, 1 for what drones bring home.
        clean: vehicles in the middle of the crop with nothing around, before or beside them.
        tracks: the images of a vehicle are the frames of one flight that watches it drive through a turn.
    """

    ids: int
    images_per_id: int = 24
    seed: int = 0
    sizes: tuple[int, int] = (30, 300)
    siblings: int = 5
    alike: float = 0.8
    cameras: int | None = None
    flights: int = 60
    test_share: float = 0.25
    degradation: float = 1.0
    clean: bool = False
    tracks: bool = False

    def __post_init__(self) -> None:
        if self.cameras is None:
            object.__setattr__(self, 'cameras', self._usual_cameras)
        low, high = self.sizes
        for wrong, message in (
            (self.ids < 2, f'ids must be at least 2, not {self.ids}'),
            (self.seed < 0, f'seed must be at least 0, not {self.seed}'),
            (not 16 <= low <= high <= 2048, f'size must be one or two rising numbers in 16..2048, not {low} {high}'),
            (self.siblings < 1, f'siblings must be at least 1, not {self.siblings}'),
            (not 0 <= self.alike <= 1, f'alike must be in 0..1, not {self.alike}'),
            (not 0 <= self.test_share <= 1, f'test_share must be in 0..1, not {self.test_share}'),
            (not 0 <= self.degradation <= 4, f'degradation must be in 0..4, not {self.degradation}'),
            (
                self.tracks and not 10 <= self.images_per_id <= 30,
                f'images_per_id must be in 10..30, the frames of a track, not {self.images_per_id}; '
                'give --images-per-id 20, or leave --tracks out',
            ),
            (
                self.tracks and self.cameras != 1,
                f'cameras must be 1, the flight that sees the track, not {self.cameras}; leave --cameras out',
            ),
            (self.cameras < 1, f'cameras must be at least 1, not {self.cameras}'),
            (
                not 2 * self.cameras <= self.flights <= 99,
                f'flights must be in {2 * self.cameras}..99, from twice the cameras of a vehicle, not {self.flights}',
            ),
            (
                self.images_per_id < self.cameras,
                f'images_per_id must be at least {self.cameras}, one by each camera, not {self.images_per_id}',
            ),
            # or queries would find nothing by another camera than their own
            (
                self.test_share > 0 and self.cameras < 2 and not self.tracks,
                'cameras must be at least 2, or test_share 0: matches by the same camera do not count',
            ),
            (
                self.test_share > 0 and self.images_per_id < self.cameras + 2,
                f'images_per_id must be at least {self.cameras + 2} (a query by each camera and two to find), '
                f'or test_share 0, not {self.images_per_id}',
            ),
        ):
            if wrong:
                raise ValueError(message)

    @property
    def _usual_cameras(self) -> int:
        return 1 if self.tracks else 6

    @property
    def command(self) -> str:
        """What renders this, without the folder. `clean` is no option of the command."""
        words = [f'timm-dpa synth --ids {self.ids}']
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            usual = self._usual_cameras if item.name == 'cameras' else item.default
            if value == usual or item.name == 'clean':
                continue
            if item.name == 'tracks':
                words.append('--tracks')
                continue
            words.append('--size' if item.name == 'sizes' else f'--{item.name.replace("_", "-")}')
            words += [f'{number:g}' for number in (value if isinstance(value, tuple) else (value,))]
        return ' '.join(words)

    @property
    def models(self) -> int:
        return -(-self.ids // self.siblings)

    def test_models(self) -> frozenset[int]:
        """Models that are held out."""
        count = min(self.models - 1, round(self.models * self.test_share)) if self.test_share < 1 else self.models
        count = max(count, 1 if self.test_share > 0 and self.models > 1 else 0)
        order = np.random.default_rng([self.seed, 31]).permutation(self.models)
        return frozenset(int(m) for m in order[:count])

    @property
    def held_out(self) -> int:
        """Vehicles of these models."""
        test = self.test_models()
        return sum(number // self.siblings in test for number in range(self.ids))

    def identity(self, number: int) -> Identity:
        model = sample_model(self.seed, number // self.siblings)
        return sample_identity(self.seed, number, model, number % self.siblings, self.alike)

    def flights_of(self, number: int) -> list[int]:
        """Numbers of the flights that see a vehicle."""
        test = number // self.siblings in self.test_models()
        first = round(self.flights * 0.6)
        if self.test_share in (0, 1):
            choice = np.arange(self.flights)
        else:
            first = min(max(first, self.cameras), self.flights - self.cameras)
            choice = np.arange(first, self.flights) if test else np.arange(first)
        rng = np.random.default_rng([self.seed, number, 32])
        return [int(f) + 1 for f in rng.choice(choice, self.cameras, replace=False)]

    def shots(self, number: int) -> list[tuple[int, int, str]]:
        """(number of the image, flight, path below the root) of all images of a vehicle."""
        test = number // self.siblings in self.test_models()
        flights = self.flights_of(number)
        found = []
        for n in range(self.images_per_id):
            part = ('query' if n < self.cameras else 'gallery') if test else 'train'
            flight = flights[n % self.cameras]
            found.append((n, flight, f'{_FOLDERS[part]}/{number:04d}_{flight:02d}_{n:04d}.jpg'))
        return found


def render_data_set(
    out: str | os.PathLike[str], plan: Plan, *, workers: int | None = None, progress: bool | None = None
) -> Path:
    """Render a data set, or what is missing of it.

    The folder gets `image_train/`, `image_query/` and `image_test/` with JPEGs `<vehicle>_<camera>_<number>.jpg`,
    `vehicles.csv` (every attribute), `images.csv` (camera, box, what hides the vehicle), `synth.json` (the plan) and,
    when all is done, `dataset.json`.

    Args:
        out: folder to make or to go on with.
        plan: what to render.
        workers: processes; None for one a core. The files do not depend on it.
        progress: bar on the terminal; None for one if there is a terminal.

    Returns:
        The folder.

    Raises:
        ValueError: wrong number of workers.
        FileExistsError: `out` holds something else, or a data set of another plan or version of the renderer.
        BrokenProcessPool: a process was killed; what is finished stays.
    """
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1, not {workers}')
    out = Path(out)
    rows = _open(out, plan)
    missing = [
        n for n in range(plan.ids) if n not in rows or not all(_is_there(out / path) for _, _, path in plan.shots(n))
    ]
    if not missing and (out / ABOUT_FILE).is_file():
        return out
    (out / ABOUT_FILE).unlink(missing_ok=True)
    for folder in (*_FOLDERS.values(), _WORK):
        (out / folder).mkdir(exist_ok=True)
    workers = min(workers or count_cores(), max(1, len(missing)))
    done = (plan.ids - len(missing)) * plan.images_per_id
    bar = tqdm(
        total=plan.ids * plan.images_per_id,
        initial=done,
        unit='image',
        desc='rendering',
        smoothing=0.05,
        disable=None if progress is None else not progress,
    )
    with bar, closing(_work(out, plan, missing, workers)) as work:
        for number, found in work:
            rows[number] = found
            bar.update(plan.images_per_id)
    _write_tables(out, plan, rows)
    write_about(
        out,
        'timm-dpa rendered vehicles',
        f'{plan.ids} rendered vehicles of {plan.models} models ({plan.held_out} vehicles of other models for the test) '
        f'seen by {plan.flights} flights of a drone{", each on one track" if plan.tracks else ""}, made by '
        f'`{plan.command}`. No photograph is among them.',
        synthetic=True,
        protocol='first-last' if plan.tracks else None,
    )
    for path in (out / _WORK).iterdir():
        path.unlink()
    (out / _WORK).rmdir()
    return out


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _open(out: Path, plan: Plan) -> dict[int, list[list[str]]]:
    """Rows of `images.csv` of the vehicles that an earlier run has finished; makes the folder."""
    settings = json.loads(json.dumps({'version': _VERSION, **asdict(plan)}))
    if not plan.tracks:
        del settings['tracks']  # older folders know nothing of it
    file = out / _SETTINGS
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding='utf-8')))
        except (ValueError, TypeError):
            before = {}
        if before.get('version') != _VERSION:
            raise FileExistsError(
                f'{out} was rendered by version {before.get("version", "?")} of the renderer, and version {_VERSION} '
                'gives other images; name another folder, or delete this one'
            )
        if before != settings:
            changed = ', '.join(k for k in {**settings, **before} if before.get(k) != settings.get(k)) or _SETTINGS
            raise FileExistsError(
                f'{out} holds a data set with another {changed}; name another folder, or delete this one'
            )
    elif out.exists() and (not out.is_dir() or any(path.name != _WORK for path in out.iterdir())):
        raise FileExistsError(f'{out} is there already and is no rendered data set; name a new or empty folder')
    else:
        (out / _WORK).mkdir(parents=True, exist_ok=True)
        with _replacing(out, _SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8', newline='')
    rows: dict[int, list[list[str]]] = {}
    if (out / 'images.csv').is_file():
        with open(out / 'images.csv', encoding='utf-8', newline='') as table:
            for row in list(csv.reader(table))[1:]:
                rows.setdefault(int(row[1]), []).append(row)
    for path in (out / _WORK).glob('*.json'):
        if _is_there(path):
            rows[int(path.stem)] = json.loads(path.read_text(encoding='utf-8'))
    return rows


def _is_there(path: Path) -> bool:
    """Whether a file was written; a power cut can leave its name without its content."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


@contextmanager
def _replacing(out: Path, name: str) -> Iterator[Path]:
    """A file to write; takes its place below `out` when it is complete."""
    temporary = out / _WORK / f'{os.getpid()}.part'
    yield temporary
    os.replace(temporary, out / name)


def _write_tables(out: Path, plan: Plan, rows: dict[int, list[list[str]]]) -> None:
    test = plan.test_models()
    vehicles = []
    for number in range(plan.ids):
        identity = plan.identity(number)
        part = 'test' if identity.model.number in test else 'train'
        vehicles.append({**identity.row(), 'part': part})
    for name, header, lines in (
        ('vehicles.csv', list(vehicles[0]), [list(v.values()) for v in vehicles]),
        (
            'images.csv',
            [*IMAGE_COLUMNS, *(TRACK_COLUMNS if plan.tracks else ())],
            [row for number in sorted(rows) for row in rows[number]],
        ),
    ):
        with _replacing(out, name) as temporary, open(temporary, 'w', encoding='utf-8', newline='') as table:
            csv.writer(table, lineterminator='\n').writerows([header, *lines])


# --- processes --------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}  # what a process keeps from one vehicle to the next


def _work(out: Path, plan: Plan, numbers: list[int], workers: int) -> Iterator[tuple[int, list[list[str]]]]:
    """Render vehicles, in any order."""
    if workers == 1:
        _prepare(out, plan)
        try:
            yield from map(_render_files, numbers)
        finally:
            _worker.clear()
        return
    # fresh processes: the parent may hold threads of torch or embree
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _start, (out, plan)) as pool:
        try:
            with _ignoring_interrupts():  # which processes inherit that start here
                jobs = [pool.submit(_render_files, n) for n in numbers]
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(out: Path, plan: Plan) -> None:
    """In a new process."""
    # Ctrl-C reaches every process, but is for the parent, which lets vehicles be finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _prepare(out, plan)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its processes, and these would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepare(out: Path, plan: Plan) -> None:
    _worker.update(out=out, plan=plan, assets=AssetCache(plan.seed), flights={}, clips={})


def _render_files(number: int) -> tuple[int, list[list[str]]]:
    """Render a vehicle and write its images, then what is known of them."""
    out, plan = _worker['out'], _worker['plan']
    rows = []
    images = (
        render_track(plan, number, _worker['assets'], _worker['clips'])
        if plan.tracks
        else render_stills(plan, number, _worker['assets'], _worker['flights'])
    )
    for path, quality, pixels, row in images:
        with _replacing(out, path) as temporary:
            Image.fromarray(pixels).save(temporary, 'JPEG', quality=quality)
        rows.append(row)
    with _replacing(out, f'{_WORK}/{number}.json') as temporary:
        temporary.write_text(json.dumps(rows), encoding='utf-8')
    return number, rows


def render_stills(
    plan: Plan, number: int, assets: AssetCache, flights: dict[int, Flight]
) -> Iterator[tuple[str, int, np.ndarray, list[str]]]:
    """The images of a vehicle: path, JPEG quality, `(H, W, 3)` uint8 and its row of `images.csv`.

    Args:
        plan: of the data set.
        number: of the vehicle.
        assets: keeps neighbors.
        flights: keeps flights.
    """
    solid, body = build_solid(plan.identity(number))
    solo = Scene([solid])
    for n, flight_number, path in plan.shots(number):
        if flight_number not in flights:
            flights[flight_number] = sample_flight(plan.seed, flight_number, plan.degradation)
        flight = flights[flight_number]
        rng = np.random.default_rng([plan.seed, number, n, 21])
        size = _size(plan, flight, body.length, rng)
        rendering = render_still(assets, solo, flight, size, rng, clean=plan.clean)
        sensor = vary(flight.sensor, rng, plan.degradation)
        pixels = degrade(rendering.pixels, sensor, rng) if plan.degradation else rendering.pixels
        yield path, sensor.quality, pixels, _row(path, number, flight, pixels, rendering, sensor)


def render_track(
    plan: Plan, number: int, assets: AssetCache, clips: dict[int, Clip]
) -> Iterator[tuple[str, int, np.ndarray, list[str]]]:
    """The frames of a vehicle's track, as `render_stills` gives images.

    Args:
        plan: of the data set.
        number: of the vehicle.
        assets: keeps neighbors, trees and posts.
        clips: keeps flights.
    """
    solid, _ = build_solid(plan.identity(number))
    solo = Scene([solid])
    shots = plan.shots(number)
    flight_number = shots[0][1]
    if flight_number not in clips:
        clips[flight_number] = sample_clip(plan.seed, flight_number, plan.degradation)
    clip = clips[flight_number]
    rng = np.random.default_rng([plan.seed, number, 37])
    track = sample_track(clip, solid, len(shots), plan.sizes, rng, plan.degradation, plan.clean)
    for (n, _, path), frame in zip(shots, track.frames, strict=True):
        rng = np.random.default_rng([plan.seed, number, n, 38])
        shot, off_axis = frame_shot(clip, track, n, solo, assets)
        rendering = render_shot(solo, shot, rng)
        pixels = degrade(rendering.pixels, frame.sensor, rng) if plan.degradation else rendering.pixels
        x, y, course = frame.spot
        extra = [
            f'{frame.time:.2f}',
            f'{x:.2f}',
            f'{y:.2f}',
            f'{np.rad2deg(course):.1f}',
            f'{np.rad2deg(frame.azimuth):.1f}',
            f'{np.rad2deg(frame.roll):.1f}',
            f'{off_axis:.1f}',
            f'{track.focal:.0f}',
            f'{frame.exposure:.2f}',
            f'{frame.sensor.gain:.2f}',
        ]
        row = _row(path, number, clip.flight, pixels, rendering, frame.sensor)
        yield path, frame.sensor.quality, pixels, row + extra


def _row(path: str, number: int, flight: Flight, pixels: np.ndarray, rendering: Rendering, sensor: Sensor) -> list[str]:
    """The columns `IMAGE_COLUMNS` of an image."""
    part = next(part for part, folder in _FOLDERS.items() if path.startswith(folder + '/'))
    return [
        path,
        f'{number:04d}',
        str(flight.number),
        part,
        str(pixels.shape[1]),
        str(pixels.shape[0]),
        *(f'{v:.1f}' for v in rendering.box),
        f'{rendering.visible:.2f}',
        ' '.join(rendering.hidden_by),
        str(rendering.neighbors),
        f'{rendering.height:.1f}',
        f'{rendering.pitch:.1f}',
        f'{rendering.heading:.1f}',
        flight.place.kind,
        flight.weather,
        f'{flight.sun_height:.0f}',
        f'{sensor.haze:.2f}',
        f'{sensor.lens:.2f}',
        f'{float(np.hypot(*sensor.motion)):.2f}',
        f'{sensor.noise:.1f}',
        str(sensor.quality),
    ]


def _size(plan: Plan, flight: Flight, length: float, rng: np.random.Generator) -> int:
    """Long side of a crop in pixels: by the flight and the vehicle's length."""
    low, high = plan.sizes
    if low == high:
        return low
    pixels = low * (high / low) ** flight.scale * np.exp(rng.normal(0, 0.18)) * (length / 4.6) ** 0.7
    return int(np.clip(round(pixels), low, high))
