"""`timm-dpa plot cmc`, `plot ranks` and `plot cam`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from timm_dpa.train.data.protocols import PROTOCOLS

from .common import (
    Command,
    add_data_options,
    add_image_size,
    image_size,
    model_label,
    model_source,
    read_data,
)

__all__ = ['COMMAND']


def _add_common(parser: argparse.ArgumentParser, models: str = ', and names of models') -> None:
    parser.add_argument('runs', nargs='+', metavar='RUN', help=f'run folders{models}')
    parser.add_argument('--out', required=True, metavar='FILE', help='picture to write (.png, .svg or .pdf)')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='what the figure calls the runs')


def _add_model(parser: argparse.ArgumentParser) -> None:
    add_image_size(parser)
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps (default %(default)s)')


def _labels(args: argparse.Namespace) -> list[str]:
    """What a figure calls the runs."""
    if args.names is None:
        return [model_label(run) for run in args.runs]
    if len(args.names) != len(args.runs):
        raise ValueError(f'--names gives {len(args.names)} names for {len(args.runs)} runs')
    return list(args.names)


def _add_cmc_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, models='')
    parser.add_argument('--max-rank', type=int, default=20, metavar='N', help='last rank (default %(default)s)')


def _cmc(args: argparse.Namespace) -> None:
    from timm_dpa.train.figures.curves import cmc_figure

    names = _labels(args) if args.names else [''] * len(args.runs)
    cmc_figure([(name, Path(run)) for name, run in zip(names, args.runs, strict=True)], Path(args.out), args.max_rank)
    print(f'figure: {args.out}')


def _add_ranks_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument('--queries', type=int, default=4, metavar='N', help='queries to show (default %(default)s)')
    parser.add_argument('--top', type=int, default=10, metavar='N', help='matches of each query (default %(default)s)')
    parser.add_argument('--protocol', choices=PROTOCOLS, help="query and gallery (default: the data set's own)")
    parser.add_argument('--query', nargs='+', metavar='IMAGE', help='show these queries instead: paths or file names')
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='seed of the choice of queries (default %(default)s)'
    )
    add_data_options(parser)
    _add_model(parser)


def _ranks(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.extractor import FeatureExtractor
    from timm_dpa.train.figures.ranked_lists import rank_list_figure

    data = read_data(args, args.data)
    size = image_size(args.image_size)
    models: list[tuple[str, Any]] = [
        (label, FeatureExtractor(model_source(run), device=args.device, image_size=size))
        for label, run in zip(_labels(args), args.runs, strict=True)
    ]
    rank_list_figure(
        models,
        data,
        Path(args.out),
        protocol=args.protocol,
        queries=args.queries,
        top=args.top,
        seed=args.seed,
        query_names=args.query,
    )
    print(f'figure: {args.out}')


def _add_cam_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='IMAGE', help='images, and folders of them')
    parser.add_argument('--layer', metavar='NAME', help='module to look at (default: the map after the attention)')
    _add_model(parser)


def _cam(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.images import iter_images
    from timm_dpa.embedding.models import create_embedding_model, resolve_device
    from timm_dpa.train.figures.heat_maps import heat_map_figure

    images = [Path(item.name) for item in iter_images(args.images)]
    device = resolve_device(args.device)
    models = [
        (label, create_embedding_model(model_source(run)).to(device).eval())
        for label, run in zip(_labels(args), args.runs, strict=True)
    ]
    heat_map_figure(models, images, Path(args.out), layer=args.layer, image_size=image_size(args.image_size))
    print(f'figure: {args.out}')


_EXAMPLES = (
    'timm-dpa plot cmc runs/a runs/b --out cmc.png',
    'timm-dpa plot ranks runs/a runs/b --data crops/ --out ranks.png',
    'timm-dpa plot cam runs/a dpa_resnet50 --images a.jpg b.jpg --out cam.png',
)

COMMAND = Command(
    'plot',
    'draw CMC curves, ranked lists or heat maps',
    '\n  '.join(_EXAMPLES),
    subcommands=(
        Command('cmc', 'draw the CMC curves of evaluated runs', _EXAMPLES[0], _add_cmc_arguments, _cmc),
        Command(
            'ranks',
            'draw the first matches of some queries, with right and wrong ones framed',
            _EXAMPLES[1],
            _add_ranks_arguments,
            _ranks,
        ),
        Command('cam', 'draw Grad-CAM++ heat maps of models side by side', _EXAMPLES[2], _add_cam_arguments, _cam),
    ),
)
