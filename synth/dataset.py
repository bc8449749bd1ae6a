"""A rendered data set on disk, in VeRi-UAV's layout: planned from a seed, rendered by several processes, resumable."""

from __future__ import annotations

import csv
import json
import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub.utils import tqdm

from timm_dpa.files import atomic_file, remove_stale
from timm_dpa.train.data.provenance import ABOUT_FILE, write_about

from .images import IMAGE_COLUMNS, TRACK_COLUMNS
from .plan import FOLDERS, Plan
from .workers import WORK, Rows, count_cores, render_vehicles

__all__ = ['Plan', 'render_data_set']

_VERSION = 2  # version of the renderer; must be raised when the same plan gives other images
_SETTINGS = 'synth.json'


def render_data_set(
    out: str | os.PathLike[str], plan: Plan, *, workers: int | None = None, progress: bool | None = None
) -> Path:
    """Render a data set, or what is missing of it.

    The folder gets `image_train/`, `image_query/` and `image_test/` with JPEGs `<vehicle>_<camera>_<number>.jpg`,
    `vehicles.csv` (all attributes), `images.csv` (camera, box, what hides the vehicle), `synth.json` (the plan) and, as
    the last file, `dataset.json`.

    Args:
        out: folder to create, or to complete.
        plan: what to render.
        workers: number of processes; None for one per core. The files do not depend on it.
        progress: whether to show a progress bar; None to show one on a terminal.

    Returns:
        The folder.

    Raises:
        ValueError: `workers` is less than 1.
        FileExistsError: `out` holds something else, or a data set of another plan or version of the renderer.
        BrokenProcessPool: a process was killed; finished vehicles stay.
    """
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1, not {workers}')
    out = Path(out)
    rows = _open(out, plan)
    missing = [
        n for n in range(plan.ids) if n not in rows or not all(_is_written(out / path) for _, _, path in plan.shots(n))
    ]
    if not missing and (out / ABOUT_FILE).is_file():
        return out
    (out / ABOUT_FILE).unlink(missing_ok=True)
    for folder in (out, *(out / name for name in (*FOLDERS.values(), WORK))):
        folder.mkdir(exist_ok=True)
        remove_stale(folder)
    workers = min(workers or count_cores(), max(1, len(missing)))
    bar = tqdm(
        total=plan.ids * plan.images_per_id,
        initial=(plan.ids - len(missing)) * plan.images_per_id,
        unit='image',
        desc='rendering',
        smoothing=0.05,
        disable=None if progress is None else not progress,
    )
    with bar, closing(render_vehicles(out, plan, missing, workers)) as finished:
        for number, found in finished:
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
    for path in (out / WORK).iterdir():
        path.unlink()
    (out / WORK).rmdir()
    return out


def _open(out: Path, plan: Plan) -> dict[int, Rows]:
    """Create the folder, or check its plan; returns the rows of `images.csv` of the vehicles that are finished."""
    settings = json.loads(json.dumps({'version': _VERSION, **asdict(plan)}))
    if not plan.tracks:
        del settings['tracks']  # folders from before there were tracks do not have it
    if (out / _SETTINGS).is_file():
        _check_settings(out, settings)
    elif out.exists() and (not out.is_dir() or any(not path.name.startswith(WORK) for path in out.iterdir())):
        raise FileExistsError(f'{out} exists and is no rendered data set; name a new or empty folder')
    else:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        with atomic_file(out / _SETTINGS) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8', newline='')
    rows: dict[int, Rows] = {}
    if (out / 'images.csv').is_file():
        with open(out / 'images.csv', encoding='utf-8', newline='') as table:
            for row in list(csv.reader(table))[1:]:
                rows.setdefault(int(row[1]), []).append(row)
    for path in (out / WORK).glob('*.json'):
        if _is_written(path):
            rows[int(path.stem)] = json.loads(path.read_text(encoding='utf-8'))
    return rows


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raise FileExistsError unless a folder has these settings."""
    try:
        before = dict(json.loads((out / _SETTINGS).read_text(encoding='utf-8')))
    except (ValueError, TypeError):
        before = {}
    if before.get('clean') is False:
        del before['clean']  # a setting of older folders that no command could change
    if before.get('version') != _VERSION:
        raise FileExistsError(
            f'{out} was rendered by version {before.get("version", "?")} of the renderer, and version {_VERSION} '
            'gives other images; name another folder, or delete this one'
        )
    if before != settings:
        changed = ', '.join(k for k in {**settings, **before} if before.get(k) != settings.get(k)) or _SETTINGS
        raise FileExistsError(f'{out} holds a data set with another {changed}; name another folder, or delete this one')


def _is_written(path: Path) -> bool:
    """Return whether a file exists and is not empty; a power cut can leave its name without its content."""
    return path.is_file() and path.stat().st_size > 0


def _write_tables(out: Path, plan: Plan, rows: dict[int, Rows]) -> None:
    test = plan.test_models()
    vehicles = []
    for identity in map(plan.identity, range(plan.ids)):
        vehicles.append({**identity.row(), 'part': 'test' if identity.model.number in test else 'train'})
    tables = {
        'vehicles.csv': [list(vehicles[0]), *(list(v.values()) for v in vehicles)],
        'images.csv': [
            [*IMAGE_COLUMNS, *(TRACK_COLUMNS if plan.tracks else ())],
            *(row for number in sorted(rows) for row in rows[number]),
        ],
    }
    for name, lines in tables.items():
        with atomic_file(out / name) as temporary, open(temporary, 'w', encoding='utf-8', newline='') as table:
            csv.writer(table, lineterminator='\n').writerows(lines)
