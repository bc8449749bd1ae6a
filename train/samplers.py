"""Batches of P identities with K images each."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ['IdentitySampler']

_logger = logging.getLogger(__name__)


class IdentitySampler(Sampler[list[int]]):
    """Lists of image indices for `DataLoader(batch_sampler=...)`: P identities x K images, grouped by identity.

    An identity of n images comes in ceil(n / K) groups of K an epoch, G in all, and `len(sampler)`, the batches of
    every epoch, is ceil(G / P): about one pass over the images. Within that,

    - the P identities of a batch are different ones;
    - every image of an identity is used before one repeats, so each is seen at least once an epoch. Images repeat
      within a group only where the identity has fewer than K, and else to fill an identity's last group;
    - the images of a group are from different cameras as far as that allows;
    - identities that come once more fill the last batches, evenly spread;
    - an identity of more groups than there are batches, in very unbalanced sets, is in every batch with some of its
      images and continues with the others in the next epochs, while the other identities fill the batches by coming
      more often. A warning says so. Nothing is left out for good.

    Each iteration gives another epoch; `set_epoch` is needed only to resume. A batch depends on the seed, the epoch and
    the images only: several processes share each of these batches, process r the r-th part of it. That is whole
    identities where the number of processes divides P.

    Args:
        pids: identity of each image, N integers or strings.
        camids: camera of each image, or None.
        identities: P.
        images: K.
        seed: at least 0.
        rank, world_size: which process this is, of how many.

    Attributes:
        epoch: of the next iteration.

    Raises:
        ValueError: fewer identities than P, a batch that the processes cannot share equally, or arguments that do not
            fit together.
    """

    def __init__(
        self,
        pids: Sequence[int] | np.ndarray,
        camids: Sequence[int] | np.ndarray | None = None,
        identities: int = 16,
        images: int = 4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if identities < 1 or images < 1:
            raise ValueError(f'identities and images must be at least 1, not {identities} and {images}')
        if seed < 0:
            raise ValueError(f'seed must be at least 0, not {seed}')
        if not 0 <= rank < world_size:
            raise ValueError(f'rank must be in 0..{world_size - 1} of world_size {world_size}, not {rank}')
        if identities * images % world_size:
            raise ValueError(
                f'{world_size} processes cannot share {identities} identities x {images} images equally: '
                f'make their product a multiple of {world_size}'
            )
        pids = np.asarray(pids)
        camids = np.zeros(len(pids), np.int64) if camids is None else np.asarray(camids)
        if pids.ndim != 1 or camids.shape != pids.shape:
            raise ValueError(f'pids and camids must have one entry per image, not shapes {pids.shape}, {camids.shape}')
        names, owners, sizes = np.unique(pids, return_inverse=True, return_counts=True)
        if len(names) < identities:
            raise ValueError(
                f'a batch of {identities} identities needs that many in the data, which has {len(names)}: take at most '
                f'{len(names)} identities a batch, with more images of each for the same batch size'
            )
        self.identities = identities
        self.images = images
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start_batch = 0

        by_identity = np.split(np.argsort(owners, kind='stable'), np.cumsum(sizes)[:-1])
        self._images = [indices.tolist() for indices in by_identity]
        self._cameras = camids.tolist()
        groups = -(-sizes // images)
        self._length = int(-(-groups.sum() // identities))
        # epochs that an identity's first pass over its images takes
        self._passes = -(-groups // self._length)
        self._counts = np.minimum(groups, self._length)
        self._spare = self._length * identities - int(self._counts.sum())
        while self._spare >= (free := self._counts < self._length).sum() > 0:
            self._counts += free
            self._spare -= int(free.sum())
        self._plan: tuple[int, np.ndarray] | None = None
        if self._passes.max() > 1:
            widest = int(sizes.argmax())
            _logger.warning(
                '%d identities have more images than the %d batches of an epoch can show and take several epochs to be '
                'seen whole: %r with its %d images takes %d. Fewer identities a batch make epochs longer.',
                (self._passes > 1).sum(),
                self._length,
                names[widest].item(),
                sizes[widest],
                self._passes[widest],
            )

    @classmethod
    def from_batch_size(
        cls, pids: Sequence[int] | np.ndarray, batch_size: int, images_per_identity: int, **kwargs
    ) -> IdentitySampler:
        """A sampler of `batch_size / images_per_identity` identities; `kwargs` are further arguments of the class.

        Args:
            pids: identity of each image.
            batch_size: images of the whole batch, all processes together.
            images_per_identity: K, which has to divide it.
        """
        if images_per_identity < 1 or batch_size < 1 or batch_size % images_per_identity:
            raise ValueError(
                f'a batch of {batch_size} images cannot hold {images_per_identity} of each identity: make batch_size a '
                'multiple of images_per_identity'
            )
        return cls(pids, identities=batch_size // images_per_identity, images=images_per_identity, **kwargs)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and leave out its first `start_batch` batches.

        To resume in the middle of an epoch, pass the number of batches that are done. The length stays that of a whole
        epoch. Each iteration that has begun is followed by one of the next epoch, from 0 on.
        """
        if epoch < 0:
            raise ValueError(f'epoch must be at least 0, not {epoch}')
        if not 0 <= start_batch <= len(self):
            raise ValueError(f'start_batch must be in 0..{len(self)}, the batches of an epoch, not {start_batch}')
        self.epoch = epoch
        self.start_batch = start_batch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = self.epoch, self.start_batch
        self.epoch, self.start_batch = epoch + 1, 0
        if self._plan is None or self._plan[0] != epoch:
            self._plan = epoch, self._batches(epoch)
        share = self.identities * self.images // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        for batch in self._plan[1][start:]:
            yield batch[mine].tolist()

    def _batches(self, epoch: int) -> np.ndarray:
        """Image indices of all processes, `(batches, P * K)`."""
        rng = np.random.default_rng([self.seed, epoch])
        counts = self._counts.copy()
        counts[rng.choice(np.flatnonzero(counts < self._length), self._spare, replace=False)] += 1
        # P rows of one group per batch, filled identity after identity. As none has more groups than there are
        # batches, it is in one row or continues in the next: only there could it meet itself in a batch.
        order = rng.permutation(len(counts))
        owners = np.repeat(order, counts[order]).reshape(self.identities, self._length)
        batches = np.empty_like(owners)
        for row, owner in enumerate(owners):
            batches[row] = rng.permutation(self._length)
            if row and owner[0] == owners[row - 1, -1]:
                continued = np.flatnonzero(owner == owner[0])
                met = np.isin(batches[row], batches[row - 1, owners[row - 1] == owner[0]])
                batches[row] = batches[row, np.argsort(met, kind='stable')]
                rng.shuffle(batches[row, len(continued) :])
        groups = [
            group for identity, count in enumerate(counts.tolist()) for group in self._groups(identity, count, epoch)
        ]
        # the groups of an identity in the order of its batches, so that images repeat as late as they can
        places = np.lexsort((batches.ravel(), owners.ravel()))
        plan = np.empty((self._length, self.identities, self.images), np.int64)
        plan[batches.ravel()[places], places // self._length] = np.array(groups)
        return plan.reshape(self._length, -1)

    def _groups(self, identity: int, count: int, epoch: int) -> list[list[int]]:
        """The groups of an identity in one epoch: a part of them where its images take several epochs."""
        cycle, part = divmod(epoch, int(self._passes[identity]))
        rng = random.Random(f'{self.seed}/{cycle}/{identity}')
        groups = _sample_groups(self._images[identity], self._cameras, self.images, rng)
        return list(itertools.islice(groups, part * count, (part + 1) * count))


def _sample_groups(images: list[int], cameras: list[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless groups of `size`: all images in random order, then all again, a group of different ones if there are."""
    begun: list[int] = []
    while True:
        deck = images.copy()
        rng.shuffle(deck)
        if begun:
            deck = _unlike(begun, deck, cameras)
            wanted = size - len(begun)
            begun, deck = begun + deck[:wanted], deck[wanted:]
            if len(begun) == size:
                yield begun
                begun = []
        if deck:
            groups = _deal(deck, cameras, size, rng)
            begun = groups.pop() if len(groups[-1]) < size else []
            yield from groups


def _unlike(group: list[int], deck: list[int], cameras: list[int]) -> list[int]:
    """The deck, first the images that are not in the group, of those first the cameras that are rare in it."""
    inside = set(group)
    crowd = Counter(cameras[image] for image in group)
    keys = {}
    for image in deck:
        keys[image] = (image in inside, crowd[cameras[image]])
        if image not in inside:
            crowd[cameras[image]] += 1
    return sorted(deck, key=keys.__getitem__)


def _deal(deck: list[int], cameras: list[int], size: int, rng: random.Random) -> list[list[int]]:
    """Groups of `size`, the last one of the rest: camera after camera, one card to each group in turn.

    The cameras with most images first, while all groups take part.
    """
    counts = Counter(cameras[image] for image in deck)
    turns = {camera: (-counts[camera], rng.random()) for camera in counts}  # Counter keeps the order of the deck
    deck.sort(key=lambda image: turns[cameras[image]])
    groups: list[list[int]] = [[] for _ in range(-(-len(deck) // size))]
    rest = len(deck) - (len(groups) - 1) * size
    for place, image in enumerate(deck):
        everyone = rest * len(groups)  # cards after which the last group has its share
        if place < everyone:
            groups[place % len(groups)].append(image)
        else:
            groups[(place - everyone) % (len(groups) - 1)].append(image)
    return groups
