"""The metrics and the ablation tables of the paper. This module imports nothing heavy, so that a command's help can
list them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ['METRICS', 'TABLES', 'Row']

#: key in `evaluation.json` and `metrics.csv` -> name in tables, in the order of the paper
METRICS = {'mAP': 'mAP', 'rank1': 'Rank-1', 'rank5': 'Rank-5', 'rank10': 'Rank-10', 'mINP': 'mINP'}


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
