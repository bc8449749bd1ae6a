"""How well colors alone identify rendered vehicles: mAP and Rank-1 of a color histogram and of raw pixels.

    python benchmarks/synth_difficulty.py [--data FOLDER]
    python benchmarks/synth_difficulty.py --ids 120 --images-per-id 12

Without a folder, a data set is rendered with the default options of `timm-dpa synth`, except those given. Fewer
vehicles are an easier gallery. A color histogram must stay below 40 % mAP.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from timm_dpa.synth.dataset import render_data_set
from timm_dpa.synth.plan import Plan
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.query_gallery import QueryGallery, pick_query_gallery
from timm_dpa.train.evaluation.metrics import evaluate


def histogram(image: Image.Image) -> np.ndarray:
    """Square roots of the shares of 8 x 8 x 8 colors: the product of two is Bhattacharyya's coefficient."""
    pixels = np.asarray(image).reshape(-1, 3) // 32
    counts = np.bincount(pixels @ [64, 8, 1], minlength=512)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def raw_pixels(image: Image.Image) -> np.ndarray:
    """32 x 32 pixels without their mean."""
    small = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32).ravel()
    return small - small.mean()


def score(data: QueryGallery, feature: Callable[[Image.Image], np.ndarray]) -> tuple[float, float]:
    """Return mAP and Rank-1."""
    features = []
    for part in (data.query, data.gallery):
        rows = []
        for path in part.paths:
            with Image.open(path) as image:
                rows.append(feature(image.convert('RGB')))
        features.append(np.stack(rows))
    found = evaluate(
        features[0],
        features[1],
        data.query.pids,
        data.gallery.pids,
        data.query.camids,
        data.gallery.camids,
        exclude_same_camera=data.exclude_same_camera,
    )
    return found.mAP, float(found.cmc[0])


def measure(root: Path) -> None:
    data = pick_query_gallery(load_data(root))
    vehicles = len(set(data.query.pids.tolist()))
    print(f'{len(data.query.paths)} queries, {len(data.gallery.paths)} images, {vehicles} vehicles')
    for name, feature, target in (
        ('color histogram', histogram, 'below 40 % mAP'),
        ('raw 32 x 32 pixels', raw_pixels, 'none'),
    ):
        mean_ap, rank1 = score(data, feature)
        print(f'{name:20s} mAP {100 * mean_ap:5.1f} %  Rank-1 {100 * rank1:5.1f} %   (target: {target})', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='an existing data set')
    parser.add_argument('--ids', type=int, default=1000, help='vehicles to render (default 1000)')
    parser.add_argument('--images-per-id', type=int, default=24, help='images of each vehicle (default 24)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.data:
        measure(args.data)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(render_data_set(Path(folder) / 'set', Plan(args.ids, args.images_per_id, seed=args.seed)))


if __name__ == '__main__':
    main()
