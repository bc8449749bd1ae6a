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

from ..recipes.recipe import Recipe
from ..run.distributed import joined_processes
from ..run.log import table_bytes
from ..run.trainer import train

__all__ = ['TABLES', 'Row', 'ablate']

_logger = logging.getLogger(__name__)

_METRICS = ('mAP', 'rank1', 'rank5', 'mINP')
_HEADINGS = ('mAP', 'Rank-1', 'Rank-5', 'mINP')


@dataclass(frozen=True)
class Row:
    """A row of a table of the paper.

    Attributes:
        name: as the paper has it.
        paper: mAP, Rank-1, Rank-5 and mINP on VeRi-UAV in %, as printed there.
        attention: prefix of the model's name.
        stages: stages that end with the attention; None for the model's own, 3.
        loss: metric loss.
        hours: training time that the paper gives.
    """

    name: str
    paper: tuple[float, float, float, float]
    attention: str = 'dpa'
    stages: tuple[int, ...] | None = None
    loss: str | None = None
    hours: float | None = None


_BASELINE = (79.25, 95.96, 98.12, 49.29)
_DPA = (81.74, 96.59, 98.48, 51.56)
#: Guo et al. 2024, tables 3 to 6; Conv3_x is stage 2, Conv4_x stage 3, Conv5_x stage 4
TABLES: dict[str, tuple[str, tuple[Row, ...]]] = {
    'table3': (
        'Table 3: parts of the DpA module',
        (
            Row('Baseline', _BASELINE, 'reid'),
            Row('Baseline+CpA', (80.87, 96.32, 98.21, 49.88), 'cpa'),
            Row('Baseline+SpA', (79.92, 96.50, 98.21, 48.97), 'spa'),
            Row('Baseline+DpA', _DPA),
        ),
    ),
    'table4': (
        'Table 4: attention modules',
        (
            Row('Baseline', _BASELINE, 'reid'),
            Row('Baseline+SE', (79.89, 96.14, 98.48, 49.71), 'se'),
            Row('Baseline+Non-local', (78.85, 96.50, 98.21, 47.42), 'nl'),
            Row('Baseline+CBAM', (78.69, 96.23, 97.85, 48.17), 'cbam'),
            Row('Baseline+CA', (79.58, 96.23, 98.21, 47.01), 'ca'),
            Row('Baseline+DpA', _DPA),
        ),
    ),
    'table5': (
        'Table 5: places of the DpA module',
        (
            Row('No. 0: none', _BASELINE, 'reid', hours=0.70),
            Row('No. 1: Conv3_x', (79.71, 96.23, 98.21, 49.35), stages=(2,), hours=0.84),
            Row('No. 2: Conv4_x', _DPA, stages=(3,), hours=0.81),
            Row('No. 3: Conv5_x', (78.94, 96.41, 98.12, 48.64), stages=(4,), hours=1.10),
            Row('No. 4: Conv3_x, Conv4_x', (78.34, 96.41, 98.39, 46.84), stages=(2, 3), hours=1.00),
            Row('No. 5: Conv3_x, Conv5_x', (78.87, 96.23, 97.76, 47.58), stages=(2, 4), hours=1.32),
            Row('No. 6: Conv4_x, Conv5_x', (79.57, 96.50, 98.39, 47.75), stages=(3, 4), hours=1.27),
        ),
    ),
    'table6': (
        'Table 6: metric losses',
        (
            Row('DpA+Circle', (72.29, 95.43, 97.67, 38.05), loss='circle'),
            Row('DpA+MS', (72.64, 95.43, 97.58, 38.31), loss='multi_similarity'),
            Row('DpA+SupCon', (74.91, 97.13, 98.12, 39.04), loss='supcon'),
            Row('DpA+HMT', _DPA, loss='triplet'),
        ),
    ),
}


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
    that was interrupted goes on, and rows of several tables that are the same run share it. A run whose loss diverges
    is marked, and the others go on.

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
                if not (folder / 'evaluation.json').is_file():
                    raise ValueError(f'{root}: has no test images, which a table of results needs')
                content = json.loads((folder / 'evaluation.json').read_text(encoding='utf-8'))
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
    headings = [f'{name} (%)' for name in _HEADINGS] + ['train (min)'] * with_time
    headings += [f'paper {name}' for name in _HEADINGS] + ['paper train (h)'] * with_time
    lines = [
        f'# {title}',
        '',
        f'Measured on `{root.name}` with ResNet-{depth}, after the last of {recipe.schedule.epochs} epochs; '
        'the paper: VeRi-UAV, ResNet-50, 60 epochs.',
        '',
        '| Method | runs | ' + ' | '.join(headings) + ' |',
        '|---|---:|' + '---:|' * len(headings),
    ]
    for row, here in done:
        if here.metrics:
            cells = [_percent(here.mean(key), here.deviation(key), len(here.metrics)) for key in _METRICS]
            cells += [f'{np.mean(here.minutes):.1f}'] * with_time
        else:
            cells = [here.problem or '-'] * (len(_METRICS) + with_time)
        cells += [f'{value:.2f}' for value in row.paper]
        cells += ['-' if row.hours is None else f'{row.hours:.2f}'] * with_time
        runs = f'{len(here.metrics)}' + (f' ({here.problem} besides)' if here.problem and here.metrics else '')
        lines.append(f'| {row.name} | {runs} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


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
