"""`timm-dpa embed`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .common import Command, add_model_options, make_extractor
from .embed_gallery import add_gallery_options, refuse_gallery_options, run_gallery

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, and folders of them')
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument(
        '--out', metavar='FILE', help='.safetensors (resumed if it exists), .npy, .csv or .parquet file'
    )
    places.add_argument(
        '--gallery', metavar='URI', help='gallery to add to: folder, s3://, gs://, az://, http(s):// of Milvus'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace FILE where it holds other embeddings')
    parser.add_argument(
        '--on-error',
        choices=('report', 'raise'),
        default='report',
        help='list images that cannot be read in FILE.failures.csv, or stop at the first (default report)',
    )
    add_gallery_options(parser)
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.embed import embed_to_file
    from timm_dpa.embedding.files import check_format, written_files

    if args.out:
        check_format(Path(args.out))
        refuse_gallery_options(args)
    for image in args.images:
        if not os.path.lexists(image):  # a name that is wrong, unlike a file that is damaged
            raise FileNotFoundError(f'{image}: no such file or folder')
    if args.gallery:
        run_gallery(args)
        return
    report = embed_to_file(
        make_extractor(args), args.images, args.out, overwrite=args.overwrite, on_error=args.on_error
    )
    known = report.total - report.embedded
    print(f'{report.embedded} images embedded' + (f', {known} known from an earlier run' if known else ''))
    if report.failures:
        print(f'{len(report.failures)} could not be read: {report.failures_file}')
    out, *beside = written_files(Path(args.out))
    print(f'{report.total} embeddings in {out}' + ''.join(f', their names in {path}' for path in beside))


COMMAND = Command(
    'embed',
    'write the embeddings of images to a file or a gallery',
    'timm-dpa embed crops/ --out crops.safetensors\n'
    '  timm-dpa embed crops/ --gallery garage --camera north --time 2026-05-01T10:00:00Z',
    _add_arguments,
    _run,
    resumable=True,
)
