"""`timm-dpa gallery info|remove|optimize|export`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .common import Command, check_output

if TYPE_CHECKING:
    from timm_dpa.gallery.filters import Filter

__all__ = ['COMMAND', 'add_filter_options', 'has_filter', 'make_filter']


def add_filter_options(parser: Any) -> None:
    """The options of `make_filter`."""
    parser.add_argument('--camera', nargs='+', metavar='NAME', help='only these cameras')
    parser.add_argument(
        '--after', metavar='TIME', help='at this time or later, such as 2026-05-01T10:00:00+02:00 (without a zone: UTC)'
    )
    parser.add_argument('--before', metavar='TIME', help='earlier than this time')
    parser.add_argument('--tracks', nargs='+', metavar='NAME', help='only these tracks')
    parser.add_argument('--exclude-track', nargs='+', default=[], metavar='NAME', help='none of these tracks')
    parser.add_argument('--vehicle', nargs='+', type=int, metavar='N', help='only these vehicles')


def has_filter(args: argparse.Namespace) -> bool:
    """Whether an option of `add_filter_options` is used."""
    names = ('camera', 'after', 'before', 'tracks', 'exclude_track', 'vehicle')
    return any(getattr(args, name) for name in names)


def make_filter(args: argparse.Namespace, keys: list[str] | None = None) -> Filter:
    """The filter of the options."""
    from timm_dpa.gallery.filters import Filter

    return Filter(args.camera, args.after, args.before, args.tracks, args.exclude_track, args.vehicle, keys)


def _add_uri(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('uri', metavar='URI', help='folder, s3://, gs://, az://, or http:// of a Milvus server')


def _add_info_arguments(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')


def _info(args: argparse.Namespace) -> None:
    from timm_dpa.gallery.gallery import EXACT_LIMIT, Gallery

    with Gallery(args.uri) as gallery:
        info = gallery.info()
    if args.json:
        print(json.dumps(info, indent=2))
        return
    cameras = info.pop('cameras')
    for name, value in info.items():
        print(f'{name:15s}{value}')
    for name, count in list(cameras.items())[:20]:
        print(f'  camera {name or "(unknown)"}: {count}')
    if len(cameras) > 20:
        print(f'  ... {len(cameras)} cameras')
    kind = 'exact' if not info['indexed'] or info['rows'] <= EXACT_LIMIT else 'by the index, exact with a filter'
    print(f'searches are {kind}')


def _add_remove_arguments(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    add_filter_options(parser)
    parser.add_argument('--key', nargs='+', metavar='KEY', help='only these keys: paths as they were given')
    parser.add_argument('--dry-run', action='store_true', help='count only')


def _remove(args: argparse.Namespace) -> None:
    from timm_dpa.gallery.gallery import Gallery

    where = make_filter(args, args.key)
    if not where:
        raise ValueError('say which rows: --camera, --after, --before, --tracks, --exclude-track, --vehicle or --key')
    with Gallery(args.uri) as gallery:
        if args.dry_run:
            print(f'{gallery.count(where)} of {len(gallery)} rows would be removed')
        else:
            print(f'{gallery.remove(where)} rows removed, {len(gallery)} left in {args.uri}')


def _add_optimize_arguments(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    parser.add_argument('--no-recall', action='store_true', help='do not compare the index with exact searches')


def _optimize(args: argparse.Namespace) -> None:
    from timm_dpa.gallery.gallery import Gallery

    with Gallery(args.uri) as gallery:
        report = gallery.optimize(measure=not args.no_recall)
    print(f'{report.rows} rows, {report.indexed} of them in the index, in {report.seconds:.1f} s')
    if report.recall is not None:
        print(f'recall of ten matches against exact searches, {report.queries} queries: {report.recall:.4f}')
    elif not report.indexed:
        print('no index of vectors: so few rows are searched as fast without one')


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    _add_uri(parser)
    parser.add_argument('--out', required=True, metavar='FILE', help='.parquet (all columns) or .safetensors file')
    add_filter_options(parser)


def _export(args: argparse.Namespace) -> None:
    from timm_dpa.gallery.gallery import Gallery

    check_output(args.out)
    with Gallery(args.uri) as gallery:
        rows = gallery.export(args.out, make_filter(args))
    print(f'{rows} rows: {args.out}')


COMMAND = Command(
    'gallery',
    'look at a gallery of embeddings, remove rows, optimize or export it',
    'timm-dpa gallery info garage\n  timm-dpa gallery optimize garage',
    subcommands=(
        Command('info', 'say what is in a gallery', 'timm-dpa gallery info garage', _add_info_arguments, _info),
        Command(
            'remove',
            'remove rows',
            'timm-dpa gallery remove garage --before 2026-05-01T00:00:00Z',
            _add_remove_arguments,
            _remove,
        ),
        Command(
            'optimize',
            'build the index, merge small files, and measure the recall of the index',
            'timm-dpa gallery optimize garage',
            _add_optimize_arguments,
            _optimize,
        ),
        Command(
            'export',
            'write rows to a file',
            'timm-dpa gallery export garage --out garage.parquet',
            _add_export_arguments,
            _export,
        ),
    ),
)
