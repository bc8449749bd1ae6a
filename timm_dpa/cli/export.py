"""`timm-dpa export`."""

from __future__ import annotations

import argparse
import sys

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
    pixels = parser.add_argument_group('pixels')
    pixels.add_argument(
        '--input',
        choices=('normalized', 'unit', 'uint8-bgr'),
        help='what the file takes: normalized floats (default), RGB in 0..1, or bytes N x H x W x BGR as in OpenCV',
    )
    pixels.add_argument(
        '--for',
        dest='consumer',
        choices=('ultralytics', 'boxmot', 'openvino'),
        help='program that runs the file: decides --input, and is imitated in the check',
    )
    smaller = parser.add_argument_group('smaller files')
    kinds = smaller.add_mutually_exclusive_group()
    kinds.add_argument('--half', action='store_true', help='float16 inside, float32 in and out')
    kinds.add_argument('--int8', action='store_true', help='8 bits inside, by static quantization of onnxruntime')
    smaller.add_argument(
        '--calibrate', nargs='+', metavar='IMAGES', help='for --int8: images and folders, a hundred or more'
    )
    smaller.add_argument(
        '--min-cosine',
        type=float,
        metavar='C',
        help='refuse a file of lower mean cosine to float32 (default 0.999 for --half, 0.98 for --int8)',
    )


def _run(args: argparse.Namespace) -> None:
    if args.int8 != (args.calibrate is not None):
        raise ValueError('--int8 and --calibrate IMAGES belong together: 8 bits need images to find their range')
    if args.min_cosine is not None and not (args.int8 or args.half):
        raise ValueError('--min-cosine is for --int8 and --half; float32 files are compared number by number')
    from timm_dpa.embedding.export import export_model
    from timm_dpa.embedding.export_inputs import CONSUMERS
    from timm_dpa.embedding.models import create_embedding_model

    if args.consumer and args.dynamic_size:
        consumer = CONSUMERS[args.consumer]
        print(
            f'timm-dpa export: --dynamic-size leaves the size to {consumer.title}: {consumer.own_size}; leave the '
            "option out for the model's own size",
            file=sys.stderr,
        )
    size = image_size(args.image_size)
    report = export_model(
        create_embedding_model(model_source(args.model), args.checkpoint, size),
        args.out,
        format=args.format,
        image_size=size,
        dynamic_size=args.dynamic_size,
        opset=args.opset,
        batch=args.batch,
        input=args.input,
        consumer=args.consumer,
        precision='int8' if args.int8 else 'half' if args.half else 'float32',
        calibrate=args.calibrate,
        min_cosine=args.min_cosine,
    )
    sizes = ', '.join(f'{height} x {width}' for height, width in report.image_sizes)
    print(f'{report.format}, {report.file_size / 1e6:.1f} MB, checked with images of {sizes}')
    print(f'largest difference from PyTorch: {report.max_difference:.2g} (allowed {report.tolerance:.2g})')
    if report.precision != 'float32':
        what = f'{report.images} images held out' if args.int8 else f'{report.images} random images'
        print(
            f'{report.precision}: cosine to float32 {report.mean_cosine:.4f} on average, {report.min_cosine:.4f} at '
            f'least, on {what}; {report.file_size / report.float32_size:.2f} of {report.float32_size / 1e6:.1f} MB'
        )
    if report.consumer_cosine is not None:
        title = CONSUMERS[args.consumer].title
        print(f'cosine to FeatureExtractor with the resizing of {title}: at least {report.consumer_cosine:.4f}')
    print(f'input: {_described(report.metadata)}')
    if report.sidecar:
        print(f'for BoxMOT: {report.sidecar}')
    print(f'model: {report.path}')


def _described(metadata: dict[str, object]) -> str:
    size = metadata['input_size']
    assert isinstance(size, list)
    channels, height, width = size
    shape = f'{height} x {width} x {channels}' if metadata['layout'] == 'NHWC' else f'{channels} x {height} x {width}'
    normalized = ', normalized by the mean and std in its metadata' if metadata['input'] == 'normalized' else ''
    return (
        f'{metadata["input_type"]} {metadata.get("batch", "N")} x {shape}, pixels {metadata["pixel_range"]}{normalized}'
    )


COMMAND = Command(
    'export',
    'write a model as an ONNX or torch.export file, checked against PyTorch',
    'timm-dpa export dpa_resnet50 --format onnx --out dpa_resnet50.onnx',
    _add_arguments,
    _run,
)
