"""Which vehicles, tracks and cameras rows have, and giving rows a vehicle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .filters import Filter, show_time
from .rows import Columns, GalleryRow

if TYPE_CHECKING:
    from .gallery import Gallery

__all__ = ['changed_vehicles', 'summary']


def changed_vehicles(
    gallery: Gallery, vehicles: Mapping[str, int | None], names: int
) -> Iterator[dict[str, int | None]]:
    """Keys of the rows that `vehicles` changes -> their new vehicles, of at most `names` tracks or keys at once.

    Args:
        gallery: where they are.
        vehicles: see `Gallery.set_vehicles`.
        names: in one filter.
    """
    ordered = list(vehicles)
    for start in range(0, len(ordered), names):
        some = ordered[start : start + names]
        for where in (Filter(tracks=some), Filter(keys=some)):
            changed = {
                row.key: vehicle
                for row in gallery.rows(where, ('track', 'vehicle'))
                if (vehicle := _vehicle_of(row, vehicles)) != row.vehicle
            }
            if changed:
                yield changed


def _vehicle_of(row: GalleryRow, vehicles: Mapping[str, int | None]) -> int | None:
    name = row.key if row.key in vehicles else row.track
    return vehicles.get(name, row.vehicle)


def summary(batches: Iterable[Columns]) -> dict[str, Any]:
    """Number of rows, rows of each camera, numbers of tracks and vehicles, first and last time; as JSON values.

    Args:
        batches: with the columns camera, track, vehicle and time; columns, as rows would take many times as long.
    """
    cameras: Counter[str] = Counter()
    tracks: set[str] = set()
    vehicles: set[int | None] = set()
    times: set[int] = set()
    for batch in batches:
        cameras.update(batch['camera'])
        tracks.update(batch['track'])
        vehicles.update(batch['vehicle'])
        times.update(time for time in batch['time'] if time is not None)
        times = {min(times), max(times)} if times else times
    return {
        'rows': sum(cameras.values()),
        'cameras': dict(sorted(cameras.items())),
        'tracks': len(tracks - {''}),
        'vehicles': len(vehicles - {None}),
        'first': show_time(min(times, default=None)),
        'last': show_time(max(times, default=None)),
    }
