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

from timm_dpa.train.data.mixing import load_sources
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.run.distributed import Processes
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.trainer import Trainer


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
                f'batch.per_epoch={args.batches}',
                'data.workers=0',
                'run.checkpoint_every=0',
                'run.tensorboard=false',
                'run.evaluate_every=0',
                'schedule.epochs=1000',
            ]
        )
        trainer = Trainer(recipe, load_sources(data, recipe.data), RunFolder(Path(folder) / 'run'), Processes(), False)
        learner = trainer.learner
        pixels, labels, rows, _ = next(trainer.batches.epoch(0))
        pixels = pixels.contiguous(memory_format=torch.channels_last)

        def ours() -> None:
            trainer.batch = 0
            trainer.train_epoch([(pixels, labels, rows, [])] * args.batches)

        def bare() -> None:
            for _ in range(args.batches):
                with torch.autocast('cpu', learner.autocast, enabled=learner.autocast is not None):
                    loss = learner.task(pixels, labels)['loss']
                loss.backward()
                learner.optimizer.step()
                learner.optimizer.zero_grad(set_to_none=True)

        with trainer.session():
            # images/s, so the other way round than times
            median, low, high = paired_ratio(bare, ours, args.pairs)
        precision = learner.autocast or torch.float32
        what = f'{args.model}, {args.batch} x {args.pixels} px, {precision}: loop / bare, images/s'
        show(what, (median, low, high), 'at least 0.95')


if __name__ == '__main__':
    main()
