"""Ctrl-C and SIGTERM during a run: it stops at the end of a step, where a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch

from .distributed import Processes

__all__ = ['Interrupts', 'ignore_interrupts']


class Interrupts:
    """While it is entered, the first signal asks the run to stop, and the second one raises KeyboardInterrupt at once.

    Args:
        processes: those that stop together.
        every: steps between the exchanges of several processes about it, as asking at each step would cost time.
    """

    def __init__(self, processes: Processes, every: int) -> None:
        self.processes, self.every = processes, every
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # others cannot watch signals
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def stopping(self, step: int) -> bool:
        """Whether the run is to stop after this step; the same in all processes."""
        if self.processes.world_size == 1:
            return self.asked
        return step % self.every == 0 and any(self.processes.gather(self.asked))


def ignore_interrupts(_: int) -> None:
    """Prepare a worker: signals go to all processes, and the main one ends its workers when it is ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
