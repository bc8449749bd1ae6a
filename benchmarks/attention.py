"""What dual-pooling attention adds to a ResNet-50: time of dpa_resnet50 relative to that of reid_resnet50.

    python benchmarks/attention.py [--repeats 15] [--depth 50] [--pixels 256]

Batch 8, float32, two threads. The floor is the ratio of counted multiply-accumulate operations: what the
attention would cost if its matrix products were as fast as the backbone's and everything else were free.
"""

from __future__ import annotations

import argparse

import timm
import torch
from timing import paired_ratio, show
from torch.utils.flop_counter import FlopCounterMode

import timm_dpa  # noqa: F401 registers the models

TARGETS = {'forward': 'at most 1.05', 'training step': 'at most 1.08'}


def step(model: torch.nn.Module, images: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model(images).square().mean().backward()


def counted(model: torch.nn.Module, images: torch.Tensor, training: bool) -> int:
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        step(model, images) if training else model(images)
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=15, help='pairs of measurements (default 15)')
    parser.add_argument('--depth', type=int, default=50, choices=(18, 50))
    parser.add_argument('--pixels', type=int, default=256, help='side of the images (default 256)')
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    dpa, reid = (timm.create_model(f'{name}_resnet{args.depth}') for name in ('dpa', 'reid'))
    images = torch.randn(8, 3, args.pixels, args.pixels)
    for name, memory_format in (('contiguous', torch.contiguous_format), ('channels_last', torch.channels_last)):
        for model in (dpa, reid):
            model.to(memory_format=memory_format)
        x = images.to(memory_format=memory_format)
        for what, target in TARGETS.items():
            training = what == 'training step'
            dpa.train(training), reid.train(training)
            if training:
                ratio = paired_ratio(lambda: step(dpa, x), lambda: step(reid, x), args.repeats)  # noqa: B023
            else:
                with torch.inference_mode():
                    ratio = paired_ratio(lambda: dpa(x), lambda: reid(x), args.repeats)  # noqa: B023
            show(f'dpa_resnet{args.depth} / reid_resnet{args.depth}, {what}, {name}', ratio, target)
            if name == 'contiguous':
                floor = counted(dpa, x[:2], training) / counted(reid, x[:2], training)
                print(f'{f"    floor from counted operations, {what}":58s} {floor:6.3f} x')


if __name__ == '__main__':
    main()
