"""Track vehicles with norfair, which finds those that it lost again by the embeddings of timm-dpa.

Needs `pip install timm-dpa norfair`, frames, and the boxes of a detector:

    python examples/norfair_tracker.py --frames img1/ --boxes det/det.txt --out tracks.txt
    python examples/norfair_tracker.py --frames img1/ --boxes det.txt --model runs/dpa --threshold 0.6 --out tracks.txt

Places link boxes from frame to frame. When a track begins, it is compared with the lost ones by looks;
`reid_distance_threshold` is 1 minus the threshold of the cosine.
"""

import argparse
import sys

import _mot

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.norfair import embedding_distance, norfair_detections


def run(args: argparse.Namespace) -> None:
    frames, rows = find_images(args.frames), _mot.read_boxes(args.boxes)
    from norfair import Tracker

    extractor = FeatureExtractor(args.model)
    threshold = _mot.threshold_of(extractor, args.threshold)
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
    return _mot.main(__file__, __doc__, run)


if __name__ == '__main__':
    sys.exit(main())
