"""`timm-dpa embed --gallery`: images to a gallery, with what is known of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .common import extractor_settings, make_extractor

if TYPE_CHECKING:
    from timm_dpa import FeatureExtractor
    from timm_dpa.gallery.facts import Facts, FactsTable
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.gallery.ingest import IngestReport

__all__ = ['add_gallery_options', 'refuse_gallery_options', 'run_gallery']

_SHOWN = 5  # of the images that could not be read


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    from timm_dpa.train.data.layouts import LAYOUTS

    group = parser.add_argument_group('gallery')
    group.add_argument('--camera', metavar='NAME', help='camera of the images')
    group.add_argument(
        '--time',
        metavar='TIME',
        help='when they were taken, such as 2026-05-01T10:00:00+02:00 (without a zone: UTC); seconds of a table count '
        'from there',
    )
    group.add_argument('--track', metavar='NAME', help='their track: all of them show one vehicle')
    group.add_argument(
        '--table',
        metavar='FILE',
        help='CSV table with a column path, and any of camera, time, track, vehicle, box; before the options above',
    )
    group.add_argument(
        '--layout',
        choices=tuple(LAYOUTS),
        help='the one IMAGE is a data set with this layout, which tells cameras and vehicles',
    )
    group.add_argument('--float16', action='store_true', help='keep the vectors of a new gallery in half the bytes')
    group.add_argument('--no-thumbnails', action='store_true', help='keep no small pictures in the gallery')
    group.add_argument(
        '--ray',
        nargs='?',
        const='local',
        metavar='ADDRESS',
        help='embed by the workers of a Ray cluster: auto or HOST:PORT joins one, no ADDRESS starts one here. All of '
        'them must reach images, checkpoint and gallery at the same paths',
    )
    group.add_argument(
        '--ray-actors',
        type=int,
        metavar='N',
        help='models that embed at the same time (default: one on each GPU, or as many as the CPUs have threads for)',
    )
    group.add_argument('--ray-threads', type=int, metavar='N', help='threads, and CPUs, of each (default up to 4)')


def refuse_gallery_options(args: argparse.Namespace) -> None:
    """Raise ValueError where an option is used that only galleries have."""
    names = (
        'camera',
        'time',
        'track',
        'table',
        'layout',
        'float16',
        'no_thumbnails',
        'ray',
        'ray_actors',
        'ray_threads',
    )
    used = [f'--{name.replace("_", "-")}' for name in names if getattr(args, name) not in (None, False)]
    if used:
        raise ValueError(f'{", ".join(used)}: for --gallery; an embeddings file holds vectors and names only')


def run_gallery(args: argparse.Namespace, source: str | None = None) -> None:
    """Embed images, or the boxes of the video or folder of frames `source`."""
    from timm_dpa.gallery.gallery import Gallery

    if args.overwrite:
        raise ValueError('--overwrite is for --out; rows of a gallery are removed by: timm-dpa gallery remove')
    if source and (args.track or args.table or args.layout):
        raise ValueError('--track, --table and --layout are for images; the file of --boxes tells the tracks')
    if args.ray is None and (args.ray_actors or args.ray_threads) is not None:
        raise ValueError('--ray-actors and --ray-threads are for --ray')
    if args.ray is not None and source:
        raise ValueError('--ray is for images; boxes of a video are embedded by one process')
    facts = None if source else _facts(args)  # what is wrong with a table shows before the model is loaded
    if args.ray is not None and facts is not None:
        report = _ray(args, facts)
        with Gallery(args.gallery) as gallery:
            _print_report(args, report, 'images', len(gallery))
        return
    extractor = make_extractor(args)
    with Gallery(
        args.gallery,
        origin={**extractor.origin, **extractor.describe()},
        create=True,
        dtype='float16' if args.float16 else 'float32',
        width=extractor.embedding_size,
    ) as gallery:
        report = _boxes(args, extractor, gallery) if facts is None else _images(args, extractor, gallery, facts)
        _print_report(args, report, 'boxes' if source else 'images', len(gallery))


def _print_report(args: argparse.Namespace, report: IngestReport, kind: str, rows: int) -> None:
    known = f'{report.relabeled} known with other facts, {report.unchanged} unchanged'
    print(f'{report.embedded} {kind} embedded, {known}')
    for reason in list(report.failures.values())[:_SHOWN]:
        print(f'timm-dpa embed: left out: {reason}', file=sys.stderr)
    if report.failures:
        print(f'{len(report.failures)} could not be read')
    print(f'{rows} rows in {args.gallery}')


def _ray(args: argparse.Namespace, facts: FactsTable) -> IngestReport:
    from timm_dpa.gallery.ray_embed import embed_with_ray

    return embed_with_ray(
        extractor_settings(args),
        args.images,
        args.gallery,
        address=None if args.ray == 'local' else args.ray,
        actors=args.ray_actors,
        threads=args.ray_threads,
        facts=facts,
        dtype='float16' if args.float16 else 'float32',
        thumbnails=not args.no_thumbnails,
        on_error=args.on_error,
    )


def _images(args: argparse.Namespace, extractor: FeatureExtractor, gallery: Gallery, facts: FactsTable) -> IngestReport:
    from timm_dpa.gallery.ingest import embed_to_gallery

    return embed_to_gallery(
        extractor, args.images, gallery, facts=facts, thumbnails=not args.no_thumbnails, on_error=args.on_error
    )


def _boxes(args: argparse.Namespace, extractor: FeatureExtractor, gallery: Gallery) -> IngestReport:
    from timm_dpa.gallery.filters import parse_time
    from timm_dpa.gallery.ingest_boxes import embed_boxes_to_gallery

    return embed_boxes_to_gallery(
        extractor,
        args.video or args.frames,
        args.boxes,
        gallery,
        format=args.format,
        first_frame=args.first_frame,
        rate=args.rate,
        margin=args.margin,
        camera=args.camera or '',
        start=parse_time(args.time, '--time') if args.time else None,
        thumbnails=not args.no_thumbnails,
        on_error=args.on_error,
    )


def _facts(args: argparse.Namespace) -> FactsTable:
    from timm_dpa.gallery.facts import Facts, FactsTable, read_facts
    from timm_dpa.gallery.filters import parse_time

    start = parse_time(args.time, '--time') if args.time else None
    known: dict[str, Facts] = {}
    if args.layout:
        known = _facts_of_layout(args.images, args.layout)
    if args.table:
        for path, facts in read_facts(args.table, start).items():
            known[path] = facts.or_else(known[path]) if path in known else facts
    return FactsTable(known, Facts(args.camera or '', start, args.track or ''))


def _facts_of_layout(images: Sequence[str], layout: str) -> dict[str, Any]:
    """Cameras and vehicles of a data set; a vehicle whose name is no number has none."""
    from timm_dpa.gallery.facts import Facts, vehicle_number
    from timm_dpa.train.data.datasets import load_data

    if len(images) != 1:
        raise ValueError(f'--layout {layout}: is of one data set, not of {len(images)}')
    data = load_data(images[0], layout, warn=False)
    known = {}
    for split in (data.train, data.query, data.gallery, data.test):
        for path, pid, camera in zip(split.paths, split.pids.tolist(), split.camids.tolist(), strict=True):
            vehicle = vehicle_number(data.identities[pid])
            known[path] = Facts(camera=str(camera) if data.has_cameras else '', vehicle=vehicle)
    return known
