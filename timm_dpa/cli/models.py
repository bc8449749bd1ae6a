"""`timm-dpa models`."""

from __future__ import annotations

import argparse

from .common import Command

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('pattern', nargs='?', default='*', help='names to list, with * and ? (default: all)')
    parser.add_argument('--markdown', action='store_true', help='print a Markdown table')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.catalog import zoo_table

    print(zoo_table(args.pattern, markdown=args.markdown))


COMMAND = Command('models', 'list the models', "timm-dpa models 'dpa_*'", _add_arguments, _run)
