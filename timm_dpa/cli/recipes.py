"""`timm-dpa recipes`."""

from __future__ import annotations

import argparse

from .common import Command

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('name', nargs='?', metavar='NAME', help='recipe to print, with all its defaults')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.train.recipes.recipe import list_recipes, load_recipe

    print(load_recipe(args.name).as_yaml() if args.name else '\n'.join(list_recipes()))


COMMAND = Command('recipes', 'list the recipes, or print one', 'timm-dpa recipes paper/veri_uav', _add_arguments, _run)
