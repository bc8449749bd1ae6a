"""`timm-dpa ablate`."""

from __future__ import annotations

import argparse

from timm_dpa.train.evaluation.tables import TABLES

from .common import Command, read_recipe

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('table', choices=(*TABLES, 'all'), help='modules, attentions, places, metric losses, or all')
    parser.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder of all runs; resumed if it holds some')
    parser.add_argument('--recipe', default='paper/veri_uav', metavar='NAME', help='default paper/veri_uav')
    parser.add_argument('--epochs', type=int, metavar='N', help='epochs of each run (default: as in the recipe)')
    parser.add_argument('--seeds', type=int, default=1, metavar='N', help='runs of each row (default %(default)s)')
    parser.add_argument('--depth', type=int, choices=(18, 50), help='depth of the ResNet (default: as in the recipe)')
    parser.add_argument('--init', metavar='SOURCE', help='weights of the backbone: imagenet, a file, or none')
    parser.add_argument('settings', nargs='*', metavar='KEY=VALUE', help='changes of the recipe')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.train.evaluation.ablation import ablate

    settings = list(args.settings)
    if args.epochs is not None:
        settings.append(f'schedule.epochs={args.epochs}')
    recipe = read_recipe(args, settings)
    for path in ablate(args.table, recipe, args.data, args.out, seeds=args.seeds, depth=args.depth):
        print(f'{path.suffix[1:]}: {path}')


COMMAND = Command(
    'ablate',
    "run a table of the paper, and write its rows beside the paper's; rerun the command to resume",
    'timm-dpa ablate table4 --data VeRi-UAV --out runs/tables --seeds 3',
    _add_arguments,
    _run,
    resumable=True,
)
