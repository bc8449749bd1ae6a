"""`timm-dpa convert`."""

from __future__ import annotations

import argparse

from .common import Command, add_image_size, image_size

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file of torch.save or safetensors')
    parser.add_argument('--from', dest='origin', required=True, choices=('fastreid', 'g-re-id', 'torchreid'))
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to make')
    add_image_size(parser)
    parser.add_argument('--last-stride', type=int, choices=(1, 2), help='stride of stage 4, if it was changed')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.hub.convert import convert_checkpoint

    options = {} if args.last_stride is None else {'last_stride': args.last_stride}
    print(convert_checkpoint(args.checkpoint, args.origin, args.out, image_size=image_size(args.image_size), **options))
    print(f'model: {args.out}')


COMMAND = Command(
    'convert',
    'turn a checkpoint of FastReID, of the authors of DpA or of torchreid into a model of this package',
    'timm-dpa convert model_best.pth --from fastreid --out converted/\n'
    '  timm-dpa embed crops/ --model converted/ --out crops.safetensors',
    _add_arguments,
    _run,
)
