"""`timm-dpa eval`."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from timm_dpa.train.data.protocols import PROTOCOLS

from .common import (
    DEFAULT_MODEL,
    Command,
    add_data_options,
    add_model_options,
    make_extractor,
    model_label,
    read_data,
)

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='folder of the results (default: eval in the run folder, or eval/MODEL; a folder for each data set below)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace results of another model, data set or options in FOLDER',
    )
    parser.add_argument('--protocol', choices=PROTOCOLS, help="query and gallery (default: the data set's own)")
    parser.add_argument('--draws', type=int, metavar='N', help='random galleries to average (default 10 for vru)')
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='seed of the gallery draws (default %(default)s)'
    )
    parser.add_argument(
        '--gap', type=int, metavar='FRAMES', help='protocol gap: from a query to its candidates (default 30)'
    )
    parser.add_argument('--stride', type=int, metavar='FRAMES', help='protocol gap: between queries (default 60)')
    parser.add_argument('--queries', nargs='+', metavar='NAME', help='only queries of these identities')
    parser.add_argument(
        '--same-camera',
        choices=('exclude', 'keep'),
        help="leave matches by the query's own camera out, or count them (default: as the protocol has it)",
    )
    parser.add_argument(
        '--expand', type=int, default=0, metavar='N', help='expand each query by its N nearest gallery images first'
    )
    parser.add_argument('--rerank', action='store_true', help='re-rank by k-reciprocal neighbors')
    parser.add_argument('--flip', action='store_true', help='embed each image and its mirror image')
    parser.add_argument(
        '--jitter',
        type=float,
        default=0.0,
        metavar='X',
        help='also score the same images with each side of their boxes off by up to X of its length, such as 0.1',
    )
    add_data_options(parser)
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.moments import GAP, STRIDE
    from timm_dpa.train.data.provenance import describe_data
    from timm_dpa.train.data.query_gallery import resolve_protocol
    from timm_dpa.train.evaluation.evaluate import evaluate_model, markdown_table, with_loose, write_evaluation
    from timm_dpa.train.evaluation.jitter import check_jitter
    from timm_dpa.train.evaluation.verification import verification_table

    check_jitter(args.jitter)
    data = read_data(args, args.data)
    protocol, draws = resolve_protocol(data, args.protocol, args.draws)
    if protocol != 'gap' and (args.gap is not None or args.stride is not None):
        raise ValueError(f'--gap and --stride are for --protocol gap, not for {protocol}')
    frames = {'gap': GAP if args.gap is None else args.gap, 'stride': STRIDE if args.stride is None else args.stride}
    extractor = make_extractor(args, flip=args.flip)
    name = args.model or DEFAULT_MODEL
    label = model_label(name)
    origin: dict[str, Any] = {'data': describe_data(data), 'root': str(data.root), 'model': extractor.describe()}
    out = Path(args.out) if args.out else _default_folder(args, name, label, origin['data'])
    if not args.overwrite:
        asked = {'protocol': protocol, 'draws': draws, 'seed': args.seed, 'query_identities': args.queries}
        asked |= {'jitter': args.jitter} if args.jitter else {}
        asked |= frames if protocol == 'gap' else {}
        asked |= {'rerank': args.rerank, 'expand': args.expand, 'flip': args.flip}
        _check_replaceable(out, {'data': origin['data'], **asked} | ({'model': origin['model']} if args.out else {}))
    options: dict[str, Any] = {
        'draws': draws,
        'seed': args.seed,
        'use_rerank': args.rerank,
        'expand': args.expand,
        'exclude_same_camera': None if args.same_camera is None else args.same_camera == 'exclude',
        'query_identities': args.queries,
        **frames,
    }
    result = evaluate_model(extractor, data, protocol, **options)
    loose = evaluate_model(extractor, data, protocol, jitter=args.jitter, **options) if args.jitter else None
    table, numbers = write_evaluation(result, label, out, loose, **origin)
    metrics = result.metrics
    print(
        f'{metrics["valid_queries"]:.0f} queries, gallery of {result.settings["gallery"]}, protocol {protocol}'
        + (f', mean of {draws} draws' if draws > 1 else '')
        + (', same camera excluded' if result.settings['same_camera_excluded'] else '')
        + (', copies of queries excluded' if result.settings['same_file_excluded'] else '')
        + (f', queries expanded by {args.expand}' if args.expand else '')
        + (', re-ranked' if args.rerank else '')
    )
    if result.skipped:
        print(f'{len(result.skipped)} images could not be read and are left out')
    print('\n' + markdown_table(with_loose(label, result, loose)) + '\n')
    if result.verification:
        print(verification_table(result.verification, markdown=True) + '\n')
    print(f'table: {table}')
    print(f'numbers: {numbers}')


def _default_folder(args: argparse.Namespace, name: str, label: str, data: dict[str, Any]) -> Path:
    """A folder for each model, data set and choice of options, so that no result replaces another one."""
    root = Path(name, 'eval') if os.path.isdir(name) else Path('eval', _as_folder(label))
    options = [
        args.protocol,
        f'gap{args.gap}' if args.gap is not None else None,
        f'stride{args.stride}' if args.stride is not None else None,
        'flip' if args.flip else None,
        f'jitter{args.jitter:g}' if args.jitter else None,
        f'expand{args.expand}' if args.expand else None,
        'rerank' if args.rerank else None,
        f'same-camera-{args.same_camera}' if args.same_camera else None,
        'some-queries' if args.queries else None,
    ]
    return root / '_'.join([_as_folder(data['name']), *filter(None, options)])


def _as_folder(name: str) -> str:
    return re.sub(r'[^\w.-]+', '_', name).strip('._') or 'results'


def _check_replaceable(out: Path, asked: dict[str, Any]) -> None:
    """ValueError where `out` holds the results of something else."""
    path = out / 'evaluation.json'
    if not path.is_file():
        return
    try:
        old = json.loads(path.read_text(encoding='utf-8'))
        theirs = {'model': old['model'], 'data': old['data'], **old['settings']}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: is no evaluation of this package; choose another --out, or --overwrite') from error
    other = [key.replace('_', ' ') for key, value in asked.items() if theirs.get(key) != value]
    if other:
        raise ValueError(
            f'{out}: holds the results of {old.get("name")} on {old["data"].get("name")} '
            f'(another {" and ".join(other)}); choose another --out, or --overwrite'
        )


COMMAND = Command(
    'eval',
    "evaluate a model: a row of the paper's tables",
    'timm-dpa eval --model runs/first --data crops/ --rerank',
    _add_arguments,
    _run,
)
