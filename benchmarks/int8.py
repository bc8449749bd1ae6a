"""What 8 bits cost in retrieval: the same model in float32 and as a file of `timm-dpa export --int8`, on data sets.

    python benchmarks/int8.py --calibrate CROPS --data STREET CROSSROAD [--model dpa_resnet50]

Query and gallery are those of the protocol first-last on all vehicles. Without --data and --calibrate the toy data set
is used, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.export import export_model
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.evaluation.evaluate import evaluate_model


class Quantized(FeatureExtractor):
    """An extractor whose embeddings an ONNX file computes, which takes RGB in 0..1."""

    def __init__(self, file: Path, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        runtime = importlib.import_module('onnxruntime')
        self.session = runtime.InferenceSession(file, providers=['CPUExecutionProvider'])

    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        (found,) = self.session.run(None, {'images': pixels.float().numpy() / np.float32(255)})
        return torch.from_numpy(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='dpa_resnet50')
    parser.add_argument('--calibrate', metavar='CROPS', help='folder of images that calibrate')
    parser.add_argument('--data', nargs='+', default=[], help='data sets to evaluate on')
    parser.add_argument('--image-size', type=int)
    parser.add_argument('--min-cosine', type=float)
    args = parser.parse_args()
    options: dict[str, Any] = {'precision': 'fp32', 'device': 'cpu', 'image_size': args.image_size}
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            args.data = [f'{folder}/toy']
            draw_data_set(args.data[0], identities=12)
        plain = FeatureExtractor(args.model, **options)
        out = Path(folder, 'int8.onnx')
        report = export_model(
            plain.model,
            out,
            image_size=args.image_size,
            input='unit',
            precision='int8',
            calibrate=args.calibrate or args.data[0],
            min_cosine=args.min_cosine,
        )
        print(
            f'{args.model}, int8: {report.file_size / 1e6:.1f} MB, cosine to float32 {report.mean_cosine:.4f} on '
            f'average, {report.min_cosine:.4f} at least'
        )
        for name in args.data:
            data = load_data(name, test_fraction=1, warn=False)
            for label, extractor in (('float32', plain), ('int8', Quantized(out, args.model, **options))):
                metrics = evaluate_model(extractor, data, 'first-last').metrics
                values = f'mAP {100 * metrics["mAP"]:.2f}, Rank-1 {100 * metrics["rank1"]:.2f}'
                print(f'{Path(name).name}, {label}: {values}', flush=True)


if __name__ == '__main__':
    main()
