"""Crops with identities from sequences with boxes: a folder for each vehicle, and a table."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import tqdm
from PIL import Image

from ..files import atomic_file, locked, remove_stale, write_bytes
from .box_files import BoxFile, choose_boxes, read_boxes
from .box_formats import BoxRow
from .boxes import crop_boxes
from .sequences import SequenceFiles
from .video import Frame, open_frames

__all__ = ['COLUMNS', 'CropOptions', 'CropReport', 'write_crops']

COLUMNS = ('path', 'pid', 'sequence', 'frame', 'time', 'track', 'x', 'y', 'w', 'h', 'score')
TABLE, ABOUT, _JOURNAL = 'crops.csv', 'crops.json', '.crops.jsonl'
_QUALITY = 95


@dataclass(frozen=True)
class CropOptions:
    """Which boxes become crops, and how.

    Attributes:
        every: only frames whose number is divisible by it.
        min_visibility: share of the vehicle, 0..1, that has to be seen.
        min_side: pixels of the box that have to lie inside the frame, in width and in height.
        classes: names or numbers; empty for all that may be vehicles.
        half: `'first'` or `'second'` half of the frames, None for all. The first one ends with the frame in the middle,
            as in the split of MOT17 that trackers use.
        margin: share of the width and height that is added on each side.
        first_frame: number of the first frame of a video; None for what the boxes suggest.
    """

    every: int = 1
    min_visibility: float = 0.0
    min_side: float = 2
    classes: tuple[str, ...] = ()
    half: str | None = None
    margin: float = 0.0
    first_frame: int | None = None

    def __post_init__(self) -> None:
        if self.half not in (None, 'first', 'second'):
            raise ValueError(f"half must be 'first' or 'second', not {self.half!r}")
        if not 1 <= self.min_side < math.inf:
            raise ValueError(f'min_side must be at least 1 pixel, not {self.min_side}')
        if not 0 <= self.margin <= 1:
            raise ValueError(f'margin must be in 0..1, not {self.margin}')


@dataclass
class CropReport:
    """What `write_crops` did.

    Attributes:
        table: the file that lists the crops.
        crops, vehicles, sequences: how many.
        skipped: boxes that lie outside of their frame, or are smaller than `min_side`.
        written: crops that were written now; the others were there from an earlier run.
        first_frames: sequence -> number that its first frame has, of videos.
    """

    table: Path
    crops: int = 0
    vehicles: int = 0
    sequences: int = 0
    skipped: int = 0
    written: int = 0
    first_frames: dict[str, int] = field(default_factory=dict)


@dataclass
class _Job:
    """A sequence, and the boxes to cut out of it by frame."""

    files: SequenceFiles
    boxes: BoxFile
    by_frame: dict[int | str, list[BoxRow]]
    first: int


def write_crops(
    sequences: Sequence[SequenceFiles], out: Path, options: CropOptions | None = None, progress: bool | None = None
) -> CropReport:
    """Cut the boxes of sequences out of their frames: `<sequence>_<track>/<sequence>_<frame>.jpg` and `crops.csv`.

    The table has the columns `COLUMNS`; x, y, w and h are the box around the corners where boxes are oriented, and the
    time is in seconds, empty where it is not known. `crops.json` says what the crops were made of. After an
    interruption, the same call resumes with the frame that it stopped at; after it was done, it does nothing.

    Args:
        sequences: see `find_sequences` and `named_sequence`.
        out: the folder to make; may be there if it is empty, or of an earlier run of the same.
        options: which boxes, and how.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        ValueError: boxes without tracks, or without those options; damaged files; frames that are missing; no box is
            left; or `out` has crops of other boxes or options.
        FileExistsError: `out` has something else.
        BlockingIOError: another process is writing `out`.
        OSError: `out` cannot be written.
    """
    options = options or CropOptions()
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out}: is a file; name a new folder for the crops')
    jobs = [_prepared(files, options) for files in sequences]
    _check_vehicles(jobs)
    settings = _settings(jobs, options)
    if out.is_dir() and any(path.name != '.lock' for path in out.iterdir()):
        _check_same(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / '.lock', out):
        return _Writing(jobs, out, options, settings).run(progress)


def _prepared(files: SequenceFiles, options: CropOptions) -> _Job:
    open_frames(files.frames)  # whether there is such a thing shows before a folder is made
    boxes = read_boxes(files.boxes, files.format)
    _check_name(files.name, f'{files.frames}: the sequence')
    first = boxes.first_frame if options.first_frame is None else options.first_frame
    rows = choose_boxes(
        boxes,
        every=options.every,
        min_visibility=options.min_visibility,
        classes=options.classes or None,
        frames=_half(files, options.half, first),
    )
    by_frame: dict[int | str, list[BoxRow]] = {}
    for row in rows:
        if not row.track:
            raise ValueError(f'{boxes.where(row)}: no id of a track, which a crop with an identity needs')
        _check_name(row.track, f'{boxes.where(row)}: the track')
        by_frame.setdefault(row.frame, []).append(row)
    return _Job(files, boxes, by_frame, first)


def _half(files: SequenceFiles, half: str | None, first: int) -> range | None:
    if half is None:
        return None
    length = files.length or open_frames(files.frames).length
    if length is None:
        raise ValueError(f'{files.frames}: does not say how many frames it has, so that half of it is not known')
    cut = first + length // 2 + 1
    return range(first, cut) if half == 'first' else range(cut, first + length)


def _check_name(name: str, what: str) -> None:
    if not re.fullmatch(r'[^\x00-\x1f/\\:*?"<>|]+', name) or name.startswith('.'):
        raise ValueError(f'{what} {name!r} cannot be part of the name of a file; rename it')


def _check_vehicles(jobs: list[_Job]) -> None:
    owners: dict[str, tuple[str, str]] = {}
    for job in jobs:
        for row in (row for rows in job.by_frame.values() for row in rows):
            owner = (job.files.name, row.track)
            if (other := owners.setdefault('_'.join(owner), owner)) != owner:
                raise ValueError(f'sequence and track {other} and {owner} give one name; rename a sequence')
    if not owners:
        raise ValueError('no box is left of those in the files; ask for fewer conditions')


def _settings(jobs: list[_Job], options: CropOptions) -> dict[str, Any]:
    """What decides the crops, as JSON gives it back."""
    made_of = []
    for job in jobs:
        files = sorted(job.files.boxes.glob('*.txt')) if job.files.boxes.is_dir() else [job.files.boxes]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        made_of.append(
            {
                'sequence': job.files.name,
                'frames': str(job.files.frames.resolve()),
                'boxes_sha256': digest.hexdigest(),
                'format': job.boxes.format,
                'rate': job.files.rate,
            }
        )
    settings = {'format': 'timm-dpa crops 1', 'sequences': made_of, 'options': asdict(options)}
    return dict(json.loads(json.dumps(settings)))


def _check_same(out: Path, settings: dict[str, Any]) -> None:
    """Raise an error unless the folder has crops with these settings, be they complete or not."""
    for name in (ABOUT, _JOURNAL):
        try:
            with open(out / name, encoding='utf-8') as file:
                theirs = json.loads(file.readline() if name == _JOURNAL else file.read())['settings']
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{out / name}: is damaged ({error}); delete {out}, or name another folder') from error
        if theirs != settings:
            what = [key for key in ('sequences', 'options') if theirs.get(key) != settings[key]]
            raise ValueError(f'{out}: has crops of other {" and ".join(what)}; name another folder, or delete it')
        return
    raise FileExistsError(f'{out}: has something else than crops of this command; name a new folder')


class _Writing:
    """One run of `write_crops`, which no other process disturbs."""

    def __init__(self, jobs: list[_Job], out: Path, options: CropOptions, settings: dict[str, Any]) -> None:
        self.jobs, self.out, self.options, self.settings = jobs, out, options, settings
        self.journal = out / _JOURNAL
        self.done: dict[tuple[str, int | str], dict[str, Any]] = {}

    def run(self, progress: bool | None) -> CropReport:
        if (self.out / ABOUT).exists():
            content = json.loads((self.out / ABOUT).read_text(encoding='utf-8'))
            return self._report(content['counts'], written=0)
        self._read_journal()
        pending = {job.files.name: [frame for frame in job.by_frame if (job.files.name, frame) not in self.done]
                   for job in self.jobs}  # fmt: skip
        written = 0
        bar = tqdm(
            total=sum(map(len, pending.values())),
            unit='frame',
            desc='cutting',
            disable=None if progress is None else not progress,
            delay=1 if progress is None else 0,
        )
        if not self.journal.exists():
            write_bytes(self.journal, json.dumps({'settings': self.settings}).encode() + b'\n')
        with bar, self.journal.open('a', encoding='utf-8') as journal:
            for job in self.jobs:
                for entry in self._cut(job, pending[job.files.name]):
                    journal.write(json.dumps(entry) + '\n')
                    journal.flush()
                    written += len(entry['crops'])
                    bar.update()
        return self._finish(written)

    def _read_journal(self) -> None:
        """What an earlier run has done; a last line that was cut off does not count."""
        if not self.journal.exists():
            return
        lines = self.journal.read_bytes().split(b'\n')
        whole, end = lines[:-1], lines[-1]
        for line in whole[1:]:
            entry = json.loads(line)
            self.done[entry['sequence'], entry['key']] = entry
        if end:
            write_bytes(self.journal, b'\n'.join([*whole, b'']))

    def _cut(self, job: _Job, wanted: list[int | str]) -> Iterator[dict[str, Any]]:
        if not wanted:
            return
        frames = open_frames(job.files.frames, first=job.first, rate=job.files.rate)
        keys = set(wanted)
        for frame in frames.read(keys):
            key = frame.number if frame.number in keys else frame.name
            yield self._cut_frame(job, key, frame)

    def _cut_frame(self, job: _Job, key: int | str, frame: Frame) -> dict[str, Any]:
        rows = job.by_frame[key]
        crops, valid = crop_boxes(
            frame.pixels,
            np.array([row.box for row in rows]),
            color='rgb',
            margin=self.options.margin,
            min_side=self.options.min_side,
        )
        entries = []
        kept = [row for row, fine in zip(rows, valid, strict=True) if fine]
        for row, crop in zip(kept, crops, strict=True):
            vehicle = f'{job.files.name}_{row.track}'
            path = f'{vehicle}/{job.files.name}_{frame.number:06d}.jpg'
            with atomic_file(self.out / path, sync=False) as temporary:
                Image.fromarray(crop).save(temporary, 'JPEG', quality=_QUALITY, subsampling=0)  # vehicles are small
            xs, ys = row.box[::2], row.box[1::2]
            numbers = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys), row.score)
            time = '' if math.isnan(frame.time) else f'{frame.time:.3f}'
            shown = [f'{round(number, 4):.15g}' for number in numbers]
            entries.append([path, vehicle, job.files.name, frame.number, time, row.track, *shown])
        return {'sequence': job.files.name, 'key': key, 'crops': entries, 'skipped': len(rows) - len(kept)}

    def _finish(self, written: int) -> CropReport:
        self._read_journal()
        entries = [self.done[job.files.name, key] for job in self.jobs for key in sorted(job.by_frame, key=_order)]
        rows = sorted((row for entry in entries for row in entry['crops']), key=lambda row: row[0])
        if not rows:
            raise ValueError('no box is left: all lie outside of their frames or are smaller than the least side')
        with (
            atomic_file(self.out / TABLE) as temporary,
            temporary.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        counts = Counter(row[1] for row in rows)
        numbers = {
            'crops': len(rows),
            'vehicles': len(counts),
            'sequences': len({row[2] for row in rows}),
            'skipped': sum(entry['skipped'] for entry in entries),
        }
        content = {'settings': self.settings, 'counts': numbers}
        write_bytes(self.out / ABOUT, json.dumps(content, indent=2).encode())
        for vehicle in counts:
            remove_stale(self.out / vehicle)
        self.journal.unlink()
        return self._report(numbers, written)

    def _report(self, counts: dict[str, int], written: int) -> CropReport:
        firsts = {job.files.name: job.first for job in self.jobs if not job.files.frames.is_dir()}
        return CropReport(self.out / TABLE, **counts, written=written, first_frames=firsts)


def _order(key: int | str) -> tuple[bool, int, str]:
    return isinstance(key, str), key if isinstance(key, int) else 0, str(key)
