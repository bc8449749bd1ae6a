"""The processes of a run: one, or several that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from timm_dpa.forks import prepare_process

__all__ = ['Processes', 'joined_processes']


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes:
        rank: 0..world_size-1; 0 writes files.
        world_size: processes on all machines together.
        device: where this one computes.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device('cpu')  # noqa: RUF009 immutable

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The main process's `value`, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined_processes(device: str = 'auto') -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one; leave them in the end.

    In a process that was forked from one that had computed before, torch gets a single thread, see `prepare_process`.

    Args:
        device: `auto`, or a torch device. Under torchrun each process takes the CUDA device of its local rank.

    Raises:
        ValueError: a device that cannot be used here.
    """
    from timm_dpa.embedding.extractor import resolve_device

    prepare_process()
    world_size = int(os.environ.get('WORLD_SIZE', '1'))
    if world_size == 1:
        yield Processes(device=resolve_device(device))
        return
    kind = resolve_device(device)
    if kind.type == 'cuda':
        kind = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
        torch.cuda.set_device(kind)
    joined = not dist.is_initialized()
    if joined:
        dist.init_process_group('nccl' if kind.type == 'cuda' else 'gloo')
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), kind)
    finally:
        if joined:
            dist.destroy_process_group()
