"""Processes that render vehicles and write their files."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from timm_dpa.files import atomic_file

from .images import render_stills, render_track
from .plan import Plan
from .world.assets import AssetCache
from .world.flights import Flight
from .world.tracks.clips import Clip

__all__ = ['WORK', 'Rows', 'count_cores', 'render_vehicles']

WORK = '.synth'  # folder with the rows of finished vehicles; deleted when the data set is complete
Rows = list[list[str]]


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class _Renderer:
    """Renders vehicles one after the other and keeps what they share."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        self._assets = AssetCache(plan.seed)
        self._flights: dict[int, Flight] = {}
        self._clips: dict[int, Clip] = {}

    def render_files(self, number: int) -> tuple[int, Rows]:
        """Render a vehicle and write its images, then its rows of `images.csv`."""
        if self.plan.tracks:
            images = render_track(self.plan, number, self._assets, self._clips)
        else:
            images = render_stills(self.plan, number, self._assets, self._flights)
        rows = []
        for image in images:
            # a lost or empty image is rendered again, so there is no need to wait for the disk
            with atomic_file(self.out / image.path, sync=False) as temporary:
                Image.fromarray(image.pixels).save(temporary, 'JPEG', quality=image.quality)
            rows.append(image.row)
        with atomic_file(self.out / WORK / f'{number}.json') as temporary:
            temporary.write_text(json.dumps(rows), encoding='utf-8')
        return number, rows


_renderer: _Renderer | None = None  # of a worker process


def render_vehicles(out: Path, plan: Plan, numbers: list[int], workers: int) -> Generator[tuple[int, Rows], None, None]:
    """Render vehicles in any order, by several processes; yields their numbers and rows as they are finished."""
    if workers == 1:
        yield from map(_Renderer(out, plan).render_files, numbers)
        return
    # fresh processes: the parent may hold threads of torch or Embree
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _start_worker, (out, plan)) as pool:
        try:
            with _hold_interrupts():
                jobs = [pool.submit(_render_in_worker, n) for n in numbers]
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Keep Ctrl-C back: processes that start meanwhile never get it, and this one gets it afterwards."""
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(out: Path, plan: Plan) -> None:
    global _renderer
    # Ctrl-C reaches every process, but only the parent acts on it: vehicles that were started are finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _renderer = _Renderer(out, plan)


def _render_in_worker(number: int) -> tuple[int, Rows]:
    assert _renderer is not None
    return _renderer.render_files(number)


def _end_with_parent() -> None:
    """End this process with its parent; a parent that is killed cannot stop it, and it would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
