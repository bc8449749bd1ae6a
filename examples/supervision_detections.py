"""Give the tracks of Roboflow's trackers their numbers back after an absence, by the embeddings of timm-dpa.

Needs `pip install timm-dpa supervision trackers`, frames, and the boxes of a detector:

    python examples/supervision_detections.py --frames img1/ --boxes det.txt --out tracks.txt
    python examples/supervision_detections.py --frames img1/ --boxes d.txt --model runs/dpa --threshold 0.6 --out t.txt

The trackers work on `supervision.Detections` and know places only. `extractor.embed_boxes(frame, detections)` takes the
same object; TrackLinker compares the embeddings of a track that begins with those of the tracks that are lost.
"""

import argparse
import sys

import _mot
import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.supervision import TrackLinker


def run(args: argparse.Namespace) -> None:
    frames, rows = find_images(args.frames), _mot.read_boxes(args.boxes)
    import supervision as sv
    from trackers import ByteTrackTracker

    extractor = FeatureExtractor(args.model)
    threshold = _mot.threshold_of(extractor, args.threshold)
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
    return _mot.main(__file__, __doc__, run)


if __name__ == '__main__':
    sys.exit(main())
