"""What color normalization does for retrieval: the same weights with and without it, on data sets.

    python benchmarks/color_norm.py --model dpa_resnet50.rendered --data STREET CROSSROAD TRACKS [--precision bf16]

Query and gallery are those of the protocol first-last, of all vehicles where a data set has no parts of its own.
Without --data the toy data set is used, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import timm

from timm_dpa import FeatureExtractor
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.evaluation.evaluate import evaluate_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='dpa_resnet50.rendered')
    parser.add_argument('--data', nargs='+', default=[], help='data sets to evaluate on')
    parser.add_argument('--image-size', type=int)
    parser.add_argument('--precision', default='auto')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            args.data = [f'{folder}/toy']
            draw_data_set(args.data[0], identities=12)
        for color_norm in (False, True):
            model = timm.create_model(args.model, pretrained=True, color_norm=color_norm)
            extractor = FeatureExtractor(model, precision=args.precision, image_size=args.image_size)
            for name in args.data:
                data = load_data(name, test_fraction=1, warn=False)
                metrics = evaluate_model(extractor, data, 'first-last').metrics
                values = f'mAP {100 * metrics["mAP"]:.2f}, Rank-1 {100 * metrics["rank1"]:.2f}'
                print(f'{Path(name).name}, color_norm={color_norm}: {values}', flush=True)


if __name__ == '__main__':
    main()
