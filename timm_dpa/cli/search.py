"""`timm-dpa search`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm_dpa.files import atomic_file

from .common import Command, add_model_options, check_output, make_extractor
from .search_gallery import add_gallery_options, mean_vector, refuse_gallery_options, search_gallery, threshold_lines

__all__ = ['COMMAND']

_FIGURE_SUFFIXES = ('.png', '.jpg', '.jpeg')
_FIGURE_LIMIT = 50  # rows and columns; more would be no picture to look at


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--query', required=True, nargs='+', metavar='IMAGE', help='query images, or folders of them')
    parser.add_argument(
        '--gallery', required=True, metavar='PATH', help='folder of images, embeddings file, or gallery'
    )
    parser.add_argument('--top', type=int, default=10, metavar='N', help='matches of each query (default %(default)s)')
    parser.add_argument(
        '--by', choices=('image', 'track'), default='image', help='rank images, or tracks (default image)'
    )
    parser.add_argument('--figure', metavar='FILE', help='picture of the ranked list to write (.png or .jpg)')
    parser.add_argument('--out', metavar='FILE', help='CSV table to write')
    add_gallery_options(parser)
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.files import check_same_origin, load_embeddings
    from timm_dpa.embedding.images import find_images, iter_images
    from timm_dpa.embedding.search import nearest, rank_figure, same_files
    from timm_dpa.embedding.tracks import match_pictures, sighting_columns, track_gallery
    from timm_dpa.gallery.places import is_gallery

    if args.top < 1:
        raise ValueError(f'--top must be at least 1, not {args.top}')
    if args.figure and not args.figure.lower().endswith(_FIGURE_SUFFIXES):
        raise ValueError(f'--figure {args.figure}: the name must end in {" or ".join(_FIGURE_SUFFIXES)}')
    for path in (args.figure, args.out):
        check_output(path, inputs=[args.gallery, *args.query])
    if '://' in args.gallery or is_gallery(args.gallery):
        search_gallery(args, _FIGURE_LIMIT)
        return
    refuse_gallery_options(args)
    query_items = list(iter_images(args.query))
    gallery = Path(args.gallery)
    if not gallery.exists():
        raise FileNotFoundError(f'{gallery}: no such gallery; give a folder or a file made by timm-dpa embed')
    stored = None if gallery.is_dir() else load_embeddings(gallery, mapped=True)
    if stored is None:
        find_images(gallery)
    extractor = make_extractor(args, stored.metadata if stored else None)
    if stored is not None:
        check_same_origin(stored, extractor.describe(), gallery, extractor.embedding_size)
    queries = extractor.run(query_items)
    embedded = stored or extractor.run(gallery)
    names, vectors = embedded.names, embedded.vectors
    seen, tracks = (stored.sightings if stored else None), None
    if args.by == 'track':
        if stored is None:
            raise ValueError(f'--by track: {gallery} is a folder of images; give the embeddings of a video with boxes')
        tracks = track_gallery(stored)
        names, vectors = tracks.names, tracks.vectors
    for reason in [*queries.failures.values(), *getattr(embedded, 'failures', {}).values()]:
        print(f'timm-dpa search: left out: {reason}', file=sys.stderr)
    if not names or not queries.names:
        raise ValueError(f'no image of the {"queries" if names else "gallery"} can be read')

    folders = [gallery.parent]
    excluded = same_files(queries.names, names, folders)
    if args.tracklet:
        queries.vectors = mean_vector(query_items, queries.names, queries.vectors)
        queries.names, excluded = queries.names[:1], [frozenset().union(*excluded)]
    rankings = nearest(queries.vectors, vectors, names, args.top, excluded)
    columns = sighting_columns(names, seen, tracks)
    # files first: the table may go to a pipe that closes
    if args.out:
        _write_table(args.out, queries.names, rankings, columns)
    shown = [ranking[:_FIGURE_LIMIT] for ranking in rankings[:_FIGURE_LIMIT]]
    if args.figure:
        pictures = match_pictures(stored, tracks, [match.name for ranking in shown for match in ranking], folders)
        with atomic_file(args.figure) as temporary:
            rank_figure(queries.names[: len(shown)], shown, folders, pictures=pictures).save(temporary)
    for query, ranking, left_out in zip(queries.names, rankings, excluded, strict=True):
        note = ', itself left out' if left_out else ''
        print(f'{query}  (gallery of {len(names)}{note})')
        print('  rank  similarity' + ''.join(f'  {title:>8}' for title in columns) + '  ' + args.by)
        for match in ranking:
            cells = ''.join(f'  {column[match.name]:>8}' for column in columns.values())
            print(f'  {match.rank:4d}  {match.similarity:10.4f}{cells}  {match.name}')
    if extractor.thresholds:
        print(*threshold_lines(extractor.thresholds), sep='\n')
    if args.out:
        print(f'table: {args.out}')
    if args.figure:
        cut = f' of the first {_FIGURE_LIMIT} queries and ranks' if shown != rankings else ''
        print(f'figure{cut}: {args.figure}')


def _write_table(
    path: str, queries: Sequence[str], rankings: Sequence[Sequence[Any]], columns: Mapping[str, Mapping[str, str]]
) -> None:
    with (
        atomic_file(path) as temporary,
        open(temporary, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file,
    ):
        writer = csv.writer(file)
        writer.writerow(['query', 'rank', 'similarity', 'image', *columns])
        for query, ranking in zip(queries, rankings, strict=True):
            for match in ranking:
                cells = [column[match.name] for column in columns.values()]
                writer.writerow([query, match.rank, f'{match.similarity:.6f}', match.name, *cells])


COMMAND = Command(
    'search',
    'rank a gallery by similarity to query images',
    'timm-dpa search --query car.jpg --gallery crops.safetensors --top 10 --figure ranks.png',
    _add_arguments,
    _run,
)
