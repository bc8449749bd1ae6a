"""What several commands share: their description, the options of a model and of a data set, and checks of file names.

Nothing here imports torch or numpy when it is imported, so that help and usage errors appear at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm_dpa.train.data.layouts import LAYOUTS, SUBSETS

if TYPE_CHECKING:
    from timm_dpa import FeatureExtractor
    from timm_dpa.train.data.datasets import ReIDData
    from timm_dpa.train.recipes.recipe import Recipe

__all__ = [
    'DEFAULT_MODEL',
    'Command',
    'add_commands',
    'add_data_options',
    'add_image_size',
    'add_model_options',
    'check_output',
    'extractor_settings',
    'image_size',
    'make_extractor',
    'model_label',
    'model_source',
    'read_data',
    'read_recipe',
]

DEFAULT_MODEL = 'dpa_resnet50'


@dataclass(frozen=True)
class Command:
    """A command of `timm-dpa`.

    Args:
        name: the word that the user types.
        summary: what it does, as the list of commands shows it.
        example: command lines that run as they are.
        add_arguments: adds the options to the parser of the command.
        run: does the work.
        subcommands: instead of `add_arguments` and `run`, for a command that takes another word.
        resumable: whether the same command line resumes an interrupted run.
    """

    name: str
    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    run: Callable[[argparse.Namespace], None] | None = None
    subcommands: tuple[Command, ...] = ()
    resumable: bool = False


def add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command], dest: str) -> None:
    """Add `commands` to `parser`; the name of the one that the user types goes to `dest`."""
    parsers = parser.add_subparsers(dest=dest, required=True, metavar='COMMAND')
    for command in commands:
        child = parsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + '.',
            epilog=f'example:\n  {command.example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        child.add_argument('--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if command.subcommands:
            add_commands(child, command.subcommands, 'action')
            continue
        assert command.add_arguments is not None
        command.add_arguments(child)
        child.set_defaults(command=command)


def add_image_size(parser: Any) -> None:
    parser.add_argument('--image-size', type=int, nargs='+', metavar='PX', help='side, or height and width, in pixels')


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('model')
    group.add_argument('--model', metavar='NAME', help=f'model name or run folder (default {DEFAULT_MODEL})')
    group.add_argument('--checkpoint', metavar='FILE', help='weights to load into the model')
    group.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps (default %(default)s)')
    group.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16'))
    group.add_argument(
        '--runtime',
        default='torch',
        choices=('torch', 'onnxruntime', 'openvino', 'auto'),
        help='what computes on a CPU; auto takes the fastest that is installed (default %(default)s)',
    )
    group.add_argument(
        '--batch-size', type=int, default=32, metavar='N', help='images in a batch (default %(default)s)'
    )
    add_image_size(group)
    group.add_argument('--workers', type=int, metavar='N', help='threads that decode images')
    group.add_argument('--max-pixels', type=int, metavar='N', help='largest image file to decode (default 179 million)')
    group.add_argument('--truncated', action='store_true', help='accept JPEG files whose end is missing')


def add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('data')
    layouts = ('auto', *LAYOUTS)
    group.add_argument('--layout', default='auto', choices=layouts, help='layout of the folder (default %(default)s)')
    group.add_argument(
        '--subset',
        default='small',
        choices=SUBSETS,
        help='test part of VRU, VehicleID or VERI-Wild (default %(default)s)',
    )
    group.add_argument(
        '--test-fraction',
        type=float,
        default=0.3,
        metavar='F',
        help='identities held out where the data set has no split of its own; 1 tests on all (default 0.3)',
    )


def read_data(args: argparse.Namespace, root: str, warn: bool = True) -> ReIDData:
    """Load the data set at `root` with the options of `add_data_options`."""
    from timm_dpa.train.data.datasets import load_data

    return load_data(root, args.layout, test_fraction=args.test_fraction, subset=args.subset, warn=warn)


def image_size(values: list[int] | None) -> tuple[int, int] | None:
    """Height and width from the values of `--image-size`."""
    if values is None:
        return None
    if len(values) > 2:
        raise ValueError('--image-size takes a side, or a height and a width')
    return (values[0], values[-1])


def model_source(name: str) -> str:
    """The name that timm knows a model by: a run folder, or the folder of its model, becomes `local-dir:folder`."""
    if not os.path.isdir(name):
        return name
    from timm_dpa.embedding import models

    return models.model_source(Path(name))


def model_label(name: str) -> str:
    """What tables and figures call a model or run."""
    return Path(name).resolve().name if os.path.isdir(name) else name


def read_recipe(args: argparse.Namespace, settings: Sequence[str]) -> Recipe:
    """The recipe with the options, then the settings, applied."""
    from timm_dpa.train.recipes.recipe import load_recipe

    options = []
    for option, key in (('model', 'model.name'), ('init', 'model.init_from'), ('checkpoint', 'model.checkpoint')):
        value = getattr(args, option, None)
        if value is not None:
            if option == 'init' and value == 'none':
                value = None
            options.append(f'{key}={json.dumps(value)}')
    return load_recipe(args.recipe, [*options, *settings])


def make_extractor(
    args: argparse.Namespace, defaults: dict[str, str] | None = None, **options: Any
) -> FeatureExtractor:
    """The extractor that the options describe; metadata of a gallery fills in what they leave open."""
    from timm_dpa.embedding.extractor import FeatureExtractor

    extractor = FeatureExtractor(**extractor_settings(args, defaults), **options)
    if args.runtime == 'auto':
        print(f'timm-dpa: runtime {extractor.runtime}', file=sys.stderr)
    return extractor


def extractor_settings(args: argparse.Namespace, defaults: dict[str, str] | None = None) -> dict[str, Any]:
    """Arguments of the extractor of `make_extractor`."""
    from timm_dpa.embedding.images import Decoding

    defaults = defaults or {}
    size = image_size(args.image_size)
    if size is None and 'input_size' in defaults:
        size = tuple(json.loads(defaults['input_size'])[1:])
    return {
        'model': model_source(args.model or defaults.get('source') or DEFAULT_MODEL),
        'pretrained': args.checkpoint or (None if args.model else defaults.get('checkpoint')) or None,
        'device': args.device,
        'precision': args.precision,
        'batch_size': args.batch_size,
        'image_size': size,
        'workers': args.workers,
        'decoding': Decoding(args.max_pixels, args.truncated),
        'runtime': args.runtime,
    }


def check_output(path: str | None, inputs: Sequence[str] = ()) -> None:
    """Raise an error for a name that cannot be written, before any work is done."""
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f'{Path(path).parent}: no such folder for {Path(path).name}')
    if os.path.isdir(path):
        raise ValueError(f'{path}: is a folder; give the name of a file in it')
    if os.path.exists(path) and any(os.path.exists(name) and os.path.samefile(path, name) for name in inputs):
        raise ValueError(f'{path}: is an input of this command; give another name')
