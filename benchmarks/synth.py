"""The renderer: images/s on all cores, and its time over that of embree alone for the same primary rays.

    python benchmarks/synth.py [--pixels 192] [--vehicles 12] [--images 12] [--pairs 3]

Crops have one length of their long side; each has all the default options bring: shadows, neighbours, sensor, JPEG.
Images/s include the start of the processes, so few vehicles are slow. The floor holds on two cores. The ratio is taken
in one process; embree's time is that for the nearest hit of every ray from the camera, without shading and shadows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from timing import paired_ratio, seconds, show

from timm_dpa.train.synthetic.dataset import Plan, render_data_set, render_identity
from timm_dpa.train.synthetic.scenes import Studio
from timm_dpa.train.synthetic.tracing import Scene


class _Rays:
    """The primary rays of a rendering, to trace again."""

    def __init__(self, plan: Plan, numbers: list[int], studio: Studio) -> None:
        self.calls: list[tuple] = []
        trace = Scene.trace

        def recorded(scene: Scene, *rays):
            self.calls.append((scene, rays))
            return trace(scene, *rays)

        Scene.trace = recorded
        try:
            render(plan, numbers, studio)
        finally:
            Scene.trace = trace
        self.count = sum(len(directions) for _, (_, directions) in self.calls)

    def trace(self) -> None:
        for scene, rays in self.calls:
            scene._meet(*rays)


def render(plan: Plan, numbers: list[int], studio: Studio) -> None:
    for number in numbers:
        for _ in render_identity(plan, number, studio, {}):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pixels', type=int, default=192, help='long side of the crops (default 192)')
    parser.add_argument('--vehicles', type=int, default=12, help='of each core (default 12)')
    parser.add_argument('--images', type=int, default=12, help='of each vehicle (default 12)')
    parser.add_argument('--pairs', type=int, default=3, help='of measurements of the ratio (default 3)')
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    plan = Plan(args.vehicles * cores, args.images, seed=0, sizes=(args.pixels, args.pixels), test_share=0)

    few, studio = [0, 5], Studio(plan.seed)
    rays = _Rays(plan, few, studio)
    ratio = paired_ratio(lambda: render(plan, few, studio), rays.trace, args.pairs)
    images = len(few) * args.images
    show(f'rendering / embree, {rays.count / images / 1000:.0f} k primary rays an image', ratio, 'none')

    with tempfile.TemporaryDirectory() as folder:
        took = seconds(lambda: render_data_set(Path(folder) / 'set', plan, workers=cores, progress=False))
    count = plan.ids * plan.images_per_id
    what = f'{count} images of {args.pixels} px, {cores} processes'
    print(f'{what:58s} {count / took:6.1f} images/s   (floor 25 on two cores)')


if __name__ == '__main__':
    main()
