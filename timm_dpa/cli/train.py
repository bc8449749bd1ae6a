"""`timm-dpa train`."""

from __future__ import annotations

import argparse
import os

from .common import Command, read_recipe

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='run folder; resumed if it holds a run')
    parser.add_argument('--recipe', default='strong', metavar='NAME', help='see timm-dpa recipes (default %(default)s)')
    parser.add_argument('--model', metavar='NAME', help='one of our models, or any timm backbone')
    parser.add_argument(
        '--init',
        metavar='SOURCE',
        help='weights of the backbone: imagenet, a file, ARCHITECTURE.TAG, org/name on the Hub, or none',
    )
    parser.add_argument('--checkpoint', metavar='PATH', help='fine-tune these weights of the model: file or run folder')
    parser.add_argument('settings', nargs='*', metavar='KEY=VALUE', help='changes of the recipe, such as optim.lr=1e-4')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.train.run.fine_tuning import comparison_table
    from timm_dpa.train.run.folder import RunFolder
    from timm_dpa.train.run.trainer import train

    result = train(read_recipe(args, args.settings), args.data, args.out)
    if int(os.environ.get('RANK', '0')):
        return
    if result.finished_before:
        print(f'was finished before: {result.epochs} epochs, {result.steps} steps')
        if result.comparison is not None:  # else the log has just said it
            print(comparison_table(*result.comparison))
    print(f'model: {RunFolder(result.folder).model}')
    print(f'run: {result.folder}')


COMMAND = Command(
    'train',
    'train or fine-tune a model; rerun the command to resume',
    'timm-dpa train --recipe strong --data crops/ --out runs/first schedule.epochs=30\n'
    '  torchrun --nproc-per-node 4 -m timm_dpa.cli train --recipe paper/vru --data VRU --out runs/vru',
    _add_arguments,
    _run,
    resumable=True,
)
