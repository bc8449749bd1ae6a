"""Track vehicles with deep-sort-realtime and the embeddings of timm-dpa.

Needs `pip install timm-dpa deep-sort-realtime`, frames, and the boxes of a detector:

    python examples/deep_sort.py --frames img1/ --boxes det/det.txt --out tracks.txt
    python examples/deep_sort.py --frames img1/ --boxes det.txt --model runs/dpa --threshold 0.6 --out tracks.txt

It takes a cosine distance: `max_cosine_distance` is 1 minus the threshold. Boxes that are damaged or outside of their
frame are left out of both of its lists, since it does not notice when these are of different lengths.
"""

import argparse
import sys

import _mot

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.integrations.deep_sort_realtime import deep_sort_inputs


def run(args: argparse.Namespace) -> None:
    frames, rows = find_images(args.frames), _mot.read_boxes(args.boxes)
    from deep_sort_realtime.deepsort_tracker import DeepSort

    extractor = FeatureExtractor(args.model)
    threshold = _mot.threshold_of(extractor, args.threshold)
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
    return _mot.main(__file__, __doc__, run)


if __name__ == '__main__':
    sys.exit(main())
