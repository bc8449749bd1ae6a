"""`timm-dpa zoo`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from .common import Command, read_recipe

__all__ = ['COMMAND']

_SETTING = re.compile(r'\w+\.[\w.]+=')


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='folder of runs and models; resumed if it is one'
    )
    parser.add_argument('--test', nargs='+', default=(), metavar='DATA', help='further data sets to evaluate models on')
    parser.add_argument('--models', nargs='+', metavar='PATTERN', help="such as 'dpa_*' (default: all of one depth)")
    parser.add_argument(
        '--depth', type=int, default=50, choices=(18, 50), help='of the default models (default %(default)s)'
    )
    parser.add_argument(
        '--recipe',
        default='rendered/flagship',
        metavar='NAME',
        help='see timm-dpa recipes (default rendered/flagship: from random weights, for a GPU)',
    )
    parser.add_argument(
        '--init', metavar='SOURCE', help='weights of the backbone: imagenet, a file, ARCHITECTURE.TAG, or none'
    )
    parser.add_argument('--tag', metavar='TAG', help='tag of the models (default: names of recipe and data)')
    parser.add_argument('--license', metavar='ID', help='license of the weights; needed unless all data are synthetic')
    parser.add_argument(
        'settings',
        nargs='*',
        metavar='KEY=VALUE',
        help='changes of the recipe; only the last epoch is evaluated unless run.evaluate_every says otherwise',
    )


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.catalog import match_models
    from timm_dpa.hub.release import check_family, release_member
    from timm_dpa.train.zoo import train_family

    models, tests = ([word for word in words or () if not _SETTING.match(word)] for words in (args.models, args.test))
    # argparse gives the settings that follow an option with several values to it
    settings = [word for word in (*(args.models or ()), *args.test) if _SETTING.match(word)]
    recipe = read_recipe(args, ['run.evaluate_every=0', *settings, *args.settings])
    tag = args.tag or re.sub('[^a-z0-9]+', '_', f'{Path(args.recipe).stem}_{Path(args.data).stem}'.lower()).strip('_')
    chosen = match_models(*(models or [f'*_resnet{args.depth}']))
    check_family(chosen, recipe, args.data, tag, args.license)
    releases = [
        release_member(run, tag, Path(args.out), results, args.license)
        for _, run, results in train_family(chosen, recipe, args.data, args.out, tests=tests)
    ]
    for release in releases:
        scores = [f', {key} {release.metrics[0][key]:.2f} %' for key in ('mAP', 'Rank-1') if release.metrics]
        print(f'{release.name}: {release.size / 1e6:.1f} MB{"".join(scores)}')
    if releases:
        print(f'manifest: {Path(args.out) / "weights.json"}')
        print(f'models: {Path(args.out) / "models"}')


COMMAND = Command(
    'zoo',
    'train a family of models by one recipe, and write their folders and a manifest; rerun the command to resume',
    'timm-dpa zoo --data rendered --test street --out zoo                          # on a GPU\n'
    '  timm-dpa zoo --data rendered --out zoo --init dpa_resnet50.rendered          # all from one trunk\n'
    '  timm-dpa zoo --data rendered --out zoo --recipe rendered/cpu --depth 18\n'
    '  timm-dpa publish --all --zoo zoo --org ORG',
    _add_arguments,
    _run,
    resumable=True,
)
