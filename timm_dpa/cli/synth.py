"""`timm-dpa synth`."""

from __future__ import annotations

import argparse

from timm_dpa.files import atomic_file
from timm_dpa.synth.plan import CAMERAS, MAX_DEGRADATION, Plan

from .common import Command, check_output

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', required=True, metavar='ROOT', help='folder to make; resumed if it holds a part')
    parser.add_argument('--ids', type=int, default=Plan.ids, metavar='N', help='vehicles (default %(default)s)')
    parser.add_argument(
        '--images-per-id',
        type=int,
        default=Plan.images_per_id,
        metavar='N',
        help='images of each (default %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=Plan.seed, metavar='N', help='seed of the whole data set (default %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=list(Plan.sizes),
        metavar='PX',
        help=f'shortest and longest long side of the crops (default {Plan.sizes[0]} {Plan.sizes[1]})',
    )
    parser.add_argument(
        '--siblings', type=int, default=Plan.siblings, metavar='N', help='vehicles of one model (default %(default)s)'
    )
    parser.add_argument(
        '--alike',
        type=float,
        default=Plan.alike,
        metavar='P',
        help='share of models of one color each (default %(default)s)',
    )
    parser.add_argument(
        '--cameras',
        type=int,
        metavar='N',
        help=f'flights that see a vehicle (default {CAMERAS}; always 1 with --tracks)',
    )
    parser.add_argument(
        '--flights',
        type=int,
        default=Plan.flights,
        metavar='N',
        help='flights in total, each a camera with its own place, light and altitude; two fifths of them see the test '
        'vehicles only (default %(default)s)',
    )
    parser.add_argument(
        '--degradation',
        type=float,
        default=Plan.degradation,
        metavar='D',
        help='haze, blur, noise, color cast and JPEG: 0 = none, 1 = typical drone footage, '
        f'at most {MAX_DEGRADATION} (default %(default)s)',
    )
    parser.add_argument(
        '--test-share',
        type=float,
        default=Plan.test_share,
        metavar='F',
        help='models held out for the test (default %(default)s)',
    )
    parser.add_argument(
        '--tracks',
        action='store_true',
        help='the images of a vehicle are 10 to 30 frames of one flight that watches it turn while the drone climbs: '
        'heading, size, light and haze change from frame to frame; evaluated first-last (use --images-per-id 20)',
    )
    parser.add_argument('--preview', metavar='FILE', help='contact sheet to draw, a vehicle in each row')
    parser.add_argument('--workers', type=int, metavar='N', help='processes (default: one for each core)')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.synth.dataset import render_data_set

    if len(args.size) > 2:
        raise ValueError('--size takes one length, or the shortest and the longest')
    plan = Plan(
        args.ids,
        args.images_per_id,
        seed=args.seed,
        sizes=(args.size[0], args.size[-1]),
        siblings=args.siblings,
        alike=args.alike,
        cameras=args.cameras,
        flights=args.flights,
        test_share=args.test_share,
        degradation=args.degradation,
        tracks=args.tracks,
    )
    if args.preview and not args.preview.lower().endswith(('.png', '.jpg', '.jpeg')):
        raise ValueError(f'--preview {args.preview}: the name must end in .png or .jpg')
    check_output(args.preview)
    folder = render_data_set(args.out, plan, workers=args.workers)
    print(
        f'{plan.ids} rendered vehicles (synthetic images), {plan.held_out} of them for the test, '
        f'{plan.images_per_id} images of each'
    )
    if args.preview:
        from timm_dpa.synth.preview import contact_sheet

        with atomic_file(args.preview) as temporary:
            contact_sheet(folder, plan, temporary)
        print(f'preview: {args.preview}')
    print(f'data: {folder}')


COMMAND = Command(
    'synth',
    'render a data set of vehicles as a drone sees them; rerun the command to resume',
    'timm-dpa synth --out rendered --ids 1000 --images-per-id 24 --seed 0 --preview sheet.png',
    _add_arguments,
    _run,
    resumable=True,
)
