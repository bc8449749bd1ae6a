"""Provisional vehicles of a gallery: its tracks, each as one vector, and the numbers that groups of them are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .clustering import PairScores, cannot_link, cluster_tracks, pair_scores
from .gallery import Gallery

__all__ = ['Tracks', 'Vehicles', 'assign_vehicles', 'read_tracks']

_LEAST_WEIGHT = 1e-6  # images of quality 0 count where a track has no others


@dataclass(frozen=True)
class Tracks:
    """The T tracks of a gallery.

    Attributes:
        names: in ascending order.
        vectors: `(T, D)` float32 of unit length: of each the mean of its images, weighted by their quality.
        forbidden: `(P, 2)` pairs of tracks that one camera saw at one time, see `cannot_link`.
        vehicles: of each the number of its vehicle where all its images have this one; None otherwise.
        numbered: how many tracks have an image with a number.
        highest: the highest number of a vehicle in the gallery; 0 where none has one.
        without: images without a track, which are left out.
    """

    names: list[str]
    vectors: np.ndarray
    forbidden: np.ndarray
    vehicles: list[int | None]
    numbered: int
    highest: int
    without: int


@dataclass(frozen=True)
class Vehicles:
    """What `assign_vehicles` found.

    Attributes:
        numbers: name of each track -> number of its vehicle, from one above the highest number in the gallery on.
        scores: against the vehicles of the tracks that have one already; None where less than two have.
        compared: how many tracks these are.
    """

    numbers: Mapping[str, int]
    scores: PairScores | None
    compared: int


def read_tracks(gallery: Gallery) -> Tracks:
    """Read all tracks; memory is that of two vectors of each track and the times of all images.

    Raises:
        ValueError: no image has a track, or the vectors of a track have no mean direction.
    """
    sums: dict[str, np.ndarray] = {}
    vehicles: dict[str, set[int | None]] = {}
    sightings: list[tuple[str, str, int | None]] = []
    highest = without = 0
    for row in gallery.rows(columns=('vector', 'quality', 'track', 'camera', 'time', 'vehicle')):
        highest = max(highest, row.vehicle or 0)
        if not row.track:
            without += 1
            continue
        vector = np.float32(max(row.quality, _LEAST_WEIGHT)) * row.vector
        if row.track in sums:
            sums[row.track] += vector
        else:
            sums[row.track] = vector
        vehicles.setdefault(row.track, set()).add(row.vehicle)
        sightings.append((row.track, row.camera, row.time))
    if not sums:
        raise ValueError(f'{gallery.uri}: no image has a track; give tracks with timm-dpa embed --gallery --table')
    names = sorted(sums)
    vectors = np.stack([sums.pop(name) for name in names])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(f'{gallery.uri}: the vectors of track {names[int(lengths.argmin())]} have no mean direction')
    place = {name: row for row, name in enumerate(names)}
    forbidden = cannot_link(
        np.array([place[track] for track, _, _ in sightings]),
        [camera for _, camera, _ in sightings],
        [time for _, _, time in sightings],
    )
    given = [vehicles[name] for name in names]
    single = [next(iter(some)) if len(some) == 1 else None for some in given]
    numbered = sum(some != {None} for some in given)
    return Tracks(names, vectors / lengths, forbidden, single, numbered, highest, without)


def assign_vehicles(tracks: Tracks, threshold: float) -> Vehicles:
    """Numbers of provisional vehicles, by `cluster_tracks`; `Gallery.set_vehicles` writes them.

    Raises:
        ValueError: as `cluster_tracks`.
    """
    groups = cluster_tracks(tracks.vectors, threshold, tracks.forbidden)
    known = [row for row, vehicle in enumerate(tracks.vehicles) if vehicle is not None]
    scores = pair_scores([tracks.vehicles[row] for row in known], groups[known]) if len(known) > 1 else None
    numbers = {name: tracks.highest + 1 + int(group) for name, group in zip(tracks.names, groups, strict=True)}
    return Vehicles(numbers, scores, len(known))
