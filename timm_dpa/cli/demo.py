"""`timm-dpa demo`: a small rendered gallery, ranked, by the other commands."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from importlib.util import find_spec
from pathlib import Path

from .common import DEFAULT_MODEL, Command, model_label, model_source

__all__ = ['COMMAND']

#: modules of the extras
_NEEDED = ('embreex', 'matplotlib', 'pytorch_grad_cam')
_SEED = '20275'  # of the demo alone, so that no model was trained on these vehicles
_SIZES = ('72', '288')  # pixels that a person can recognise a vehicle by
_FEWEST = 8  # images: a query of each of 6 cameras, and matches by 2
_PAIRS = 3  # of look-alikes in the heat maps


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', default='demo', metavar='FOLDER', help='folder to write (default %(default)s)')
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, metavar='NAME', help='model name or run folder (default %(default)s)'
    )
    parser.add_argument(
        '--ids', type=int, default=40, metavar='N', help='vehicles, 5 of each model (default %(default)s)'
    )
    parser.add_argument(
        '--images-per-id',
        type=int,
        default=12,
        metavar='N',
        help='images of each; 6 of them are queries (default %(default)s)',
    )


def _run(args: argparse.Namespace) -> None:
    import timm

    from timm_dpa.weights.fetch import require_released

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"the demo needs {', '.join(missing)}: pip install 'timm-dpa[synth,train]'")
    if args.images_per_id < _FEWEST:
        raise ValueError(f'--images-per-id must be at least {_FEWEST} for the queries to have matches')
    source = model_source(args.model)
    random = ':' not in source and not timm.models.is_model_pretrained(source)
    if random and not timm.is_model(source):
        raise ValueError(f'{args.model}: no such model; timm-dpa models lists what there is')
    if random:
        require_released(source)

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    data, sheet, cmc, ranks, heat_maps = (
        str(out / name) for name in ('vehicles', 'vehicles.png', 'cmc.png', 'ranks.png', 'heat_maps.png')
    )
    label = model_label(args.model)
    names = ['--names', f'{label}, random weights' if random else label]
    _run_command(
        *('synth', '--out', data, '--ids', str(args.ids), '--images-per-id', str(args.images_per_id)),
        *('--size', *_SIZES, '--seed', _SEED, '--test-share', '1', '--preview', sheet),
    )
    _run_command('eval', '--model', args.model, '--data', data, '--out', str(out), '--overwrite')
    _run_command('plot', 'cmc', str(out), *names, '--out', cmc)
    _run_command('plot', 'ranks', args.model, *names, '--data', data, '--queries', '8', '--top', '5', '--out', ranks)
    _run_command('plot', 'cam', args.model, *names, '--images', *_look_alikes(Path(data)), '--out', heat_maps)

    metrics = json.loads((out / 'evaluation.json').read_text(encoding='utf-8'))['metrics']
    scores = (('Rank-1', 'rank1'), ('mAP', 'mAP'), ('mINP', 'mINP'))
    print(f'\n{label}: ' + ', '.join(f'{heading} {100 * metrics[key]:.1f} %' for heading, key in scores))
    print(f'on {args.ids} rendered vehicles: synthetic images, of a seed that nothing was trained on')
    if random:
        print(f'{label} has no released weights. These are random: numbers and pictures say nothing about the model')
    print(f"""
{sheet}: vehicles by rows, five of each model, most of them of one color, too
{cmc}: share of the queries that have a match among the first 1, 2, 3, ... images
{ranks}: queries, blue, and their nearest images; green is the same vehicle, red another one
{heat_maps}: where on the image the embedding comes from, for pairs of one model
results: {out}""")


def _run_command(*words: str) -> None:
    """Run a command as if it were typed."""
    from .main import make_parser

    print(f'\n$ timm-dpa {shlex.join(words)}', flush=True)
    args = make_parser().parse_args(words)
    args.command.run(args)


def _look_alikes(data: Path) -> list[str]:
    """Pairs of vehicles of one model, each by the query that shows it best."""
    with open(data / 'vehicles.csv', encoding='utf-8', newline='') as table:
        models = {row['vehicle']: row['model'] for row in csv.DictReader(table)}
    best: dict[str, tuple[bool, int, str]] = {}
    with open(data / 'images.csv', encoding='utf-8', newline='') as table:
        for row in csv.DictReader(table):
            if row['part'] == 'query':
                found = (not row['hidden_by'], int(row['width']) * int(row['height']), row['image'])
                best[row['vehicle']] = max(found, best.get(row['vehicle'], found))
    siblings: dict[str, list[str]] = {}
    for vehicle, model in models.items():
        siblings.setdefault(model, []).append(str(data / best[vehicle][-1]))
    return [path for pair in list(siblings.values())[:_PAIRS] for path in pair[:2]]


COMMAND = Command(
    'demo',
    'render a few vehicles, embed and rank them, and draw the results; takes three minutes on two cores',
    'timm-dpa demo --out demo',
    _add_arguments,
    _run,
    resumable=True,
)
