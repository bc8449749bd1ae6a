"""Evaluation and re-ranking: time over that of the bare float32 matrix product of the same features, and extra memory.

    python benchmarks/ranking.py [--repeats 5] [--only veri-uav vru-small vru-large rerank] [--shrink 1]

Two threads. Features are random, 2048 numbers each (a center for each vehicle and noise); identities and cameras are as
in the data sets: VeRi-UAV has about 40 gallery images of a vehicle and leaves out those of the query's camera, VRU has
one gallery image of a vehicle. The product is `query @ gallery.T` into a new matrix; in re-ranking it is that of all
images with all. Extra memory is the peak above the inputs, in a process that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from timing import paired_ratio, show

from timm_dpa.train.evaluation.metrics import evaluate
from timm_dpa.train.evaluation.reranking import rerank

WIDTH = 2048
#: name -> queries, gallery images, vehicles, cameras (0: unknown), target
SHAPES = {
    'veri-uav': (1235, 6489, 162, 8, 'at most 1.2'),
    'vru-small': (12_720, 1200, 1200, 0, 'at most 1.2'),
    'vru-large': (83_595, 8000, 8000, 0, 'at most 1.1; under 1000 MB'),
    'rerank': (1235, 6489, 162, 0, 'none; a peer takes 6.8 s and 608 MB'),
}


def features(pids: torch.Tensor, seed: int) -> torch.Tensor:
    """Random features, made in place: nothing but the features themselves is ever in memory."""
    result = torch.randn(len(pids), WIDTH, generator=torch.Generator().manual_seed(seed))
    centers = torch.randn(int(pids.max()) + 1, WIDTH, generator=torch.Generator().manual_seed(0))
    for start in range(0, len(pids), 1000):
        result[start : start + 1000].mul_(3).add_(centers[pids[start : start + 1000]])
    return result


class Case:
    """One shape of `SHAPES`, with all counts but that of the cameras divided by `shrink`."""

    def __init__(self, name: str, shrink: int = 1) -> None:
        *counts, cameras, self.target = SHAPES[name]
        queries, images, vehicles = (max(1, count // shrink) for count in counts)
        self.name = f'{name}, {queries} x {images} x {WIDTH}'
        self.pids = torch.arange(queries) % vehicles, torch.arange(images) % vehicles
        self.query, self.gallery = (features(pids, seed) for seed, pids in enumerate(self.pids, start=1))
        self.camids = [torch.arange(len(pids)) // vehicles % cameras for pids in self.pids] if cameras else [None, None]
        self.reranks = name == 'rerank'
        self.every = torch.cat([self.query, self.gallery]) if self.reranks else self.query

    def ours(self) -> None:
        if self.reranks:
            rerank(self.query, self.gallery)
        else:
            evaluate(self.query, self.gallery, *self.pids, *self.camids)

    def product(self) -> None:
        if self.reranks:
            torch.mm(self.every, self.every.T)
        else:
            torch.mm(self.query, self.gallery.T)


def memory(what: str) -> int:
    """A line of Linux's /proc/self/status, in bytes; getrusage may give the peak of the parent process."""
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def print_extra_memory(name: str, shrink: int) -> None:
    case = Case(name, shrink)
    torch.mm(case.query[:64], case.gallery[:64].T)  # the libraries allocate their own memory here
    before = memory('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # sets the peak to the present size
    case.ours()
    print(f'{f"    extra memory, {name}":58s} {(memory("VmHWM") - before) / 1e6:6.0f} MB', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=5, help='pairs of measurements (default 5); 3 of vru-large')
    parser.add_argument('--only', nargs='+', choices=SHAPES, default=list(SHAPES), help='the shapes to measure')
    parser.add_argument('--shrink', type=int, default=1, metavar='N', help='divide all counts by N, to try the script')
    parser.add_argument('--memory', choices=SHAPES, help=argparse.SUPPRESS)  # for the process that measures memory
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.memory:
        print_extra_memory(args.memory, args.shrink)
        return
    for name in args.only:
        case = Case(name, args.shrink)
        repeats = min(args.repeats, 3) if name == 'vru-large' else args.repeats
        show(case.name, paired_ratio(case.ours, case.product, repeats), case.target)
        del case
        if sys.platform == 'linux':
            subprocess.run([sys.executable, __file__, '--memory', name, '--shrink', str(args.shrink)], check=True)


if __name__ == '__main__':
    main()
