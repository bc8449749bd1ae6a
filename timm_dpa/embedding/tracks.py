"""Embeddings of boxes in frames: which track they are of, one embedding for a track, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .boxes import crop_boxes
from .files import EmbeddingsFile, Sightings
from .video import open_frames

__all__ = [
    'Tracks',
    'box_name',
    'cut_pictures',
    'match_pictures',
    'quality',
    'sighting_columns',
    'split_name',
    'track_gallery',
    'tracklet_vectors',
]

_ENOUGH = 64  # pixels of a vehicle; more tell little more


def box_name(source: str, frame: int, track: str, number: int) -> str:
    """The name of a box: `<source>#frame=<number>&track=<id>`, or `&box=<number in the frame>` without a track."""
    return f'{source}#frame={frame}&' + (f'track={track}' if track else f'box={number}')


def split_name(name: str) -> tuple[str, str]:
    """The video or folder of a `box_name`, and the rest."""
    source, _, rest = name.rpartition('#frame=')
    return source, rest


def quality(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How much a box tells about its vehicle: the score of the detector, times the side of the box over 64 pixels (at
    most 1). The side is the square root of its area.

    Args:
        boxes: `(N, 4)` edges or `(N, 8)` corners, in pixels.
        scores: `(N,)`; those outside of 0..1 count as the nearer end.

    Returns:
        `(N,)` float64 in 0..1.
    """
    if boxes.shape[1:] == (4,):
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    else:  # half of the cross product of the diagonals
        x, y = boxes[:, ::2], boxes[:, 1::2]
        area = (x[:, 2] - x[:, 0]) * (y[:, 3] - y[:, 1]) - (x[:, 3] - x[:, 1]) * (y[:, 2] - y[:, 0])
        area = np.abs(area) / 2
    return np.clip(scores, 0, 1) * np.minimum(np.sqrt(np.maximum(area, 0)) / _ENOUGH, 1)


def tracklet_vectors(
    vectors: np.ndarray, tracks: Sequence[Any], weights: np.ndarray | None = None
) -> tuple[list[Any], np.ndarray]:
    """One embedding for each track: the weighted mean of those of its images, of unit length.

    Args:
        vectors: `(N, D)` of unit length.
        tracks: N ids, such as strings or numbers.
        weights: `(N,)`, at least 0, such as of `quality`; None for equal ones. A track whose weights are all 0 takes
            equal ones.

    Returns:
        The T ids in the order in which they come first, and `(T, D)` float32.

    Raises:
        ValueError: lengths that differ, weights that are negative or not finite, or a track whose embeddings add up to
            nothing.
    """
    vectors = np.asarray(vectors, np.float64)
    weights = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
    if vectors.ndim != 2 or not len(vectors) == len(tracks) == len(weights) or weights.ndim != 1:
        raise ValueError(f'{len(tracks)} tracks and weights {weights.shape} for vectors {vectors.shape}: give one each')
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError('weights must be finite numbers from 0')
    rows: dict[Any, list[int]] = {}
    for row, track in enumerate(tracks):
        rows.setdefault(track, []).append(row)
    means = np.empty((len(rows), vectors.shape[1]))
    for k, (track, some) in enumerate(rows.items()):
        share = weights[some] if weights[some].any() else np.ones(len(some))
        mean = share @ vectors[some]
        length = np.linalg.norm(mean)
        if not length > 1e-12 * share.sum():
            raise ValueError(f'track {track!r}: its embeddings add up to nothing')
        means[k] = mean / length
    return list(rows), means.astype(np.float32)


@dataclass(frozen=True)
class Tracks:
    """The tracks of an embeddings file.

    Attributes:
        names: `<source>#track=<id>`; a box without a track is one of its own, under its name.
        vectors: `(T, D)` float32, see `tracklet_vectors`.
        rows: of each the row of its best image, see `quality`.
        first, last: `(T,)` float64, seconds; NaN where times are not known.
        first_frame, last_frame: `(T,)` int64.
        images: `(T,)` int64, how many.
    """

    names: list[str]
    vectors: np.ndarray
    rows: list[int]
    first: np.ndarray
    last: np.ndarray
    first_frame: np.ndarray
    last_frame: np.ndarray
    images: np.ndarray


