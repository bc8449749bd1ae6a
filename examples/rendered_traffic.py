"""Render a drone's frames of traffic, to try trackers on: vehicles pass below a bridge and come out again.

Needs `pip install 'timm-dpa[synth]'`:

    python examples/rendered_traffic.py --out traffic/
    python examples/rendered_traffic.py --out traffic/ --vehicles 4 --frames 20 --size 360 200

Then, for example,

    python examples/tracker.py --frames traffic/img1 --boxes traffic/det/det.txt --picture tracks.png

The folder has the layout of MOTChallenge: `img1/`, `gt/gt.txt` with the vehicles, `det/det.txt` as of a detector.
Frames are synthetic; what a tracker reaches on them says little about real footage.
"""

import argparse
import sys

from timm_dpa.synth.footage import Footage, write_footage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder to make')
    for name in ('vehicles', 'frames', 'seed'):
        parser.add_argument(f'--{name}', type=int, default=getattr(Footage, name), help='default %(default)s')
    parser.add_argument(
        '--size', type=int, nargs=2, default=Footage.size, metavar=('WIDTH', 'HEIGHT'), help='default %(default)s'
    )
    args = parser.parse_args()
    try:
        footage = Footage(args.vehicles, args.frames, tuple(args.size), seed=args.seed)
        print(f'{args.frames} frames: {write_footage(args.out, footage)}')
    except (OSError, ValueError) as error:
        print(f'rendered_traffic.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
