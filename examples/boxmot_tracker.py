"""Track vehicles with BoxMOT and the embeddings of timm-dpa.

Needs `pip install timm-dpa boxmot` (BoxMOT is under the AGPL), frames, and the boxes of a detector:

    python examples/boxmot_tracker.py --frames img1/ --boxes det/det.txt --out tracks.txt
    python examples/boxmot_tracker.py --frames img1/ --boxes det.txt --model runs/dpa --threshold 0.6 --out tracks.txt

BoxMOT's trackers ask `reid_model` for features, here a BoxMOTEmbedder; frames are BGR, as OpenCV reads them.
`appearance_thresh` is 1 minus the threshold of the cosine. `proximity_thresh=1` lets looks decide where boxes do not
overlap, which is what finds a vehicle again.
"""

import argparse
import sys

import _mot
import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.boxmot import BoxMOTEmbedder


def run(args: argparse.Namespace) -> None:
    frames, rows = find_images(args.frames), _mot.read_boxes(args.boxes)
    import cv2
    from boxmot import BotSort

    extractor = FeatureExtractor(args.model)
    threshold = _mot.threshold_of(extractor, args.threshold)
    tracker = BotSort(reid_model=BoxMOTEmbedder(extractor), appearance_thresh=1 - threshold, proximity_thresh=1.0)
    with open(args.out, 'w', encoding='utf-8') as file:
        for number, path in enumerate(frames, start=1):
            some = rows[rows[:, 0] == number]
            some = some[(some[:, 4:6] > some[:, 2:4]).all(axis=1)]
            boxes = np.column_stack([some[:, 2:7], np.zeros(len(some))])  # with score and class
            for x1, y1, x2, y2, track, *_ in tracker.update(boxes, cv2.imread(str(path))):
                file.write(f'{number},{track:.0f},{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},1,-1,-1,-1\n')


def main() -> int:
    return _mot.main(__file__, __doc__, run)


if __name__ == '__main__':
    sys.exit(main())
