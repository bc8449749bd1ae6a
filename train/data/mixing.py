"""Further data sets whose identities join the training, and epochs of another length than a pass over the images."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..recipes.recipe import AugmentRecipe, BatchRecipe, DataRecipe
from ..samplers import IdentitySampler
from .datasets import ReIDData, TrainImages, load_data, train_labels
from .provenance import describe_data, read_about
from .transforms import train_transform

__all__ = ['MixedImages', 'MixedSampler', 'TrainingSources', 'augment_options', 'load_sources']


def load_sources(root: Path, recipe: DataRecipe) -> TrainingSources:
    """The data of a run: those at `root`, and of each of `data.mix` the training part, or all where it has none.

    Raises:
        FileNotFoundError: no such data.
        ValueError: data that cannot be read or hold nothing to train on, or the same ones twice.
    """
    data = load_data(root, recipe.layout, test_fraction=recipe.test_fraction, subset=recipe.subset)
    if not len(data.train):
        raise ValueError(f'{root}: no training images; give data.test_fraction below 1, or data with a train part')
    sources = [data]
    for place in recipe.mix:
        other = load_data(place, test_fraction=0, subset=recipe.subset)
        if other.root.resolve() in [source.root.resolve() for source in sources]:
            raise ValueError(f'data.mix: {place} is among the data already')
        if not len(other.train):
            other = dataclasses.replace(other, train=other.test)
        nothing = other.train.subset([])
        other = dataclasses.replace(other, query=nothing, gallery=nothing, test=nothing)
        if not len(other.train):
            raise ValueError(f'data.mix: {place} has no images')
        sources.append(other)
    return TrainingSources(sources)


class TrainingSources:
    """The data sets of a run, the main one first. Each identity of each has a label of its own.

    Args:
        sources: their `train` parts are trained on; `query`, `gallery` and `test` of the first one are evaluated.

    Attributes:
        sources: as given.
        labels: of the images of each source.
        identities: in all.
        synthetic: which of the sources say that they are.
    """

    def __init__(self, sources: Sequence[ReIDData]) -> None:
        self.sources = list(sources)
        self.labels = []
        self.identities = 0
        for source in self.sources:
            labels, names = train_labels(source.train)
            self.labels.append(labels + self.identities)
            self.identities += len(names)
        self.synthetic = [bool(read_about(source.root).get('synthetic')) for source in self.sources]

    def describe(self) -> dict[str, Any]:
        """`describe_data` of the first source, and that of each of the others in the list `mix` where there are."""
        first, *others = (describe_data(source) for source in self.sources)
        return {**first, 'mix': others} if others else first

    def counts(self) -> list[dict[str, Any]]:
        """Images and identities of the further sources."""
        rows = zip(self.sources[1:], self.labels[1:], strict=True)
        return [{'images': len(labels), 'identities': len(np.unique(labels))} for _, labels in rows]

    def count(self) -> dict[str, Any]:
        """What has to be the same when a run resumes: numbers of images and identities, and the layout."""
        data, mix = self.sources[0], self.counts()
        return {
            'images': len(data.train),
            'identities': len(np.unique(data.train.pids)),
            'test_images': len(data.test),
            'layout': data.layout,
            **({'mix': mix} if mix else {}),
        }

    def introduce(self) -> list[str]:
        """A line of the log for each of the further sources."""
        rows = zip(self.sources[1:], self.counts(), self.synthetic[1:], strict=True)
        return [
            f'mixed in: {row["images"]}{" synthetic" * synthetic} images of {row["identities"]} identities, '
            f'{source.root} ({source.layout})'
            for source, row, synthetic in rows
        ]

    @property
    def paths(self) -> list[str]:
        """Of `images`, row by row."""
        return [path for source in self.sources for path in source.train.paths]

    def images(self, data_config: dict[str, Any], augment: AugmentRecipe) -> TrainImages | MixedImages:
        """The images of all sources, augmented as the recipe says for each; rows are numbered across the sources."""
        parts = [
            TrainImages(source.train, train_transform(data_config, **augment_options(augment, synthetic)))
            for source, synthetic in zip(self.sources, self.synthetic, strict=True)
        ]
        return parts[0] if len(parts) == 1 else MixedImages(parts)

    def sampler(
        self, batch: BatchRecipe, seed: int, rank: int = 0, world_size: int = 1
    ) -> IdentitySampler | MixedSampler:
        """Batches of rows of `images`.

        Raises:
            ValueError: batches that the data, or so many processes, cannot fill.
        """
        camids = [source.train.camids for source in self.sources]
        if len(self.sources) == 1 and batch.per_epoch is None:
            return IdentitySampler.from_batch_size(
                self.labels[0],
                batch.size,
                batch.images_per_identity,
                camids=camids[0],
                seed=seed,
                rank=rank,
                world_size=world_size,
            )
        size, images, others = batch.size, batch.images_per_identity, 0
        if len(self.sources) > 1 and size % images == 0:
            identities = size // images
            if identities < 2:
                raise ValueError(f'a batch of {identities} identity has no room for those of data.mix')
            others = min(max(round(batch.mix * identities), 1), identities - 1) * images
        main = IdentitySampler.from_batch_size(self.labels[0], size - others, images, camids=camids[0], seed=seed)
        mixed = None
        if others:
            labels, cameras = np.concatenate(self.labels[1:]), np.concatenate(camids[1:])
            try:
                mixed = IdentitySampler.from_batch_size(labels, others, images, camids=cameras, seed=seed + 1)
            except ValueError as error:
                raise ValueError(f'data.mix with batch.mix={batch.mix}: {error}') from error
        return MixedSampler(main, mixed, len(self.labels[0]), batch.per_epoch, rank, world_size)


def augment_options(augment: AugmentRecipe, synthetic: bool) -> dict[str, Any]:
    """Keywords of `train_transform` for images of one kind."""
    options = dict(vars(augment))
    real = options.pop('real')
    if not synthetic:
        options.update(real)
    return options


class MixedImages(Dataset):
    """`TrainImages` of several sources one after the other, with labels numbered across the sources."""

    def __init__(self, parts: Sequence[TrainImages]) -> None:
        self.parts = list(parts)
        self.first_rows = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        self.first_labels = np.cumsum([0, *(int(part.labels.max()) + 1 for part in parts)]).tolist()

    def __len__(self) -> int:
        return self.first_rows[-1]

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int, int, str]:
        row, seed = key
        which = bisect_right(self.first_rows, row) - 1
        pixels, label, read, message = self.parts[which][row - self.first_rows[which], seed]
        return pixels, label + self.first_labels[which], read + self.first_rows[which], message


class MixedSampler(Sampler[list[int]]):
    """Batches of identities of the main data and of others, and epochs of any length; the interface of
    `IdentitySampler`.

    An epoch is one of the main sampler, or `batches` long: then both samplers continue where the epoch before ended, as
    that of the others always does. A batch depends on their seeds, the epoch and its number only. The identities of the
    others are spread evenly over the batch, of which process r gets the r-th part.

    Args:
        main, others: of whole batches, for one process; no others for None.
        offset: added to the rows of the others.
        batches: of an epoch; None for the main sampler's.

    Raises:
        ValueError: a batch that the processes cannot share equally.
    """

    def __init__(
        self,
        main: IdentitySampler,
        others: IdentitySampler | None,
        offset: int,
        batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.main, self.others, self.offset = main, others, offset
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start_batch = 0
        self._length = len(main) if batches is None else batches
        identities = main.identities + (others.identities if others else 0)
        if identities * main.images % world_size:
            raise ValueError(
                f'{world_size} processes cannot share {identities} identities x {main.images} images equally: '
                f'make their product a multiple of {world_size}'
            )
        count = identities - main.identities
        ends = np.arange(identities + 1) * count // identities
        #: whether each identity of a batch is one of the others
        self._from_others = np.repeat(np.diff(ends) > 0, main.images)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """See `IdentitySampler.set_epoch`."""
        if epoch < 0:
            raise ValueError(f'epoch must be at least 0, not {epoch}')
        if not 0 <= start_batch <= len(self):
            raise ValueError(f'start_batch must be in 0..{len(self)}, the batches of an epoch, not {start_batch}')
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        start = self.start_batch
        first = self.epoch * self._length + start
        self.epoch, self.start_batch = self.epoch + 1, 0
        main = _endless(self.main, first)
        others = _endless(self.others, first) if self.others else None
        share = len(self._from_others) // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        for _ in range(self._length - start):
            rows = np.empty(len(self._from_others), np.int64)
            rows[~self._from_others] = next(main)
            if others is not None:
                rows[self._from_others] = np.array(next(others)) + self.offset
            yield rows[mine].tolist()


def _endless(sampler: IdentitySampler, first: int) -> Iterator[list[int]]:
    """Batches from number `first` on, epoch after epoch."""
    epoch, batch = divmod(first, len(sampler))
    while True:
        sampler.set_epoch(epoch, batch)
        yield from sampler
        epoch, batch = epoch + 1, 0
