"""The paper's ablation tables: every row trained, measured, and set beside the paper's numbers."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from timm_dpa.files import write_bytes
from timm_dpa.tables import format_table

from ..recipes.recipe import Recipe
from ..run.distributed import joined_processes
from ..run.folder import RunFolder
from ..run.log import table_bytes
from ..run.trainer import train
from .tables import METRICS, TABLES, Row

__all__ = ['ablate']

_logger = logging.getLogger(__name__)

#: those of the paper's tables
_METRICS = {key: name for key, name in METRICS.items() if key != 'rank10'}


@dataclass
class _Measured:
    """Finished runs of a row, over the seeds."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    cmc: list[list[float]] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    problem: str = ''

    def mean(self, key: str) -> float:
        return float(np.mean([run[key] for run in self.metrics]))

    def deviation(self, key: str) -> float:
        values = [run[key] for run in self.metrics]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def ablate(
    table: str,
    recipe: Recipe,
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seeds: int = 1,
    depth: int | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Train every row of a table of the paper, and write what was measured beside what the paper says.

    Each model is evaluated once, after its last epoch: no row is chosen by its score. Finished runs are kept, the one
    that was interrupted is resumed, and rows of several tables that are the same run share it. A run whose loss
    diverges is marked, and the others continue.

    Args:
        table: `'table3'` (parts), `'table4'` (attentions), `'table5'` (places), `'table6'` (metric losses), or `'all'`.
        recipe: what all rows share; what the table varies is replaced.
        root: of the data.
        out: folder; a run is in `<row>/seed<k>`, such as `dpa_stages_2_3/seed0`.
        seeds: runs of each row, with the seeds `recipe.run.seed`, + 1, ...
        depth: of the ResNet, 18 or 50; None for that of the recipe's model.
        progress: show bars; None shows them on a terminal only.

    Returns:
        `<table>.md`, `<table>.csv` and `<table>.png`, the CMC curves (without matplotlib no figure), of each table.

    Raises:
        ValueError: unknown table, no seeds, a recipe whose model is not one of ours, or what `train` raises.
        RuntimeError: no run came to its end.
    """
    if table not in (*TABLES, 'all'):
        raise ValueError(f'unknown table {table!r}; choose {", ".join(TABLES)}, or all')
    if seeds < 1:
        raise ValueError(f'seeds must be at least 1, not {seeds}')
    out = Path(out)
    tables = list(TABLES) if table == 'all' else [table]
    depth = depth or _depth(recipe)
    rows = {_slug(row, recipe): row for name in tables for row in TABLES[name][1]}
    measured = {slug: _Measured() for slug in rows}

    def write(slugs: Iterable[str], figure: bool = False) -> list[Path]:
        chosen = [name for name in tables if {_slug(row, recipe) for row in TABLES[name][1]} & set(slugs)]
        return [path for name in chosen for path in _write(out, name, measured, recipe, Path(root), depth, figure)]

    with joined_processes(recipe.run.device) as processes:  # once: a group cannot be left and joined again
        # all rows with one seed before the next: an early table has every row
        for seed in range(recipe.run.seed, recipe.run.seed + seeds):
            for slug, row in rows.items():
                folder = out / slug / f'seed{seed}'
                if processes.is_main:
                    print(f'{row.name}, seed {seed}: {folder}', flush=True)
                here = measured[slug]
                try:
                    result = train(_recipe_of(row, recipe, depth, seed), root, folder, progress)
                except FloatingPointError as error:
                    if processes.world_size > 1:
                        raise  # the others wait in the middle of a step
                    _logger.warning('%s: %s', folder, error)
                    here.problem = 'diverged'
                    continue
                if not processes.is_main:
                    continue
                content = RunFolder(folder).read_evaluation()
                if content is None:
                    raise ValueError(f'{root}: has no test images, which a table of results needs')
                here.metrics.append(content['metrics'])
                here.cmc.append(content['cmc'])
                here.minutes.append(result.seconds / 60)
                here.settings = content['settings']
                write([slug])
    if not processes.is_main:
        return []
    if not any(here.metrics for here in measured.values()):
        raise RuntimeError(f'{out}: every run diverged; see the logs there, and try a smaller optim.lr')
    return write(rows, figure=True)


def _slug(row: Row, recipe: Recipe) -> str:
    """Name of the folder of a row's runs: rows with one name are one run."""
    stages = '' if row.stages in (None, (3,)) else '_stages_' + '_'.join(map(str, row.stages))
    loss = '' if row.loss in (None, recipe.loss.metric) else f'_{row.loss}'
    return f'{row.attention}{stages}{loss}'


def _depth(recipe: Recipe) -> int:
    match = re.search(r'_resnet(18|50)(\.|$)', recipe.model.name)
    if match is None:
        raise ValueError(
            f'model.name={recipe.model.name}: the tables compare attentions of our ResNets; use dpa_resnet18 or 50'
        )
    return int(match[1])


def _recipe_of(row: Row, recipe: Recipe, depth: int, seed: int) -> Recipe:
    values = recipe.as_dict()
    values['model']['name'] = f'{row.attention}_resnet{depth}'
    if row.stages not in (None, (3,)):
        values['model']['args']['attn_stages'] = list(row.stages)
    if row.loss is not None and row.loss != recipe.loss.metric:
        values['loss'].update(metric=row.loss, metric_args={})
    values['run'].update(seed=seed, evaluate_every=0)
    return Recipe.from_dict(values)


def _write(
    out: Path, table: str, measured: dict[str, _Measured], recipe: Recipe, root: Path, depth: int, figure: bool
) -> Iterator[Path]:
    title, rows = TABLES[table]
    done = [(row, measured[_slug(row, recipe)]) for row in rows]
    with_time = any(row.hours is not None for row in rows)
    for path, content in (
        (out / f'{table}.md', _markdown(title, done, recipe, root, depth, with_time).encode()),
        (out / f'{table}.csv', table_bytes([_csv_row(row, here) for row, here in done])),
    ):
        write_bytes(path, content)
        yield path
    if figure:
        yield from _figure(out, table, done, recipe)


def _figure(out: Path, table: str, done: list[tuple[Row, _Measured]], recipe: Recipe) -> Iterator[Path]:
    curves = []
    for row, here in done:
        if not here.metrics:
            continue
        path = out / _slug(row, recipe) / 'evaluation.json'
        content = {
            'name': row.name,
            'metrics': {key: here.mean(key) for key in here.metrics[0]},
            'deviation': {key: here.deviation(key) for key in here.metrics[0]},
            'settings': here.settings,
            'cmc': np.mean(here.cmc, axis=0).round(6).tolist(),
        }
        write_bytes(path, json.dumps(content, indent=2).encode())
        curves.append((row.name, path))
    try:
        from ..figures.curves import cmc_figure

        yield cmc_figure(curves, out / f'{table}.png')
    except ImportError:
        _logger.warning("no figure: pip install 'timm-dpa[train]'")


def _markdown(
    title: str, done: list[tuple[Row, _Measured]], recipe: Recipe, root: Path, depth: int, with_time: bool
) -> str:
    headings = ['Method', 'runs', *(f'{name} (%)' for name in _METRICS.values()), *['train (min)'] * with_time]
    headings += [f'paper {name}' for name in _METRICS.values()] + ['paper train (h)'] * with_time
    lines = [headings]
    for row, here in done:
        if here.metrics:
            cells = [_percent(here.mean(key), here.deviation(key), len(here.metrics)) for key in _METRICS]
            cells += [f'{np.mean(here.minutes):.1f}'] * with_time
        else:
            cells = [here.problem or '-'] * (len(_METRICS) + with_time)
        cells += [f'{value:.2f}' for value in row.paper]
        cells += ['-' if row.hours is None else f'{row.hours:.2f}'] * with_time
        runs = f'{len(here.metrics)}' + (f' ({here.problem} besides)' if here.problem and here.metrics else '')
        lines.append([row.name, runs, *cells])
    table = format_table(lines, numeric=range(1, len(headings)), markdown=True)
    epochs = recipe.schedule.epochs
    return (
        f'# {title}\n\nMeasured on `{root.name}` with ResNet-{depth}, after the last of {epochs} epochs; '
        f'the paper: VeRi-UAV, ResNet-50, 60 epochs.\n\n{table}\n'
    )


def _percent(mean: float, deviation: float, runs: int) -> str:
    return f'{100 * mean:.2f}' + (f' ± {100 * deviation:.2f}' if runs > 1 else '')


def _csv_row(row: Row, here: _Measured) -> dict[str, Any]:
    values: dict[str, Any] = {'method': row.name, 'runs': len(here.metrics), 'problem': here.problem}
    for key in _METRICS:
        values[key] = 100 * here.mean(key) if here.metrics else ''
        values[f'{key}_deviation'] = 100 * here.deviation(key) if len(here.metrics) > 1 else ''
    values['train_minutes'] = float(np.mean(here.minutes)) if here.minutes else ''
    values |= {f'paper_{key}': value for key, value in zip(_METRICS, row.paper, strict=True)}
    values['paper_train_hours'] = '' if row.hours is None else row.hours
    return values
