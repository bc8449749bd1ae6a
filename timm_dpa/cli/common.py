"""What several verbs of the command line share: the options of a model, and names of files to write."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    'VerbMaker',
    'add_model_options',
    'check_output',
    'image_size',
    'make_extractor',
    'model_source',
    'read_recipe',
    'replacing',
    'verbs_below',
]

#: (name, function that runs it or None, summary, example) -> parser of the verb
VerbMaker = Callable[[str, Callable[[argparse.Namespace], None] | None, str, str], argparse.ArgumentParser]


def verbs_below(parser: argparse.ArgumentParser, dest: str) -> VerbMaker:
    """A function that adds verbs to a parser; the name of the one that is called goes to `dest`."""
    verbs = parser.add_subparsers(dest=dest, required=True, metavar=dest.upper())

    def verb(
        name: str, run: Callable[[argparse.Namespace], None] | None, summary: str, example: str
    ) -> argparse.ArgumentParser:
        child = verbs.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + '.',
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if run is not None:
            child.set_defaults(run=run)
        return child

    return verb


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('model')
    group.add_argument('--model', metavar='NAME', help='name, or folder of a run; default dpa_resnet50')
    group.add_argument('--checkpoint', metavar='FILE', help='weights to load into it')
    group.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps')
    group.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16'))
    group.add_argument('--batch-size', type=int, default=32, metavar='N')
    group.add_argument('--image-size', type=int, nargs='+', metavar='PX', help='side, or height and width')
    group.add_argument('--workers', type=int, metavar='N', help='decoding threads')


def image_size(values: list[int] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) > 2:
        raise ValueError('--image-size takes a side, or a height and a width')
    return (values[0], values[-1])


def model_source(name: str) -> str:
    """What timm calls a model: the folder of a run, or of its model, becomes `local-dir:folder`."""
    if not os.path.isdir(name):
        return name
    for folder in (Path(name, 'model'), Path(name)):
        if (folder / 'config.json').is_file():
            return f'local-dir:{folder}'
    raise FileNotFoundError(f'{name}: no model in this folder (looked for config.json and model/config.json)')


def read_recipe(args: argparse.Namespace, settings: Sequence[str]):
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


def make_extractor(args: argparse.Namespace, defaults: dict[str, str] | None = None, **options: Any):
    """The extractor that the options describe; what they leave open is taken from a gallery's metadata."""
    from timm_dpa.embedding.extractor import FeatureExtractor

    defaults = defaults or {}
    size = image_size(args.image_size)
    if size is None and 'input_size' in defaults:
        size = tuple(json.loads(defaults['input_size'])[1:])
    return FeatureExtractor(
        model_source(args.model or defaults.get('source') or 'dpa_resnet50'),
        pretrained=args.checkpoint or (None if args.model else defaults.get('checkpoint')) or None,
        device=args.device,
        precision=args.precision,
        batch_size=args.batch_size,
        image_size=size,
        workers=args.workers,
        **options,
    )


def check_output(path: str | None, inputs: Sequence[str]) -> None:
    """A wrong output name shows before the work, not after it."""
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f'{Path(path).parent}: no such folder for {Path(path).name}')
    if os.path.isdir(path):
        raise ValueError(f'{path}: is a folder; give the name of a file in it')
    if os.path.exists(path) and any(os.path.exists(name) and os.path.samefile(path, name) for name in inputs):
        raise ValueError(f'{path}: is an input of this command; give another name')


class replacing:  # noqa: N801 a context manager used like a function
    """Gives a temporary name with the same suffix, renamed to `path` when all went well."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f'.tmp{os.getpid()}{self.path.name}')

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink(missing_ok=True)
