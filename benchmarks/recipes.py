"""Variants of the recipe `strong` on one data set: the measurements behind its choices.

    python benchmarks/recipes.py --data drawn --out runs/recipes [--seeds 1] [--only NAME]... [KEY=VALUE ...]

Each variant changes one thing. KEY=VALUE settings apply to all of them; rerun the same command to resume. The row is
that of the last epoch: nothing is selected on the test images.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from timm_dpa.train.recipes.recipe import load_recipe
from timm_dpa.train.run.trainer import train

VARIANTS: dict[str, list[str]] = {
    'strong': [],
    'triplet': ['loss.metric=triplet', 'loss.metric_feature=before_neck'],
    'triplet, hinge 0.3': [
        'loss.metric=triplet',
        'loss.metric_feature=before_neck',
        'loss.metric_args={margin: 0.3}',
    ],
    'triplet after the neck': ['loss.metric=triplet', 'loss.metric_feature=after_neck'],
    'circle': ['loss.metric=circle', 'loss.metric_feature=after_neck', 'loss.metric_args={scale: 64}'],
    'supcon': ['loss.metric=supcon', 'loss.metric_feature=after_neck'],
    'adam': ['optim.name=adam', 'optim.weight_decay=5e-4', 'optim.clip_grad=null'],
    'learning rate 1e-3': ['optim.lr=1e-3'],
    'rotation 180': ['augment.rotation=180'],
    'no erasing': ['augment.erasing=0'],
    'no EMA': ['run.ema=null'],
}
COLUMNS = ('mAP', 'rank1', 'mINP')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, default=1)
    parser.add_argument('--only', action='append', choices=VARIANTS, metavar='NAME')
    args, settings = parser.parse_known_args()
    rows = []
    for name in args.only or VARIANTS:
        for seed in range(args.seeds):
            out = args.out / f'{name.replace(", ", "_").replace(" ", "_")}_{seed}'
            train(load_recipe('strong', [*settings, *VARIANTS[name], f'run.seed={seed}']), args.data, out)
            last = list(csv.DictReader((out / 'metrics.csv').open()))[-1]
            rows.append((name, seed, *(f'{100 * float(last[key]):.1f}' for key in COLUMNS)))
    print('\n' + '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in [('variant', 'seed', *COLUMNS), *rows]))


if __name__ == '__main__':
    main()
