"""Track vehicles with deep-sort-realtime and the embeddings of timm-dpa.

Needs `pip install timm-dpa deep-sort-realtime`, frames, and the boxes of a detector:

    python examples/deep_sort.py --frames img1/ --boxes det/det.txt --out tracks.txt
    python examples/deep_sort.py --frames img1/ --boxes det.txt --model runs/dpa --threshold 0.6 --out tracks.txt

It takes a cosine distance: `max_cosine_distance` is 1 minus the threshold. Boxes that are damaged or outside of their
frame are left out of both of its lists, since it does not notice when these are of different lengths.
"""

import argparse
import sys

import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.deep_sort_realtime import deep_sort_inputs


def read_boxes(path: str) -> np.ndarray:
    """Rows of MOTChallenge: number of the frame from 1, vehicle or -1, x, y, w, h, score."""
    rows = np.loadtxt(path, delimiter=',', usecols=range(7), ndmin=2)
    rows[:, 4:6] += rows[:, 2:4]  # to edges
    return rows


def threshold_of(extractor: FeatureExtractor, given: float | None) -> float:
    """The given one, or that at which one in a hundred pairs of different vehicles passed with these weights."""
    if given is None and not extractor.thresholds:
        raise ValueError('no threshold is known of these weights; give --threshold')
    return given if given is not None else (extractor.thresholds or {})[0.01]


def run(args: argparse.Namespace) -> None:
    frames, rows = find_images(args.frames), read_boxes(args.boxes)
    from deep_sort_realtime.deepsort_tracker import DeepSort

    extractor = FeatureExtractor(args.model)
    threshold = threshold_of(extractor, args.threshold)
    tracker = DeepSort(embedder=None, max_cosine_distance=1 - threshold, n_init=2)
    with open(args.out, 'w', encoding='utf-8') as file:
        for number, path in enumerate(frames, start=1):
            some = rows[rows[:, 0] == number]
            inputs = deep_sort_inputs(extractor, path, some[:, 2:6], some[:, 6])
            for track in tracker.update_tracks(*inputs):
                if track.is_confirmed() and track.time_since_update == 0:
                    x, y, w, h = track.to_ltwh(orig=True)
                    file.write(f'{number},{track.track_id},{x:.1f},{y:.1f},{w:.1f},{h:.1f},1,-1,-1,-1\n')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', required=True, metavar='FOLDER', help='images, in the order of time by their names')
    parser.add_argument('--boxes', required=True, metavar='FILE', help='rows of MOTChallenge, of a detector')
    parser.add_argument('--model', default='dpa_resnet50', help='a name, or the folder of a run (default %(default)s)')
    parser.add_argument(
        '--threshold', type=float, metavar='COSINE', help='of one vehicle (default is that of the weights)'
    )
    parser.add_argument('--out', required=True, metavar='FILE', help='tracks to write, rows of MOTChallenge')
    args = parser.parse_args()
    try:
        run(args)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f'deep_sort.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
