"""Processes that were forked from one that had computed with several threads of torch."""

from __future__ import annotations

import logging
import os

import torch

__all__ = ['prepare_process']

_logger = logging.getLogger(__name__)
#: the process that computed; in a forked one, that of its parent
_used_in: int | None = None


def prepare_process() -> None:
    """Call this before computing.

    In a process that was forked from one that had called it before, torch gets a single thread, and a warning says so:
    the threads of the parent are not there, and torch would wait for them forever.
    """
    global _used_in
    process = os.getpid()
    if _used_in not in (None, process) and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        _logger.warning(
            'this process was forked from one that had used torch with several threads, which a fork does not copy; it '
            'continues with one thread. Start processes with the method "spawn" to use all'
        )
    _used_in = process
