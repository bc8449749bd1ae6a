"""`timm-dpa crops`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from timm_dpa.embedding.box_formats import BOX_FORMATS

from .common import Command

__all__ = ['COMMAND', 'add_box_options']


def add_box_options(parser: Any) -> None:
    """The options of a file of boxes and its frames, which several commands have."""
    parser.add_argument('--format', default='auto', choices=('auto', *BOX_FORMATS), help='of the boxes (default auto)')
    parser.add_argument(
        '--first-frame', type=int, metavar='N', help='number of the first frame of a video (default: 0 or 1, as boxes)'
    )
    parser.add_argument('--rate', type=float, metavar='FPS', help='frames a second of a folder of images')


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'sequences',
        nargs='+',
        metavar='SOURCE',
        help='folders of annotated sequences (MOTChallenge, VisDrone-MOT, UAVDT); with --boxes a video or a folder',
    )
    parser.add_argument('--boxes', metavar='FILE', help='boxes with tracks of the one SOURCE')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder of the crops; resumed if it exists')
    parser.add_argument('--every', type=int, default=1, metavar='N', help='only frames divisible by N (default 1)')
    parser.add_argument(
        '--min-visibility', type=float, default=0.0, metavar='V', help='least share of a vehicle that is seen, 0 to 1'
    )
    parser.add_argument(
        '--min-side', type=float, default=2, metavar='PX', help='least side of a box in the frame (default 2)'
    )
    parser.add_argument('--classes', nargs='+', default=(), metavar='NAME', help='only boxes of these classes')
    parser.add_argument('--half', choices=('first', 'second'), help='only this half of the frames')
    parser.add_argument(
        '--margin', type=float, default=0.0, metavar='M', help='share of the box to add on each side (default 0)'
    )
    add_box_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.crop_files import CropOptions, write_crops
    from timm_dpa.embedding.sequences import find_sequences, named_sequence

    options = CropOptions(
        args.every, args.min_visibility, args.min_side, tuple(args.classes), args.half, args.margin, args.first_frame
    )
    if args.boxes:
        if len(args.sequences) > 1:
            raise ValueError(f'--boxes {args.boxes}: is of one video or folder, not of {len(args.sequences)}')
        sequences = [named_sequence(args.sequences[0], args.boxes, args.format, args.rate)]
    else:
        if files := [name for name in args.sequences if Path(name).is_file()]:
            raise ValueError(f'{files[0]}: a video needs its boxes: --boxes FILE')
        if args.format != 'auto' or args.rate is not None:
            raise ValueError('--format and --rate are for --boxes; a data set has its own')
        sequences = [sequence for name in args.sequences for sequence in find_sequences(name)]
    report = write_crops(sequences, Path(args.out), options)
    known = report.crops - report.written
    print(
        f'{report.crops} crops of {report.vehicles} vehicles in {report.sequences} '
        f'sequence{"s" * (report.sequences > 1)}' + (f', {known} of them known from an earlier run' if known else '')
    )
    if report.skipped:
        print(f'{report.skipped} boxes are left out: outside of their frame, or smaller than {args.min_side:g} pixels')
    for name, first in report.first_frames.items():
        print(f'{name}: the first frame is number {first}, as the boxes count (--first-frame changes it)')
    print(f'table: {report.table}')


COMMAND = Command(
    'crops',
    'cut vehicles with identities out of videos and annotated sequences',
    'timm-dpa crops MOT17/train --every 10 --out crops\n  timm-dpa crops clip.mp4 --boxes tracks.txt --out crops',
    _add_arguments,
    _run,
    resumable=True,
)
