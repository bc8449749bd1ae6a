"""Give the tracks of Roboflow's trackers their numbers back after an absence, by the embeddings of timm-dpa.

Needs `pip install timm-dpa supervision trackers`, frames, and the boxes of a detector:

    python examples/supervision_detections.py --frames img1/ --boxes det.txt --out tracks.txt
    python examples/supervision_detections.py --frames img1/ --boxes d.txt --model runs/dpa --threshold 0.6 --out t.txt

The trackers work on `supervision.Detections` and know places only. `extractor.embed_boxes(frame, detections)` takes the
same object; TrackLinker compares the embeddings of a track that begins with those of the tracks that are lost.
"""

import argparse
import sys

import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.supervision import TrackLinker


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
    import supervision as sv
    from trackers import ByteTrackTracker

    extractor = FeatureExtractor(args.model)
    threshold = threshold_of(extractor, args.threshold)
    tracker = ByteTrackTracker(lost_track_buffer=3, minimum_consecutive_frames=1)  # after 3 frames looks are better
    linker = TrackLinker(extractor, threshold)
    with open(args.out, 'w', encoding='utf-8') as file:
        for number, path in enumerate(frames, start=1):
            some = rows[rows[:, 0] == number]
            some = some[(some[:, 4:6] > some[:, 2:4]).all(axis=1)]
            detections = sv.Detections(some[:, 2:6], confidence=some[:, 6], class_id=np.zeros(len(some), int))
            linked = linker.update(path, tracker.update(detections))
            for (x1, y1, x2, y2), track in zip(linked.xyxy, linked.tracker_id, strict=True):
                if track >= 0:
                    file.write(f'{number},{track},{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},1,-1,-1,-1\n')


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
        print(f'supervision_detections.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
