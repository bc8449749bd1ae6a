"""What several images of a vehicle are worth over a single one, as queries and in the gallery: mAP and Rank-1.

    python benchmarks/tracklets.py --data STREET CROSSROAD [--model dpa_resnet50] [--cache build/bench/embeddings]

The last third of the images of each vehicle, in the order of their names, is the gallery, as in the protocol
first-last. Queries come from the images before it: the first image (this is first-last), and means of the first k or of
all, weighted by quality as in `timm-dpa search --tracklet`. Later images are nearer in time to the gallery and look
more like it; so the last of its images alone stands beside each mean. The gallery is searched as single images; as
tracks, each by its best image (`--by track`); and as tracks, each by the weighted mean of its images. With tracks there
is one right answer for each query, so that the mAP of tracks compares with that of tracks only, and Rank-1 with all.
Without --data the toy data set is used, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from embedded import Embedded, add_model_options, embed_data, make_extractor

from timm_dpa.gallery.tracklets import quality_mean
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.evaluation.metrics import RankingMetrics, evaluate, evaluate_distances

#: name of a query -> the images that it takes of those before the gallery
QUERIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'the first image': lambda rows: rows[:1],
    'the third image': lambda rows: rows[:3][-1:],
    'mean of the first 3': lambda rows: rows[:3],
    'the fifth image': lambda rows: rows[:5][-1:],
    'mean of the first 5': lambda rows: rows[:5],
    'the last image': lambda rows: rows[-1:],
    'mean of all': lambda rows: rows,
    'mean of all, equal weights': lambda rows: rows,
}


def mean_of(data: Embedded, rows: np.ndarray, weighted: bool = True) -> np.ndarray:
    return quality_mean(data.vectors[rows], data.qualities[rows].tolist() if weighted else [1.0] * len(rows))


def measure(data: Embedded) -> None:
    """Print a line for each kind of query."""
    cuts = [len(rows) - math.ceil(len(rows) / 3) for rows in data.tracks]
    before = {int(data.pids[rows[0]]): rows[:cut] for rows, cut in zip(data.tracks, cuts, strict=True) if cut}
    after = {int(data.pids[rows[0]]): rows[cut:] for rows, cut in zip(data.tracks, cuts, strict=True)}
    images = np.sort(np.concatenate(list(after.values())))
    pids, track_pids = np.array(list(before)), np.array(list(after))
    means = np.stack([mean_of(data, rows) for rows in after.values()])
    counts = [len(rows) for rows in before.values()]
    print(
        f'{data.name}: {len(pids)} vehicles with {np.median(counts):g} images before the gallery (median), '
        f'{len(images)} images and {len(after)} tracks in the gallery'
    )
    print(f'    {"query":28s} {"images":>15s} {"tracks by best":>15s} {"tracks by mean":>15s}   mAP / Rank-1 in %')
    for name, pick in QUERIES.items():
        query = np.stack([mean_of(data, pick(rows), 'equal' not in name) for rows in before.values()])
        best = np.stack([(query @ data.vectors[rows].T).max(axis=1) for rows in after.values()], axis=1)
        found = (
            evaluate(query, data.vectors[images], pids, data.pids[images]),
            evaluate_distances(-best, pids, track_pids),
            evaluate(query, means, pids, track_pids),
        )
        print(f'    {name:28s} ' + ' '.join(f'{_shown(metrics):>15s}' for metrics in found), flush=True)


def _shown(metrics: RankingMetrics) -> str:
    return f'{100 * metrics.mAP:.1f} / {100 * metrics.rank(1):.1f}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', nargs='+', default=[], help='data sets, in any layout that timm-dpa reads')
    add_model_options(parser)
    args = parser.parse_args()
    extractor = make_extractor(args)
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            draw_data_set(f'{folder}/toy', identities=12)
            measure(embed_data(f'{folder}/toy', extractor, Path(folder)))
        for root in args.data:
            measure(embed_data(root, extractor, args.cache or Path(folder)))


if __name__ == '__main__':
    main()
