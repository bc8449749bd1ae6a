"""FeatureExtractor.embed_boxes on a frame, compared with a call on crops that were cut before.

    python benchmarks/boxes.py [--model dpa_resnet18] [--boxes 12] [--repeats 9]

Both decode nothing, and resize and embed the same pixels; embed_boxes also cuts the boxes out of a frame of 1920 x 1080
pixels, and turns oriented ones upright. The last line compares 3 boxes a frame, frame by frame, with batches that cross
frames.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from timing import paired_ratio, show

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.boxes import crop_boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='dpa_resnet18')
    parser.add_argument('--boxes', type=int, default=12)
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--precision', default='auto')
    args = parser.parse_args()
    torch.set_num_threads(2)
    extractor = FeatureExtractor(args.model, pretrained=False, precision=args.precision)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    sizes = rng.uniform([80, 40], [140, 70], (args.boxes, 2))
    centers = rng.uniform([100, 100], [1820, 980], (args.boxes, 2))
    kinds = {
        'upright': np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1),
        'oriented': np.column_stack([centers, sizes, rng.uniform(-np.pi, np.pi, args.boxes)]),
    }
    name = f'{args.model}, {extractor.autocast_dtype or "float32"}'
    for kind, boxes in kinds.items():
        crops, _ = crop_boxes(frame, boxes, color='bgr')

        def ours(boxes: np.ndarray = boxes) -> None:
            extractor.embed_boxes(frame, boxes, color='bgr')

        def bare(crops: list[np.ndarray] = crops) -> None:
            extractor(crops, progress=False)

        show(f'{name}, {args.boxes} {kind} boxes / crops', paired_ratio(ours, bare, args.repeats), 'at most 1.20')

    pairs = [(frame, kinds['upright'][:3])] * 10

    def one_by_one() -> None:
        for frame, boxes in pairs:
            extractor.embed_boxes(frame, boxes, color='bgr')

    ratio = paired_ratio(lambda: list(extractor.embed_frames(pairs, color='bgr')), one_by_one, args.repeats)
    show(f'{name}, 10 frames of 3: embed_frames / embed_boxes', ratio, 'at most 1')


if __name__ == '__main__':
    main()
