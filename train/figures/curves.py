"""Figures of numbers: CMC curves of several evaluations (fig. 5 of the paper), and the course of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data.protocols import DRAWN_PROTOCOLS
from ..evaluation.tables import METRICS
from ..run.folder import RunFolder
from ..run.log import read_table
from .canvas import check_figure_path, new_figure, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ['cmc_figure', 'run_figures']

# Okabe and Ito, "Color Universal Design": told apart with any color vision; without its yellow, too light on white
_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#000000', '#56b4e9', '#e69f00')
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>', '*')
_LINES = ('-', '--', '-.', (0, (1, 1.2)))
_GRAY = '#666666'


def cmc_figure(runs: Sequence[tuple[str, Path]], out: Path, max_rank: int = 20) -> Path:
    """Draw the CMC curves of several evaluations into one plot; the legend lists them by Rank-1, the best first.

    Args:
        runs: name and place of each: a folder with the `evaluation.json` of `write_evaluation`, or such a file. An
            empty name stands for the one in the file.
        out: `.png`, `.svg` or `.pdf`.
        max_rank: last rank, from 2 to the length of the curves.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: a run that was not evaluated.
        ValueError: no run, another suffix, a damaged file, a curve that is too short, or evaluations whose protocol,
            queries, gallery or draws differ: such curves side by side would compare data, not models.
        ImportError: matplotlib is missing.
        OSError: the figure cannot be written.
    """
    out = check_figure_path(out)
    if not runs:
        raise ValueError('runs is empty; name at least one evaluation')
    if max_rank < 2:
        raise ValueError(f'max_rank must be at least 2, not {max_rank}')
    curves = [_read_evaluation(name, Path(path)) for name, path in runs]
    for curve in curves:
        if len(curve.cmc) < max_rank:
            raise ValueError(f'max_rank={max_rank}: the curve of {curve.file} ends at rank {len(curve.cmc)}')
        for key, value in curves[0].conditions.items():
            if curve.conditions[key] != value:
                raise ValueError(
                    f'{curves[0].file} and {curve.file} cannot be compared: {key} is {value} in the one, '
                    f'{curve.conditions[key]} in the other; evaluate both alike'
                )

    order = sorted(range(len(curves)), key=lambda k: (-curves[k].rank1, -curves[k].mean_ap))
    labels = ['Rank-1 / mAP, in %'] + [
        f'{_percent(curves[k].rank1)} / {_percent(curves[k].mean_ap)}   {shortened(curves[k].name, 34)}' for k in order
    ]
    # room for the legend beside the axes, where it hides no curve
    figure = new_figure(6.4 + 0.5 + 0.085 * max(map(len, labels)), 4.4, layout='constrained')
    axes = figure.add_subplot()
    ranks = np.arange(1, max_rank + 1)
    lines = [
        axes.plot(ranks, 100 * curve.cmc[:max_rank], **_style(k), markevery=-(-max_rank // 25), clip_on=False)[0]
        for k, curve in enumerate(curves)
    ]
    _in_percent(axes)
    axes.set(xlabel='rank', ylabel='matching rate in %', xlim=(1, max_rank))
    axes.set_xticks(ranks if max_rank <= 20 else [1, *range(5, max_rank + 1, 5)])
    axes.set_title(_describe(curves[0].conditions), fontsize=9, color=_GRAY, loc='left')
    heading = axes.plot([], [], linestyle='none')
    legend = figure.legend(
        [*heading, *(lines[k] for k in order)],
        labels,
        loc='outside right upper',
        frameon=False,
        handlelength=3.2,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return save_figure(figure, out)


class _Curve(NamedTuple):
    """An evaluation: of the model `name`, its CMC in 0..1, and what it was measured on."""

    name: str
    file: Path
    cmc: np.ndarray
    rank1: float
    mean_ap: float
    conditions: dict[str, Any]


def _read_evaluation(name: str, path: Path) -> _Curve:
    file = path / 'evaluation.json' if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        settings, metrics = content['settings'], content['metrics']
        conditions = {key: settings[key] for key in ('protocol', 'same_camera_excluded', 'gallery')}
        conditions['queries'] = int(metrics['valid_queries'])
        conditions['query_identities'] = settings.get('query_identities')
        if conditions['protocol'] in DRAWN_PROTOCOLS:
            conditions |= {key: settings.get(key) for key in ('seed', 'draws')}
        cmc = np.array(content['cmc'], float)
        tricks = {'rerank': 're-ranked', 'expand': 'expanded', 'flip': 'flip'}
        label = ', '.join([name or content['name'], *(text for key, text in tricks.items() if settings.get(key))])
        curve = _Curve(label, file, cmc, float(metrics['rank1']), float(metrics['mAP']), conditions)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{file}: no such file; timm-dpa eval writes it') from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f'no {error}' if isinstance(error, KeyError) else error
        raise ValueError(f'{file}: not an evaluation as timm-dpa eval writes it ({reason})') from error
    if cmc.ndim != 1 or not ((cmc >= 0) & (cmc <= 1)).all():
        raise ValueError(f'{file}: cmc is not a list of numbers in 0..1')
    return curve


def _describe(conditions: dict[str, Any]) -> str:
    text = f'protocol {conditions["protocol"]}: {conditions["queries"]} queries, gallery of {conditions["gallery"]}'
    return text + (', same camera excluded' if conditions['same_camera_excluded'] else '')


def _style(k: int) -> dict[str, Any]:
    """Of the k-th curve: with its own marker, it is known in black and white, too."""
    return {
        'color': _COLORS[k % len(_COLORS)],
        'marker': _MARKERS[k % len(_MARKERS)],
        'linestyle': _LINES[k % len(_LINES)],
        'markersize': 5,
        'markerfacecolor': 'white' if k % 2 else _COLORS[k % len(_COLORS)],
        'linewidth': 1.5,
    }


def _in_percent(axes: Axes) -> None:
    """Limits that show the differences, and never go below 0 or above 100."""
    low, high = axes.get_ylim()
    if high - low < 2:  # of equal curves
        low, high = low - 1, high + 1
    axes.set_ylim(max(low, 0), min(high, 100))
    _grid(axes)


def _grid(axes: Axes) -> None:
    axes.grid(color='#dddddd', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def _percent(share: float) -> str:
    return f'{100 * share:6.2f}'.replace(' ', '\u2007')  # a space as wide as a digit


# --- a run ------------------------------------------------------------------------------------------------------------


def run_figures(folder: Path) -> list[Path]:
    """Draw what the folder of a run has numbers for, into `figures/` below it.

    `training.png`: the loss with its parts and the learning rate over the steps, and the metrics over the epochs;
    `cmc.png`: the curve of its `evaluation.json`.

    Returns:
        The files; none where there are no numbers yet.

    Raises:
        ValueError: a damaged table or evaluation.
        ImportError: matplotlib is missing.
        OSError: a figure cannot be written.
    """
    run = RunFolder(folder)
    steps, epochs = _read_numbers(run.steps), _read_numbers(run.metrics)
    written = []
    if steps or epochs:
        written.append(_training_figure(steps, epochs, run.figures / 'training.png'))
    if run.evaluation.is_file():
        written.append(cmc_figure([('', run.evaluation)], run.figures / 'cmc.png'))
    return written


def _read_numbers(path: Path) -> dict[str, np.ndarray]:
    """Columns of a table, NaN where one has no number; none of a table without rows."""
    rows = read_table(path)
    try:
        return {key: np.array([float(row[key] or 'nan') for row in rows]) for key in (rows[0] if rows else ())}
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers ({error})') from error


def _training_figure(steps: dict[str, np.ndarray], epochs: dict[str, np.ndarray], out: Path) -> Path:
    scores = [(key, METRICS[key]) for key in ('mAP', 'rank1', 'mINP') if key in epochs]
    figure = new_figure(10 if steps and scores else 5.6, 4.6, layout='constrained')
    parts: Any = figure.subfigures(1, 2) if steps and scores else [figure, figure]
    if steps:
        loss, rate = parts[0].subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        losses = [key for key in steps if key not in ('step', 'epoch', 'lr', 'images_per_second')]
        for k, key in enumerate(losses):
            whole = key == 'loss'
            style = {'color': '#000000', 'linewidth': 1.8} if whole else {'color': _COLORS[k - 1], 'linewidth': 1.2}
            marker = _MARKERS[k] if len(steps['step']) <= 30 else None
            loss.plot(
                steps['step'],
                steps[key],
                label=key if whole or len(losses) == 1 else f'{key} part',
                linestyle=_LINES[k % len(_LINES)],
                marker=marker,
                markersize=4,
                **style,
            )
        loss.set_ylabel('loss')
        loss.legend(frameon=False, fontsize=9)
        rate.plot(steps['step'], steps['lr'], color=_COLORS[0], marker='.' if len(steps['step']) <= 30 else None)
        rate.set(xlabel='step', ylabel='learning rate', ylim=(0, None))
        rate.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
        for axes in (loss, rate):
            _grid(axes)
    if scores:
        axes = parts[1].subplots()
        for k, (key, label) in enumerate(scores):
            axes.plot(epochs['epoch'], 100 * epochs[key], label=label, **_style(k), clip_on=False)
        _in_percent(axes)
        axes.locator_params('x', integer=True)
        axes.set(xlabel='epoch', ylabel='of the test images, in %')
        if np.isfinite(epochs['mAP']).any():
            best = np.nanargmax(epochs['mAP'])
            text = f'best mAP: {100 * epochs["mAP"][best]:.2f} % after epoch {epochs["epoch"][best]:.0f}'
            axes.set_title(text, fontsize=9, color=_GRAY, loc='left')
        axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, out)
