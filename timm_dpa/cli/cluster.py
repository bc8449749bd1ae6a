"""`timm-dpa cluster`."""

from __future__ import annotations

import argparse
import csv
from typing import TYPE_CHECKING

from .common import Command, add_model_options, check_output, make_extractor

if TYPE_CHECKING:
    from timm_dpa.gallery.gallery import Gallery

__all__ = ['COMMAND']

_RATE = 0.001


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('uri', metavar='URI', help='gallery made by timm-dpa embed --gallery')
    parser.add_argument(
        '--threshold', type=float, metavar='T', help='cosine that two groups of tracks reach in the mean to be merged'
    )
    parser.add_argument(
        '--false-matches',
        type=float,
        metavar='R',
        help=f'take the threshold that this share of pairs of different vehicles reaches (default {_RATE:g})',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace vehicles that tracks have already')
    parser.add_argument('--dry-run', action='store_true', help='write nothing into the gallery')
    parser.add_argument('--out', metavar='FILE', help='CSV table of tracks and vehicles to write')
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.files import atomic_file
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.gallery.provisional import assign_vehicles, read_tracks

    if args.threshold is not None and args.false_matches is not None:
        raise ValueError('give --threshold or --false-matches, not both')
    check_output(args.out)
    with Gallery(args.uri) as gallery:
        tracks = read_tracks(gallery)
        if tracks.numbered and not (args.overwrite or args.dry_run):
            raise ValueError(
                f'{args.uri}: {tracks.numbered} of {len(tracks.names)} tracks have a vehicle already; --overwrite '
                'replaces them, --dry-run compares with them'
            )
        threshold = _threshold(args, gallery)
        found = assign_vehicles(tracks, threshold)
        if args.out:
            with atomic_file(args.out) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
                writer = csv.writer(file)
                writer.writerow(['track', 'vehicle'])
                writer.writerows(found.numbers.items())
        changed = 0 if args.dry_run else gallery.set_vehicles(found.numbers)
    left_out = f', {tracks.without} images without a track left out' if tracks.without else ''
    print(f'{len(tracks.names)} tracks{left_out}; {len(tracks.forbidden)} pairs seen by one camera at one time')
    numbers = set(found.numbers.values())
    print(f'{len(numbers)} vehicles at threshold {threshold:.4f}, numbers {min(numbers)}..{max(numbers)}')
    if found.scores:
        scores = found.scores
        print(
            f'against the known vehicles of {found.compared} tracks: pairwise precision {scores.precision:.4f}, '
            f'recall {scores.recall:.4f}, F1 {scores.f1:.4f}'
        )
    if args.out:
        print(f'table: {args.out}')
    print('nothing was written into the gallery' if args.dry_run else f'{changed} rows changed in {args.uri}')


def _threshold(args: argparse.Namespace, gallery: Gallery) -> float:
    if args.threshold is not None:
        return float(args.threshold)
    extractor = make_extractor(args, gallery.origin)
    gallery.check_origin(extractor.describe(), extractor.embedding_size)
    rate = _RATE if args.false_matches is None else args.false_matches
    known = extractor.thresholds or {}
    if rate not in known:
        rates = f'only for {", ".join(f"{each:g}" for each in known)}' if known else 'for no rate'
        raise ValueError(f'these weights have a threshold for false matches {rates}, not {rate:g}; give --threshold')
    return known[rate]


COMMAND = Command(
    'cluster',
    'give the tracks of a gallery provisional vehicles',
    'timm-dpa cluster garage --threshold 0.8 --dry-run',
    _add_arguments,
    _run,
)
