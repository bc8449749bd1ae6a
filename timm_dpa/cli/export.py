"""`timm-dpa export`."""

from __future__ import annotations

import argparse

from .common import Command, add_image_size, image_size, model_source

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', metavar='MODEL', help='name of a model, hf-hub:org/name, or run folder')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write')
    parser.add_argument('--format', choices=('onnx', 'torch-export'), default='onnx', help='default onnx')
    add_image_size(parser)
    parser.add_argument('--dynamic-size', action='store_true', help='accept images of any size')
    parser.add_argument('--batch', type=int, metavar='N', help='images in every batch (default any number)')
    parser.add_argument(
        '--opset', type=int, default=18, metavar='N', help='ONNX operator set, from 16 (default %(default)s)'
    )
    parser.add_argument('--checkpoint', metavar='FILE', help='weights to load into the model')


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.export import export_model
    from timm_dpa.embedding.models import create_embedding_model

    size = image_size(args.image_size)
    report = export_model(
        create_embedding_model(model_source(args.model), args.checkpoint, size),
        args.out,
        format=args.format,
        image_size=size,
        dynamic_size=args.dynamic_size,
        opset=args.opset,
        batch=args.batch,
    )
    sizes = ', '.join(f'{height} x {width}' for height, width in report.image_sizes)
    print(f'{report.format}, {report.file_size / 1e6:.1f} MB, checked with images of {sizes}')
    print(f'largest difference from PyTorch: {report.max_difference:.2g} (allowed {report.tolerance:.2g})')
    print(f'model: {report.path}')


COMMAND = Command(
    'export',
    'write a model as an ONNX or torch.export file, checked against PyTorch',
    'timm-dpa export dpa_resnet50 --format onnx --out dpa_resnet50.onnx',
    _add_arguments,
    _run,
)
