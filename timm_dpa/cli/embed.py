"""`timm-dpa embed`."""

from __future__ import annotations

import argparse

from .common import Command, add_model_options, make_extractor

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, and folders of them')
    parser.add_argument(
        '--out', required=True, metavar='FILE', help='embeddings file to write (safetensors); resumed if it exists'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace FILE where it holds other embeddings')
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.files import embed_to_file

    report = embed_to_file(make_extractor(args), args.images, args.out, overwrite=args.overwrite)
    known = report.total - report.embedded
    print(f'{report.embedded} images embedded' + (f', {known} known from an earlier run' if known else ''))
    if report.failures:
        print(f'{len(report.failures)} could not be read: {report.failures_file}')
    print(f'{report.total} embeddings in {args.out}')


COMMAND = Command(
    'embed',
    'write the embeddings of images to a file',
    'timm-dpa embed crops/ --out crops.safetensors',
    _add_arguments,
    _run,
    resumable=True,
)
