"""`timm-dpa embed`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .common import Command, add_model_options, make_extractor
from .crops import add_box_options
from .embed_gallery import add_gallery_options, refuse_gallery_options, run_gallery

if TYPE_CHECKING:
    from timm_dpa.embedding.embed import EmbedReport

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='*', metavar='IMAGE', help='image files, and folders of them')
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument(
        '--out', metavar='FILE', help='.safetensors (resumed if it exists), .npy, .csv or .parquet file'
    )
    places.add_argument(
        '--gallery', metavar='URI', help='gallery to add to: folder, s3://, gs://, az://, or http:// of a Milvus server'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace FILE where it holds other embeddings')
    parser.add_argument(
        '--on-error',
        choices=('report', 'raise'),
        default='report',
        help='list images that cannot be read in FILE.failures.csv, or stop at the first (default report)',
    )
    group = parser.add_argument_group('boxes of a video', 'instead of images')
    group.add_argument('--video', metavar='FILE', help='a video, whose boxes are embedded')
    group.add_argument('--frames', metavar='FOLDER', help='a folder of frames in its stead')
    group.add_argument('--boxes', metavar='FILE', help='boxes of a detector or a tracker')
    group.add_argument('--margin', type=float, default=0.0, metavar='M', help='share to add on each side (default 0)')
    add_box_options(group)
    add_gallery_options(parser)
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.files import check_format, written_files

    source = args.video or args.frames
    if bool(args.video) + bool(args.frames) + bool(args.images) != 1 or bool(source) != bool(args.boxes):
        raise ValueError('give images, or --video FILE --boxes FILE, or --frames FOLDER --boxes FILE')
    if args.out:
        check_format(Path(args.out))
        refuse_gallery_options(args)
    _check_inputs(args, source)
    if args.gallery:
        run_gallery(args, source)
        return
    report = _embed_boxes(args, source) if source else _embed_images(args)
    known = report.total - report.embedded
    kind = 'boxes' if source else 'images'
    print(f'{report.embedded} {kind} embedded' + (f', {known} known from an earlier run' if known else ''))
    if report.failures:
        print(f'{len(report.failures)} could not be read: {report.failures_file}')
    out, *beside = written_files(Path(args.out))
    print(f'{report.total} embeddings in {out}' + ''.join(f', their names in {path}' for path in beside))


def _check_inputs(args: argparse.Namespace, source: str | None) -> None:
    """Raise FileNotFoundError for a name that is wrong, unlike a file that is damaged."""
    for path, what in ((source, 'video, or folder of frames'), (args.boxes, 'file of boxes')):
        if path and not os.path.exists(path):
            raise FileNotFoundError(f'{path}: no such {what}')
    for image in args.images:
        if not os.path.lexists(image):
            raise FileNotFoundError(f'{image}: no such file or folder')


def _embed_boxes(args: argparse.Namespace, source: str) -> EmbedReport:
    from timm_dpa.embedding.box_embeddings import embed_boxes_to_file

    return embed_boxes_to_file(
        make_extractor(args),
        source,
        args.boxes,
        args.out,
        format=args.format,
        first_frame=args.first_frame,
        rate=args.rate,
        margin=args.margin,
        overwrite=args.overwrite,
        on_error=args.on_error,
    )


def _embed_images(args: argparse.Namespace) -> EmbedReport:
    from timm_dpa.embedding.embed import embed_to_file

    return embed_to_file(make_extractor(args), args.images, args.out, overwrite=args.overwrite, on_error=args.on_error)


COMMAND = Command(
    'embed',
    'write the embeddings of images to a file or a gallery',
    'timm-dpa embed crops/ --out crops.safetensors\n'
    '  timm-dpa embed --video clip.mp4 --boxes tracks.txt --out clip.safetensors\n'
    '  timm-dpa embed crops/ --gallery garage --camera north --time 2026-05-01T10:00:00Z',
    _add_arguments,
    _run,
    resumable=True,
)
