"""`timm-dpa search` in a gallery: filters, tracks, re-ranking, and whether a match is the same vehicle."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from timm_dpa.files import atomic_file

from .common import make_extractor
from .gallery import add_filter_options, has_filter, make_filter

if TYPE_CHECKING:
    from PIL import Image

    from timm_dpa.gallery.gallery import Gallery, GalleryMatch

__all__ = ['add_gallery_options', 'decision', 'refuse_gallery_options', 'search_gallery', 'threshold_lines']

_RATES = (0.001, 0.01)
_COLUMNS = ('query', 'rank', 'similarity', 'image', 'key', 'camera', 'time', 'track', 'vehicle', 'images', 'mean')


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('gallery made by timm-dpa embed --gallery')
    add_filter_options(group)
    group.add_argument(
        '--rerank', type=int, default=0, metavar='N', help='order the first N by k-reciprocal neighbors (default: not)'
    )
    group.add_argument('--tracklet', action='store_true', help='the queries show one vehicle: search their mean')
    group.add_argument('--exact', action='store_true', help='search without the index, however many rows there are')


def refuse_gallery_options(args: argparse.Namespace) -> None:
    """Raise ValueError where an option is used that only galleries have."""
    if has_filter(args) or args.rerank or args.exact:
        raise ValueError(
            f'{args.gallery}: --camera, --after, --before, --tracks, --exclude-track, --vehicle, --rerank and '
            '--exact are for a gallery, which timm-dpa embed --gallery makes'
        )


def search_gallery(args: argparse.Namespace, figure_limit: int) -> None:
    from timm_dpa.embedding.images import iter_images
    from timm_dpa.embedding.search import Match, rank_figure
    from timm_dpa.gallery.gallery import Gallery, is_exact

    where = make_filter(args)
    items = list(iter_images(args.query))
    with Gallery(args.gallery) as gallery:
        extractor = make_extractor(args, gallery.origin)
        gallery.check_origin(extractor.describe(), extractor.embedding_size)
        queries = extractor.run(items)
        for reason in queries.failures.values():
            print(f'timm-dpa search: left out: {reason}', file=sys.stderr)
        if not queries.names:
            raise ValueError('no image of the queries can be read')
        names, vectors, own = queries.names, queries.vectors, [_own_keys(gallery, name) for name in queries.names]
        if args.tracklet:
            vectors = mean_vector(items, queries.names, vectors)
            names, own = [names[0]], [[key for keys in own for key in keys]]
        rankings = gallery.search(
            vectors,
            top=args.top,
            where=where,
            exact=args.exact or None,
            by=args.by,
            rerank=args.rerank,
            reranker=_reranker() if args.rerank else None,
            exclude=own,
        )
        rows, counted = len(gallery), gallery.count(where)
        exact = is_exact(gallery, where, args.exact or None)
        thresholds = extractor.thresholds or {}
        if args.out:
            _write_table(args.out, names, rankings, thresholds)
        if args.figure:
            shown = [ranking[:figure_limit] for ranking in rankings[:figure_limit]]
            matches = [[Match(m.rank, m.similarity, m.row.image or m.row.key) for m in ranking] for ranking in shown]
            pictures = _thumbnails(gallery, shown)
            with atomic_file(args.figure) as temporary:
                rank_figure(names[: len(shown)], matches, pictures=pictures).save(temporary)
    label = f'tracklet of {len(queries.names)} images, first {names[0]}' if args.tracklet else ''
    for query, ranking, left_out in zip(names, rankings, own, strict=True):
        note = f', {counted} match the filter' if where else ''
        note += f', {len(left_out)} of the query left out' if left_out else ''
        print(f'{label or query}  (gallery of {rows}{note}; {"exact" if exact else "by the index"})')
        _print_ranking(ranking, args.by == 'track', thresholds)
    for line in threshold_lines(thresholds):
        print(line)
    if args.out:
        print(f'table: {args.out}')
    if args.figure:
        cut = f' of the first {figure_limit} queries and ranks' if shown != rankings else ''
        print(f'figure{cut}: {args.figure}')


def mean_vector(items: Sequence[Any], names: Sequence[str], vectors: Any) -> Any:
    """`(1, D)` of length 1: the mean of the vectors, weighted by the quality of their images."""
    from timm_dpa.embedding.images import load_rgb
    from timm_dpa.gallery.pictures import quality_of
    from timm_dpa.gallery.tracklets import quality_mean

    by_name = {item.name: item for item in items}
    return quality_mean(vectors, [quality_of(load_rgb(by_name[name])) for name in names])[None]


def threshold_lines(thresholds: Mapping[float, float]) -> list[str]:
    """What the marks of a ranking mean."""
    known = {rate: thresholds[rate] for rate in _RATES if rate in thresholds}
    if not known:
        return ['no thresholds are known for these weights, so that nothing is said about the same vehicle']
    return [
        f'"same {rate:.1%}": cosine {cosine:.3f} or more, which {rate:.1%} of pairs of different vehicles reach in the '
        'data that the weights were measured with'
        for rate, cosine in known.items()
    ]


def decision(similarity: float, thresholds: Mapping[float, float]) -> str:
    """`same 0.1%`, `same 1.0%`, `unknown`, or empty where no threshold is known."""
    known = [rate for rate in _RATES if rate in thresholds]
    passed = [rate for rate in known if similarity >= thresholds[rate]]
    return f'same {min(passed):.1%}' if passed else 'unknown' if known else ''


def _reranker() -> Any:
    from timm_dpa.train.evaluation.reranking import rerank

    return rerank


def _own_keys(gallery: Gallery, name: str) -> list[str]:
    """Keys in the gallery that are this very file, as far as its path tells."""
    from timm_dpa.gallery.ingest import key_of

    names = (name, os.path.normpath(name), os.path.abspath(name), os.path.realpath(name), os.path.relpath(name))
    return list(gallery.known(list(dict.fromkeys(map(key_of, names)))))


def _thumbnails(gallery: Gallery, rankings: Sequence[Sequence[GalleryMatch]]) -> dict[str, Image.Image]:
    """Image name -> picture of what is shown."""
    from PIL import Image

    names = {match.row.key: match.row.image or match.row.key for ranking in rankings for match in ranking}
    return {
        names[key]: Image.open(io.BytesIO(row.thumbnail))
        for key, row in gallery.known(list(names), ('thumbnail',)).items()
        if row.thumbnail
    }


def _print_ranking(ranking: Sequence[GalleryMatch], by_track: bool, thresholds: Mapping[float, float]) -> None:
    from timm_dpa.gallery.filters import show_time

    print('  rank  similarity  ' + ('mean    images  ' if by_track else '') + 'same vehicle  image')
    for match in ranking:
        tracks = f'{match.mean or 0:6.4f}  {match.images:6d}  ' if by_track else ''
        row = match.row
        facts = {'camera': row.camera, 'time': show_time(row.time), 'track': row.track, 'vehicle': row.vehicle}
        known = ', '.join(f'{name} {value}' for name, value in facts.items() if value not in ('', None))
        print(
            f'  {match.rank:4d}  {match.similarity:10.4f}  {tracks}{decision(match.similarity, thresholds):12s}  '
            f'{row.key}' + (f'  ({known})' if known else '')
        )


def _write_table(
    path: str, queries: Sequence[str], rankings: Sequence[Sequence[GalleryMatch]], thresholds: Mapping[float, float]
) -> None:
    from timm_dpa.gallery.filters import show_time

    with (
        atomic_file(path) as temporary,
        open(temporary, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, 'same_vehicle'])
        for query, ranking in zip(queries, rankings, strict=True):
            for match in ranking:
                row = match.row
                vehicle = '' if row.vehicle is None else row.vehicle
                mean = '' if match.mean is None else f'{match.mean:.6f}'
                facts = [row.camera, show_time(row.time), row.track, vehicle, match.images, mean]
                same = decision(match.similarity, thresholds)
                writer.writerow([query, match.rank, f'{match.similarity:.6f}', row.image, row.key, *facts, same])