def track_gallery(stored: EmbeddingsFile) -> Tracks:
    """The tracks of embeddings of boxes.

    Raises:
        ValueError: they are not of boxes with tracks.
    """
    seen = stored.sightings
    if seen is None or not any(seen.tracks):
        raise ValueError('the embeddings have no tracks; make them with: timm-dpa embed --video FILE --boxes FILE')
    ids = [
        f'{split_name(name)[0]}#track={track}' if track else name
        for name, track in zip(stored.names, seen.tracks, strict=True)
    ]
    weights = quality(seen.boxes, seen.scores)
    names, vectors = tracklet_vectors(stored.vectors, ids, weights)
    number = {name: k for k, name in enumerate(names)}
    owner = np.array([number[name] for name in ids])
    groups = [np.flatnonzero(owner == k) for k in range(len(names))]
    return Tracks(
        names,
        vectors,
        [int(some[weights[some].argmax()]) for some in groups],
        np.array([seen.times[some].min() for some in groups]),
        np.array([seen.times[some].max() for some in groups]),
        np.array([seen.frames[some].min() for some in groups]),
        np.array([seen.frames[some].max() for some in groups]),
        np.array([len(some) for some in groups]),
    )


def sighting_columns(
    names: Sequence[str], seen: Sightings | None, tracks: Tracks | None = None
) -> dict[str, dict[str, str]]:
    """What a ranked list shows of each name besides it: title -> name -> text; times are in seconds, empty if unknown.

    Args:
        names: of the gallery.
        seen: of its images, None for files.
        tracks: of the gallery, where it is one of tracks.
    """
    if tracks is not None:
        columns: dict[str, Sequence[str]] = {
            'first s': [_seconds(value) for value in tracks.first],
            'last s': [_seconds(value) for value in tracks.last],
            'images': [f'{value}' for value in tracks.images],
        }
    elif seen is not None:
        columns = {'track': seen.tracks, 'time s': [_seconds(value) for value in seen.times]}
    else:
        return {}
    return {title: dict(zip(names, column, strict=True)) for title, column in columns.items()}


def _seconds(value: float) -> str:
    return '' if np.isnan(value) else f'{value:.2f}'


def match_pictures(
    stored: EmbeddingsFile | None, tracks: Tracks | None, wanted: Iterable[str], folders: Sequence[str | Path] = ()
) -> dict[str, Image.Image]:
    """Name -> picture of the wanted images or tracks, see `cut_pictures`; of a track that of its best image."""
    if stored is None or stored.sightings is None:
        return {}
    rows = dict(zip(stored.names, range(len(stored.names)), strict=True))
    if tracks is not None:
        rows = dict(zip(tracks.names, tracks.rows, strict=True))
    chosen = {name: rows[name] for name in dict.fromkeys(wanted)}
    pictures = cut_pictures(stored, chosen.values(), folders)
    return {name: pictures[row] for name, row in chosen.items() if row in pictures}


def cut_pictures(
    stored: EmbeddingsFile, rows: Iterable[int], folders: Sequence[str | Path] = ()
) -> dict[int, Image.Image]:
    """Crops of boxes of an embeddings file, out of their video or folder; each frame is read once.

    Args:
        stored: embeddings of boxes.
        rows: which of them.
        folders: where relative names are looked for besides the working folder.

    Returns:
        Row -> crop, without those whose video has moved or can no longer be read.
    """
    seen = stored.sightings
    if seen is None:
        return {}
    by_source: dict[str, list[int]] = {}
    for row in dict.fromkeys(rows):
        by_source.setdefault(split_name(stored.names[row])[0], []).append(row)
    pictures: dict[int, Image.Image] = {}
    for source, some in by_source.items():
        path = next((path for folder in ('.', *folders) if (path := Path(folder, source)).exists()), None)
        if path is None:
            continue
        try:
            _cut(pictures, stored, seen, path, some)
        except (ValueError, OSError):  # another file has its name by now
            continue
    return pictures


def _cut(
    pictures: dict[int, Image.Image], stored: EmbeddingsFile, seen: Sightings, path: Path, rows: list[int]
) -> None:
    frames = open_frames(path, first=int(stored.metadata.get('first_frame', '1')))
    by_frame: dict[int, list[int]] = {}
    for row in rows:
        by_frame.setdefault(int(seen.frames[row]), []).append(row)
    for frame in frames.read(set(by_frame)):
        here = by_frame[frame.number]
        margin = float(stored.metadata.get('margin', '0'))
        crops, valid = crop_boxes(frame.pixels, seen.boxes[here], color='rgb', margin=margin, min_side=1)
        kept = [row for row, fine in zip(here, valid, strict=True) if fine]
        pictures |= {row: Image.fromarray(crop) for row, crop in zip(kept, crops, strict=True)}
