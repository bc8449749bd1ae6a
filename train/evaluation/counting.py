"""How many similarities of a row reach a threshold: what the rank of a positive is made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

__all__ = ['count_reaching']

_FEW_REACHED = 0.15  # up to here it pays to sort only the similarities that reach a positive
_FEW_POSITIVES = 6  # up to here a pass over the similarities for each positive is cheaper than sorting them


def count_reaching(values: torch.Tensor, thresholds: torch.Tensor, lowest: torch.Tensor) -> torch.Tensor:
    """How many of the `(n, G)` values of a row reach each of its `(n, p)` thresholds; may reorder the values.

    Counts of thresholds below the `(n,)` lowest of a row may be too small.
    """
    if thresholds.shape[1] > _FEW_POSITIVES:
        if (
            values.device.type == 'cpu'
            and values.dtype == torch.float32
            and _reached_part(values, lowest) < _FEW_REACHED
        ):
            return torch.from_numpy(_count_few(values.numpy(), thresholds.numpy(), lowest.numpy()))
        return values.shape[1] - torch.searchsorted(_sorted_rows(values), thresholds.contiguous())
    counts = torch.empty_like(thresholds)
    # 0.0 and 1.0, not booleans, as a matrix product sums them fastest; a block of them stays in the cache
    block = max(1, (1 << 18) // max(values.shape[1], 1)) if values.device.type == 'cpu' else len(values)
    reached = values.new_empty(min(block, len(values)), values.shape[1])
    ones = values.new_ones(values.shape[1])
    for start in range(0, len(values), block):
        some = values[start : start + block]
        for k in range(thresholds.shape[1]):
            out = torch.ge(some, thresholds[start : start + block, k, None], out=reached[: len(some)])
            torch.mv(out, ones, out=counts[start : start + block, k])
    return counts


def _reached_part(values: torch.Tensor, lowest: torch.Tensor) -> float:
    """About which part of the values reach the lowest threshold of their row, from some of the rows."""
    step = -(-len(values) // 16)
    return float((values[::step] >= lowest[::step, None]).float().mean())


def _count_few(values: np.ndarray, thresholds: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """`count_reaching` where few values do: only these are sorted."""
    n, width = values.shape
    counts = np.empty(thresholds.shape, np.int64)
    rows_of_block = max(1, (1 << 18) // width)

    def work(blocks: range) -> None:
        answers = np.empty((rows_of_block, width), bool)
        for start in blocks:
            stop = min(start + rows_of_block, n)
            some = np.greater_equal(values[start:stop], lowest[start:stop, None], out=answers[: stop - start])
            places = np.flatnonzero(some)
            keys = _keys(places // width, values[start:stop].ravel()[places])
            keys.sort()
            rows = np.arange(stop - start)
            ends = np.searchsorted(keys, (rows + 1 << 32) - (1 << 31))
            reached = np.searchsorted(keys, _keys(rows[:, None], thresholds[start:stop]).ravel())
            counts[start:stop] = ends[:, None] - reached.reshape(stop - start, -1)

    # after the product its threads go on turning for some milliseconds, in the way of any others
    threads = max(1, torch.get_num_threads() // 2)
    shares = [range(k * rows_of_block, n, threads * rows_of_block) for k in range(threads)]
    if threads == 1:
        work(shares[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, shares))
    return counts


def _keys(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of rows, and within a row in that of the float32 values."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)  # + 0: -0.0 and 0.0 are equal
    return (rows << 32) + (bits ^ (bits >> 31 & 0x7FFFFFFF))


def _sorted_rows(values: torch.Tensor) -> torch.Tensor:
    if values.device.type != 'cpu':
        return values.sort(dim=1).values
    threads = torch.get_num_threads()
    array = values.numpy()  # sorts in place, with vector instructions, and other threads can do so too
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part.sort(axis=1), np.array_split(array, 4 * threads)))
    return values
