"""The renderer: images/s on all cores, and its time relative to that of embree alone for the same primary rays.

    python benchmarks/synth.py [--pixels 192] [--vehicles 12] [--images 12] [--pairs 3]

All crops have the same long side, and all the default options of `timm-dpa synth` are on: shadows, neighbors, sensor,
JPEG. Images/s are counted from the first file to the last, without the start of the processes. The floor holds for two
cores. The ratio is measured in one process; embree's time is that for the nearest hit of every ray from the camera,
without shading and shadows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from timing import paired_ratio, show

from timm_dpa.synth.dataset import render_data_set
from timm_dpa.synth.images import render_stills
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.render.tracing import Hits, Scene
from timm_dpa.synth.workers import count_cores
from timm_dpa.synth.world.assets import AssetCache


class _Rays:
    """The primary rays of a rendering, to trace again."""

    def __init__(self, plan: Plan, numbers: list[int], assets: AssetCache) -> None:
        self.calls: list[tuple] = []
        trace = Scene.trace

        def recorded(scene: Scene, origin: np.ndarray, directions: np.ndarray) -> Hits:
            self.calls.append((scene, (origin, directions)))
            return trace(scene, origin, directions)

        with patch.object(Scene, 'trace', recorded):
            render(plan, numbers, assets)
        self.count = sum(len(directions) for _, (_, directions) in self.calls)

    def trace(self) -> None:
        for scene, rays in self.calls:
            scene.intersect(*rays)


def render(plan: Plan, numbers: list[int], assets: AssetCache) -> None:
    for number in numbers:
        for _ in render_stills(plan, number, assets, {}):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pixels', type=int, default=192, help='long side of the crops (default 192)')
    parser.add_argument('--vehicles', type=int, default=12, help='vehicles for each core (default 12)')
    parser.add_argument('--images', type=int, default=12, help='images of each vehicle (default 12)')
    parser.add_argument('--pairs', type=int, default=3, help='pairs of measurements of the ratio (default 3)')
    args = parser.parse_args()
    cores = count_cores()
    plan = Plan(args.vehicles * cores, args.images, seed=0, sizes=(args.pixels, args.pixels), test_share=0)

    few, assets = [0, 5], AssetCache(plan.seed)
    rays = _Rays(plan, few, assets)
    ratio = paired_ratio(lambda: render(plan, few, assets), rays.trace, args.pairs)
    images = len(few) * args.images
    start = time.process_time()
    render(plan, few, assets)
    each = (time.process_time() - start) / images
    show(f'rendering / embree, {rays.count / images / 1000:.0f} k primary rays an image', ratio, 'none')
    what = f'an image of {args.pixels} px, one process'
    print(f'{what:58s} {1000 * each:6.1f} ms of CPU time, so at best {cores / each:.1f} images/s on {cores} free cores')

    with tempfile.TemporaryDirectory() as folder:
        root = render_data_set(Path(folder) / 'set', plan, workers=cores, progress=False)
        written = sorted(path.stat().st_mtime for path in root.rglob('*.jpg'))
    rate = (len(written) - 1) / (written[-1] - written[0])
    what = f'{len(written)} images of {args.pixels} px, {cores} processes'
    print(f'{what:58s} {rate:6.1f} images/s   (floor 25 on two cores)')


if __name__ == '__main__':
    main()
