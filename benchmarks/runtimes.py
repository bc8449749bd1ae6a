"""What computes embeddings on this machine, side by side: images a second, as a multiple of torch in float32.

    python benchmarks/runtimes.py [--model dpa_resnet50] [--rounds 5] [--batch-size 8] [--calibrate IMAGES]

Every round runs each of them once on the same random pixels; the medians of the ratios to torch of the same round are
printed. Runtimes that are not installed are left out. Then a folder of JPEGs becomes vectors, decoding and resizing
included, as a share of the rate of the bare runtime on as many images: in turns, pair by pair.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import paired_ratio, seconds, show
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.export import export_model
from timm_dpa.train.data.toy_vehicles import draw_vehicle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='dpa_resnet50')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--images', type=int, default=64, help='JPEGs of the folder (default %(default)s)')
    parser.add_argument('--image-size', type=int, help="default: the model's own")
    parser.add_argument('--random', action='store_true', help='random weights, for a model that has no others')
    parser.add_argument('--calibrate', nargs='+', metavar='IMAGES', help='for int8 (default: drawn vehicles)')
    args = parser.parse_args()
    names = [name for name in ('onnxruntime', 'openvino') if importlib.util.find_spec(name)]
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder, 'crops')
        crops.mkdir()
        for index in range(max(args.images, 8)):
            draw_vehicle(index % 50, index // 50).save(crops / f'{index:05d}.jpg', quality=92)
        extractors = {'torch': make(args, precision='fp32')}
        extractors |= {name: make(args, precision='fp32', runtime=name) for name in names}
        if 'openvino' in names:
            extractors['openvino, its own choice'] = make(args, runtime='openvino')
        embedders = bare(args, extractors, args.calibrate or [str(crops)], Path(folder))
        size = extractors['torch'].data_config['input_size'][1:]
        pixels = torch.randint(0, 256, (args.batch_size, 3, *size), dtype=torch.uint8)
        print_rates(embedders, pixels, args)
        for name, extractor in extractors.items():
            print_share(name, extractor, crops, pixels, args)


def make(args: argparse.Namespace, **options: Any) -> FeatureExtractor:
    pretrained = False if args.random else None
    return FeatureExtractor(
        args.model, pretrained, device='cpu', batch_size=args.batch_size, image_size=args.image_size, **options
    )


def bare(
    args: argparse.Namespace, extractors: dict[str, FeatureExtractor], images: list[str], folder: Path
) -> dict[str, Callable[[torch.Tensor], object]]:
    """What takes bytes in memory; torch in float32, with contiguous maps, is the first."""
    torch_extractor = extractors['torch']
    contiguous, other = make(args, precision='fp32'), make(args, precision='fp32')
    contiguous.model.to(memory_format=torch.contiguous_format)
    other.model = folded(other.model).to(memory_format=torch.channels_last)
    check_same(torch_extractor, other)
    found: dict[str, Callable[[torch.Tensor], object]] = {
        'torch float32': contiguous.embed_pixels,
        'torch float32, channels_last': torch_extractor.embed_pixels,
        'torch float32, channels_last, batch norm folded': other.embed_pixels,
        'torch bf16, channels_last': make(args, precision='bf16').embed_pixels,
    }
    if 'onnxruntime' in extractors:
        import onnxruntime

        size = torch_extractor.data_config['input_size'][1:]
        report = export_model(
            torch_extractor.model,
            folder / 'int8.onnx',
            image_size=size,
            input='uint8-rgb',
            precision='int8',
            calibrate=images,
            min_cosine=-1,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(report.path, options, providers=['CPUExecutionProvider'])
        found['onnxruntime float32'] = extractors['onnxruntime'].embed_pixels
        found[f'onnxruntime int8, cosine {report.mean_cosine:.4f}'] = lambda pixels: session.run(
            None, {'images': pixels.numpy()}
        )
    if 'openvino' in extractors:
        chosen = extractors['openvino, its own choice']
        found['openvino float32'] = extractors['openvino'].embed_pixels
        assert chosen._graph is not None
        found[f'openvino, its own choice: {chosen._graph.computes_in}'] = chosen.embed_pixels
    return found


def folded(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode; batch norms that timm's ResNets run right after a convolution go into it."""
    network = copy.deepcopy(model).eval()
    for module in list(network.modules()):
        pairs = [(f'conv{k}', f'bn{k}') for k in (1, 2, 3)]
        if isinstance(module, nn.Sequential):
            names = list(module._modules)
            pairs += list(itertools.pairwise(names))
        for first, second in pairs:
            convolution: Any = module._modules.get(first)
            norm = module._modules.get(second)
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                module._modules[first] = fuse_conv_bn_eval(convolution, norm)
                module._modules[second] = nn.Identity()
    return network


def check_same(first: FeatureExtractor, second: FeatureExtractor) -> None:
    crop = np.asarray(draw_vehicle(0, 0))
    difference = float(np.abs(first(crop) - second(crop)).max())
    print(f'batch norm folded: embeddings differ by {difference:.1e} from those of torch')


def print_rates(
    embedders: dict[str, Callable[[torch.Tensor], object]], pixels: torch.Tensor, args: argparse.Namespace
) -> None:
    times: dict[str, list[float]] = {name: [] for name in embedders}
    for round_ in range(args.rounds + 1):
        for name, embed in embedders.items():
            taken = seconds(lambda embed=embed: embed(pixels))  # type: ignore[misc]
            if round_:  # the first is the warm-up
                times[name].append(taken)
    baseline, *_ = times.values()
    where = f'{args.model}, batch {args.batch_size}, {torch.get_num_threads()} threads'
    for name, values in times.items():
        ratios = [first / own for first, own in zip(baseline, values, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
        show(f'{where}: {name}', (median, low, high), 'none; torch float32 = 1')


def print_share(
    name: str, extractor: FeatureExtractor, crops: Path, pixels: torch.Tensor, args: argparse.Namespace
) -> None:
    batches = len(list(crops.iterdir())) // args.batch_size

    def bare_runtime() -> None:
        for _ in range(batches):
            extractor.embed_pixels(pixels)

    files = sorted(crops.iterdir())[: batches * args.batch_size]
    ratio = paired_ratio(bare_runtime, lambda: extractor(files), args.rounds)
    show(f'{args.model}, {len(files)} JPEGs: images/s over bare {name}', ratio, 'at least 0.90')


if __name__ == '__main__':
    main()
