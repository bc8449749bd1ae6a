"""Track vehicles with norfair, which finds those that it lost again by the embeddings of timm-dpa.

Needs `pip install timm-dpa norfair`, frames, and the boxes of a detector:

    python examples/norfair_tracker.py --frames img1/ --boxes det/det.txt --out tracks.txt
    python examples/norfair_tracker.py --frames img1/ --boxes det.txt --model runs/dpa --threshold 0.6 --out tracks.txt

Places link boxes from frame to frame. When a track begins, it is compared with the lost ones by looks;
`reid_distance_threshold` is 1 minus the threshold of the cosine.
"""

import argparse
import sys

import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.norfair import embedding_distance, norfair_detections


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
    from norfair import Tracker

    extractor = FeatureExtractor(args.model)
    threshold = threshold_of(extractor, args.threshold)
    tracker = Tracker(
        distance_function='iou',
        distance_threshold=0.7,
        hit_counter_max=3,
        initialization_delay=1,
        past_detections_length=10,
        reid_distance_function=embedding_distance,
        reid_distance_threshold=1 - threshold,
        reid_hit_counter_max=100,
    )
    with open(args.out, 'w', encoding='utf-8') as file:
        for number, path in enumerate(frames, start=1):
            some = rows[rows[:, 0] == number]
            detections = norfair_detections(extractor, path, some[:, 2:6], some[:, 6])
            for track in tracker.update(detections):
                if any(track.last_detection is detection for detection in detections):  # seen in this frame
                    (x, y), (right, bottom) = track.last_detection.points
                    file.write(f'{number},{track.id},{x:.1f},{y:.1f},{right - x:.1f},{bottom - y:.1f},1,-1,-1,-1\n')


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
        print(f'norfair_tracker.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
