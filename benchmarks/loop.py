"""The training loop against bare forward, backward and step on the same batch in memory: time of an epoch.

    python benchmarks/loop.py [--model dpa_resnet18] [--pixels 128] [--batch 32] [--batches 20] [--pairs 5]

Images are in memory on both sides: what is measured is the loop's own work (schedule, log, progress, checks), not
decoding. Checkpoints and evaluations are left out, as how often they come is a setting.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from timing import paired_ratio, show

from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.run.distributed import Processes
from timm_dpa.train.run.log import RunLog
from timm_dpa.train.run.trainer import _Run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', default='dpa_resnet18')
    parser.add_argument('--pixels', type=int, default=128)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--batches', type=int, default=20)
    parser.add_argument('--pairs', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = draw_data_set(Path(folder) / 'drawn', 32, 8, size=64)
        recipe = Recipe().override(
            [
                f'model.name={args.model}',
                f'data.image_size={args.pixels}',
                f'batch.size={args.batch}',
                'data.workers=0',
                'run.checkpoint_every=0',
                'run.tensorboard=false',
                'schedule.epochs=1000',
            ]
        )
        run = _Run(recipe, data, Path(folder) / 'run', Processes(), progress=False)
        pixels, labels, _ = next(iter(run.loader))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        run.loader = [(pixels, labels, [])] * args.batches
        run.sampler._length = args.batches
        run.frozen = False
        run._save = lambda: None

        def ours() -> None:
            run._train_epoch()
            run.batch, run.sums = 0, {}

        def bare() -> None:
            for _ in range(args.batches):
                with torch.autocast('cpu', run.autocast, enabled=run.autocast is not None):
                    loss = run.task(pixels, labels)['loss']
                loss.backward()
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)

        with RunLog(run.out, 0, True, False) as run.log, run._bar(1000) as run.bar:
            # images/s, so the other way round than times
            median, low, high = paired_ratio(bare, ours, args.pairs)
        what = f'{args.model}, {args.batch} x {args.pixels} px, {run.autocast or torch.float32}: loop / bare, images/s'
        show(what, (median, low, high), 'at least 0.95')


if __name__ == '__main__':
    main()
