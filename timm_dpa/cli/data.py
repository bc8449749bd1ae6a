"""`timm-dpa data check` and `timm-dpa data draw`."""

from __future__ import annotations

import argparse
import json

from timm_dpa.files import atomic_file

from .common import Command, add_data_options, read_data

__all__ = ['COMMAND']


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument('--quick', action='store_true', help='count only, open no image')
    parser.add_argument('--json', metavar='FILE', help='also write the report to this file')
    add_data_options(parser)


def _check(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.check import check_data

    report = check_data(read_data(args, args.root, warn=False), quick=args.quick)  # the report has the warnings
    print(report)
    if args.json:
        with atomic_file(args.json) as temporary:
            temporary.write_text(json.dumps(report.as_dict(), indent=2), encoding='utf-8', errors='backslashreplace')
        print(f'report: {args.json}')
    if not report.ready:
        raise ValueError(f'{args.root} is not ready, see above')


def _add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', metavar='ROOT', help='folder to make')
    parser.add_argument('--identities', type=int, default=64, metavar='N', help='vehicles (default %(default)s)')
    parser.add_argument(
        '--images', type=int, default=12, metavar='N', help='images of each vehicle (default %(default)s)'
    )


def _draw(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.toy import draw_data_set

    folder = draw_data_set(args.root, args.identities, args.images)
    print(f'toy data set of {args.identities} drawn vehicles (synthetic images), {args.images} images of each')
    print(f'data: {folder}')


COMMAND = Command(
    'data',
    'check a data set before training, or draw a toy data set to try things out',
    'timm-dpa data check crops/\n  timm-dpa data draw drawn --identities 64 --images 12',
    subcommands=(
        Command(
            'check',
            'report what a data set holds, and whether it is ready for use',
            'timm-dpa data check crops/',
            _add_check_arguments,
            _check,
        ),
        Command(
            'draw',
            'draw a toy data set (synthetic) to try things out',
            'timm-dpa data draw drawn --identities 64 --images 12',
            _add_draw_arguments,
            _draw,
        ),
    ),
)
