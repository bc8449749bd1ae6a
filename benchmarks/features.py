"""FeatureExtractor on a folder of small JPEGs, compared with the bare model on tensors in memory.

    python benchmarks/features.py [--model dpa_resnet18] [--images 320] [--repeats 5]

Both use the same weights, precision, memory format, input size and batch size; the extractor also lists the folder,
decodes, resizes, normalizes and collects. The images are those of the toy data set: 128 x 128 px, JPEG quality 92.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from timing import paired_ratio, show

from timm_dpa import FeatureExtractor
from timm_dpa.train.data.toy_vehicles import draw_vehicle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='dpa_resnet18')
    parser.add_argument('--images', type=int, default=320)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--precision', default='auto')
    args = parser.parse_args()
    torch.set_num_threads(2)
    extractor = FeatureExtractor(args.model, pretrained=False, batch_size=args.batch_size, precision=args.precision)
    with tempfile.TemporaryDirectory() as folder:
        vehicles = [draw_vehicle(identity, 0) for identity in range(50)]
        for index in range(args.images):
            vehicles[index % len(vehicles)].save(Path(folder, f'{index:05d}.jpg'), quality=92)
        size = extractor.data_config['input_size'][1:]
        pixels = torch.randint(0, 256, (args.batch_size, 3, *size), dtype=torch.uint8)
        normalized = ((pixels - extractor.mean) / extractor.std).contiguous(memory_format=torch.channels_last)
        batches = [args.batch_size] * (args.images // args.batch_size) + [args.images % args.batch_size]

        def bare() -> None:
            dtype = extractor.autocast_dtype
            with (
                torch.inference_mode(),
                torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None),
            ):
                for batch in batches:
                    if batch:
                        extractor.model(normalized[:batch])

        median, low, high = paired_ratio(bare, lambda: extractor(folder), args.repeats)
        name = (
            f'{args.model}, {args.images} JPEGs, {extractor.autocast_dtype or "float32"}: images/s over the bare model'
        )
        show(name, (median, low, high), 'at least 0.90')
        start = time.process_time()
        extractor(folder)
        cpu = (time.process_time() - start) / args.images
        print(f'{args.model}: {cpu * 1000:.1f} ms of CPU an image, so {1 / cpu:.1f} images/s a core')


if __name__ == '__main__':
    main()
