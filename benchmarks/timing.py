"""Ratios of two timings for a noisy machine: the two are measured in turns and compared pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def paired_ratio(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median of ours / peer over `repeats` pairs (after one pair of warm-up), and its lower and upper quartile.

    Which of the two goes first alternates, so that a drift of the machine falls on both.
    """
    ratios = []
    for index in range(repeats + 1):
        if index % 2:
            first, second = seconds(ours), seconds(peer)
        else:
            second, first = seconds(peer), seconds(ours)
        ratios.append(first / second)
    low, median, high = statistics.quantiles(ratios[1:], n=4, method='inclusive')
    return median, low, high


def show(what: str, ratio: tuple[float, float, float], target: str) -> None:
    median, low, high = ratio
    print(f'{what:58s} {median:6.3f} x   (quartiles {low:.3f} - {high:.3f}; target {target})', flush=True)
