"""`timm-dpa models`."""

from __future__ import annotations

import argparse

from .common import Command

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('pattern', nargs='?', default='*', help='names to list, with * and ? (default: all)')
    parser.add_argument(
        '--thresholds', action='store_true', help='list cosine thresholds of the released weights, by false-match rate'
    )
    parser.add_argument('--markdown', action='store_true', help='print a Markdown table')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.catalog import thresholds_table, zoo_table

    print((thresholds_table if args.thresholds else zoo_table)(args.pattern, markdown=args.markdown))


COMMAND = Command(
    'models', 'list the models', "timm-dpa models 'dpa_*'\n  timm-dpa models --thresholds", _add_arguments, _run
)
