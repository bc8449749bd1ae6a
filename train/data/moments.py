"""When a crop was seen: the sequence and the frame that its name tells, and the protocol that needs them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

__all__ = ['GAP', 'STRIDE', 'least_gap', 'moment_of', 'pairs_after']

#: frames between a query and its candidates, and between queries, of the protocol `gap` unless it is told
GAP, STRIDE = 30, 60

_NAME = re.compile(r'(.+)_([0-9]+)')


def moment_of(path: str) -> tuple[str, int] | None:
    """Sequence and frame of `<sequence>_<track>/<sequence>_<frame>.<suffix>`, None where a path is not such."""
    folder, name = os.path.split(path)
    match = _NAME.fullmatch(os.path.splitext(name)[0])
    if not match or not os.path.basename(folder).startswith(f'{match[1]}_'):
        return None
    return match[1], int(match[2])


def pairs_after(
    paths: Sequence[str], pids: np.ndarray, gap: int, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, and the images of the same sequence exactly `gap` frames later.

    A query is an image of a frame divisible by `stride`, where its vehicle is among at least two images `gap` frames
    later.

    Args:
        paths: N names, see `moment_of`.
        pids: `(N,)` int64, the vehicles.
        gap, stride: frames, at least 1.

    Returns:
        Rows of the queries and of the gallery, ascending, and for both the number of the group; the candidates of a
        query are the gallery images of its group.

    Raises:
        ValueError: numbers below 1, names that do not tell sequence and frame, or no query; the message says why.
    """
    for name, value in (('gap', gap), ('stride', stride)):
        if value < 1:
            raise ValueError(f'{name} must be at least 1 frame, not {value}')
    moments = [moment_of(path) for path in paths]
    at: dict[tuple[str, int], list[int]] = {}
    for row, moment in enumerate(moments):
        if moment is None:
            raise ValueError(
                f'{paths[row]}: the protocol gap needs names <sequence>_<track>/<sequence>_<frame>.jpg, as timm-dpa '
                'crops writes them'
            )
        at.setdefault(moment, []).append(row)
    groups = {moment: number for number, moment in enumerate(sorted(at))}
    queries: list[tuple[int, int]] = []
    used: set[tuple[str, int]] = set()
    eligible = 0
    for row, moment in enumerate(moments):
        assert moment is not None
        if moment[1] % stride:
            continue
        eligible += 1
        later = moment[0], moment[1] + gap
        rows = at.get(later, [])
        if len(rows) >= 2 and pids[row] in pids[rows]:
            queries.append((row, groups[later]))
            used.add(later)
    if not queries:
        why = (
            f'of {eligible} images in frames divisible by {stride} none is of a vehicle that is among two or more '
            f'{gap} frames later'
            if eligible
            else f'no image is in a frame divisible by the stride, {stride}'
        )
        raise ValueError(f'{why}; give other numbers (--gap, --stride), or cut crops out of more frames')
    gallery = sorted((row, groups[moment]) for moment in used for row in at[moment])
    query = np.array(queries, np.int64)
    candidates = np.array(gallery, np.int64)
    return query[:, 0], candidates[:, 0], query[:, 1], candidates[:, 1]


def least_gap(
    query_paths: Sequence[str], query_pids: np.ndarray, gallery_paths: Sequence[str], gallery_pids: np.ndarray
) -> float | None:
    """Median over the queries of the frames between each and the nearest gallery image of its vehicle in its sequence.

    Queries without such an image do not count; None where there is no other.
    """
    seen: dict[tuple[str, int], list[int]] = {}
    for path, pid in zip(gallery_paths, gallery_pids.tolist(), strict=True):
        if moment := moment_of(path):
            seen.setdefault((moment[0], pid), []).append(moment[1])
    gaps = []
    for path, pid in zip(query_paths, query_pids.tolist(), strict=True):
        moment = moment_of(path)
        others = [frame for frame in seen.get((moment[0], pid), []) if frame != moment[1]] if moment else []
        if moment and others:
            gaps.append(min(abs(frame - moment[1]) for frame in others))
    return float(np.median(gaps)) if gaps else None
