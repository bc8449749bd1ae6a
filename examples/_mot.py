"""What the programs for trackers of other packages share: their options, and rows of MOTChallenge."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from timm_dpa import FeatureExtractor


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


def main(program: str, about: str | None, run: Callable[[argparse.Namespace], None]) -> int:
    """Read the options of a program and run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        print(f'{Path(program).name}: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0
