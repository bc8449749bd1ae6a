"""The batches of a run: which images, at which size, with which random numbers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from timm_dpa.embedding.images import ImageError

from ..data.datasets import collate
from ..data.mixing import MixedSampler, TrainingSources, augment_options
from ..data.transforms import train_transform
from ..recipes.recipe import AugmentRecipe, Recipe
from ..samplers import IdentitySampler
from .distributed import Processes
from .interrupts import ignore_interrupts
from .schedule import early_size

__all__ = ['Batch', 'TrainingBatches', 'derive_seed']

#: pixels `(B, 3, H, W)`, labels `(B,)`, rows `(B,)` of the images, and messages about images that could not be read
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]


def derive_seed(*numbers: int) -> int:
    """A seed in 0..2**63 - 1 that depends on all `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class TrainingBatches:
    """Batches of any epoch, from any batch on; `len` is their number in an epoch.

    Args:
        sources: the images.
        recipe: of the run.
        data_config: `input_size`, `interpolation`, `mean` and `std` of the network.
        processes: which share each batch.

    Raises:
        ValueError: batches, sizes or augmentation that do not fit together.
    """

    def __init__(
        self, sources: TrainingSources, recipe: Recipe, data_config: dict[str, Any], processes: Processes
    ) -> None:
        self.sources, self.recipe, self.data_config, self.processes = sources, recipe, data_config, processes
        self.image_size: tuple[int, int] = tuple(data_config['input_size'][1:])
        self.sampler = sources.sampler(recipe.batch, recipe.run.seed, processes.rank, processes.world_size)
        self._seeded = _SeededBatches(self.sampler, recipe.run.seed, recipe.batch.size)
        self._loader: DataLoader | None = None
        self._running: Generator[Batch, None, None] | None = None
        self._loaded_size: tuple[int, int] | None = None
        # fail fast
        self.size_of(0)
        for synthetic in (False, True):
            train_transform(data_config, **augment_options(recipe.augment, synthetic))

    def __len__(self) -> int:
        return len(self.sampler)

    def size_of(self, epoch: int) -> tuple[int, int]:
        """Height and width of the images of an epoch."""
        return early_size(self.recipe.schedule, self.image_size, epoch)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on. Those of an iteration before are over.

        Raises:
            ImageError: no image of a vehicle can be read.
        """
        size = self.size_of(epoch)
        self._stop()
        if size != self._loaded_size:
            self.close()
            pad = round(self.recipe.augment.pad * size[0] / self.image_size[0])
            self._loader = self._load(size, self.recipe.augment.model_copy(update={'pad': pad}))
            self._loaded_size = size
        assert self._loader is not None
        self._running = self._iterate(self._loader, epoch, first)
        return self._running

    def beyond(self, count: int) -> Iterator[Batch]:
        """Batches of at least `count` images without erasing: those of the epochs after the last one."""
        self.close()
        loader = self._load(self.image_size, self.recipe.augment.model_copy(update={'erasing': 0.0}))
        self._running = self._iterate_on(loader, -(-count // self.recipe.batch.size))
        return self._running

    def _iterate_on(self, loader: DataLoader, count: int) -> Generator[Batch, None, None]:
        for epoch in itertools.count(self.recipe.schedule.epochs):
            yield from itertools.islice(self._iterate(loader, epoch, 0), count)
            count -= len(self)
            if count <= 0:
                return

    def _iterate(self, loader: DataLoader, epoch: int, first: int) -> Generator[Batch, None, None]:
        if first == len(self):
            return
        self.sampler.set_epoch(epoch, first)
        self._seeded.first = first
        try:
            yield from loader
        except ImageError as error:  # a worker's comes with its traceback
            raise ImageError(str(error).strip().rpartition('ImageError: ')[2]) from error

    def close(self) -> None:
        """End the processes that decode."""
        self._stop()
        self._loader = self._loaded_size = None

    def _stop(self) -> None:
        """End the iteration that runs, as an exception may hold it, and with it the processes."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _load(self, size: tuple[int, int], augment: AugmentRecipe) -> DataLoader:
        images: Dataset = self.sources.images({**self.data_config, 'input_size': (3, *size)}, augment)
        workers = self.recipe.data.workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 3
            workers = max(0, min(8, cores // int(os.environ.get('LOCAL_WORLD_SIZE', '1')) - 1))
        return DataLoader(
            images,
            batch_sampler=self._seeded,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.processes.device.type == 'cuda',
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupts,
        )


class _SeededBatches(Sampler):
    """The sampler's batches as `(row, seed)` pairs; seeds do not depend on the number of processes."""

    def __init__(self, sampler: IdentitySampler | MixedSampler, seed: int, batch_size: int) -> None:
        self.sampler, self.seed, self.batch_size = sampler, seed, batch_size
        self.first = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sampler, epoch = self.sampler, self.sampler.epoch
        share = self.batch_size // sampler.world_size
        for number, rows in enumerate(sampler, start=self.first):
            place = number * self.batch_size + sampler.rank * share
            yield [(row, derive_seed(self.seed, 0, epoch, place + k)) for k, row in enumerate(rows)]
