import itertools
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from timm_dpa.train.samplers import IdentitySampler

# images per identity
BALANCED = [8] * 12
MIXED = [1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 17, 23]
UNBALANCED = [300] + [4] * 20


def pids_of(sizes: list[int]) -> np.ndarray:
    """Identities with gaps in their numbers, images in no order."""
    pids = np.repeat(np.arange(len(sizes)) * 7 - 3, sizes)
    return np.random.default_rng(0).permutation(pids)


def epoch_of(sampler: IdentitySampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def flat(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def draws(batches: list[list[int]], pids: np.ndarray, images: int) -> dict[int, list[list[int]]]:
    """The groups of each identity in the order of their batches; also what every batch has to be."""
    groups: dict[int, list[list[int]]] = {}
    for batch in batches:
        here = [batch[start : start + images] for start in range(0, len(batch), images)]
        owners = [set(pids[group].tolist()) for group in here]
        assert all(len(owner) == 1 and len(group) == images for owner, group in zip(owners, here, strict=True))
        assert len(set().union(*owners)) == len(here)
        for (owner,), group in zip(owners, here, strict=True):
            groups.setdefault(owner, []).append(group)
    return groups


def assert_used_before_repeated(sequence: list[int], pool: list[int]) -> None:
    counts = dict.fromkeys(pool, 0)
    for image in sequence:
        counts[image] += 1
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize('sizes', [BALANCED, MIXED, [1] * 9, [20, 20, 9, 9]], ids=str)
@pytest.mark.parametrize(('identities', 'images'), [(3, 4), (2, 8), (3, 1), (1, 3)])
def test_an_epoch_shows_every_image_before_one_repeats(sizes, identities, images):
    pids = pids_of(sizes)
    sampler = IdentitySampler(pids, identities=identities, images=images)
    least = sum(-(-size // images) for size in sizes)
    assert len(sampler) == -(-least // identities)
    assert max(-(-size // images) for size in sizes) <= len(sampler)  # else no identity can be whole in an epoch
    for epoch in range(3):
        batches = epoch_of(sampler, epoch)
        assert len(batches) == len(sampler)
        assert all(len(batch) == identities * images for batch in batches)
        groups = draws(batches, pids, images)
        assert sorted(set(flat(batches))) == list(range(len(pids)))
        for owner, mine in groups.items():
            pool = np.flatnonzero(pids == owner).tolist()
            assert_used_before_repeated(flat(mine), pool)
            for group in mine:
                assert len(set(group)) == min(images, len(pool))
        # what fills the last batch is spread over the identities
        extra = [len(mine) - -(-(pids == owner).sum() // images) for owner, mine in groups.items()]
        assert min(extra) >= 0
        assert sum(extra) == len(sampler) * identities - least < identities


def test_epochs_and_seeds_differ_and_repeat_exactly():
    pids = pids_of(MIXED)
    one = IdentitySampler(pids, identities=3, images=4, seed=5)
    epochs = [epoch_of(one, epoch) for epoch in range(4)]
    for a, b in itertools.combinations(epochs, 2):
        assert a != b
        assert {frozenset(pids[x].tolist()) for x in a} != {frozenset(pids[x].tolist()) for x in b}
    again = IdentitySampler(pids.tolist(), identities=3, images=4, seed=5)
    assert [epoch_of(again, epoch) for epoch in (3, 0)] == [epochs[3], epochs[0]]
    assert epoch_of(IdentitySampler(pids, identities=3, images=4, seed=6)) != epochs[0]
    assert list(IdentitySampler(pids, identities=3, images=4, seed=5)) == epochs[0]  # without set_epoch


def test_each_iteration_gives_the_next_epoch_in_every_process():
    pids = pids_of(MIXED)
    options = {'identities': 4, 'images': 4, 'seed': 5}
    wanted = [epoch_of(IdentitySampler(pids, **options), epoch) for epoch in range(5)]
    alone = IdentitySampler(pids, **options)
    assert [list(alone) for _ in range(3)] == wanted[:3]
    next(iter(alone))  # an epoch that is left in the middle is over, too
    assert alone.epoch == 4
    assert list(alone) == wanted[4]
    ranks = [IdentitySampler(pids, rank=rank, world_size=2, **options) for rank in range(2)]
    for epoch in range(3):
        parts = [list(sampler) for sampler in ranks]
        assert [flat(batch) for batch in zip(*parts, strict=True)] == wanted[epoch]
    # a resumed epoch is followed by whole ones
    alone.set_epoch(1, start_batch=2)
    assert [list(alone), list(alone)] == [wanted[1][2:], wanted[2]]


@pytest.mark.parametrize('workers', [0, 2])
def test_a_data_loader_sees_all_images_of_an_identity_too_large_for_an_epoch(workers):
    pids = pids_of(UNBALANCED)
    sampler = IdentitySampler(pids, identities=5, images=4)
    loader = DataLoader(
        torch.arange(len(pids)), batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    seen = {row for _ in range(4) for batch in loader for row in batch.tolist()}
    assert seen == set(range(len(pids)))


@pytest.mark.parametrize('sizes', [MIXED, UNBALANCED], ids=['mixed', 'unbalanced'])
@pytest.mark.parametrize('world', [2, 4])
def test_processes_share_the_batches_of_one(sizes, world):
    pids = pids_of(sizes)
    camids = np.arange(len(pids)) % 3
    for identities, images in ((4, 3), (2, 6)):
        options = {'camids': camids, 'identities': identities, 'images': images, 'seed': 1}
        alone = epoch_of(IdentitySampler(pids, **options), 2)
        ranks = [epoch_of(IdentitySampler(pids, rank=r, world_size=world, **options), 2) for r in range(world)]
        assert [flat(parts) for parts in zip(*ranks, strict=True)] == alone
        assert {len(batch) for batches in ranks for batch in batches} == {identities * images // world}
        if identities % world == 0:
            for rank in ranks:
                draws(rank, pids, images)  # whole identities


def test_an_epoch_is_resumed_in_the_middle():
    pids = pids_of(MIXED)
    whole = epoch_of(IdentitySampler(pids, identities=3, images=4, seed=2), 7)
    for start in (0, 1, 5, len(whole)):
        sampler = IdentitySampler(pids, identities=3, images=4, seed=2)
        sampler.set_epoch(7, start_batch=start)
        assert list(sampler) == whole[start:]
        assert len(sampler) == len(whole)
        assert epoch_of(sampler, 7) == whole
    with pytest.raises(ValueError, match=f'start_batch.*0..{len(whole)}'):
        sampler.set_epoch(0, start_batch=len(whole) + 1)
    with pytest.raises(ValueError, match='epoch'):
        sampler.set_epoch(-1)


def test_groups_have_as_many_cameras_as_their_identity_allows():
    rng = np.random.default_rng(3)
    for _ in range(20):
        pids = pids_of([12] * 6)
        camids = rng.choice(6, len(pids), p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
        for owner, groups in draws(list(IdentitySampler(pids, camids, 3, 4)), pids, 4).items():
            cameras = Counter(camids[pids == owner].tolist())
            # no choice of three groups of the twelve images has more
            best = sum(min(count, 3) for count in cameras.values())
            assert sum(len(set(camids[group].tolist())) for group in groups) == best


def test_repeated_images_are_from_the_missing_cameras_too():
    # six images in two groups of four: the two that come again can complete the cameras of the second
    pids = pids_of([6] * 4)
    camids = np.empty(len(pids), int)
    for owner in np.unique(pids):
        camids[pids == owner] = [0, 0, 1, 1, 2, 3]
    sampler = IdentitySampler(pids, camids, 2, 4)
    for epoch in range(20):
        for groups in draws(epoch_of(sampler, epoch), pids, 4).values():
            assert [len(set(camids[group].tolist())) for group in groups] == [4, 4]


def test_cameras_do_not_change_what_is_seen():
    pids = pids_of(MIXED)
    for camids in (np.zeros(len(pids), int), np.arange(len(pids)), np.arange(len(pids)) % 2):
        groups = draws(list(IdentitySampler(pids, camids, 3, 4)), pids, 4)
        for owner, mine in groups.items():
            assert_used_before_repeated(flat(mine), np.flatnonzero(pids == owner).tolist())


def test_an_identity_too_large_for_an_epoch_goes_on_in_the_next(caplog):
    pids = pids_of(UNBALANCED)
    with caplog.at_level(logging.WARNING):
        sampler = IdentitySampler(pids, identities=5, images=4)
    large = np.flatnonzero(pids == -3).tolist()
    assert len(sampler) == 19  # 75 + 20 groups
    assert '-3 with its 300 images takes 4' in caplog.text
    sequence = []
    for epoch in range(8):
        groups = draws(epoch_of(sampler, epoch), pids, 4)
        assert len(groups[-3]) == 19
        sequence += flat(groups.pop(-3))
        # the others come equally often
        assert len(groups) == 20
        assert {len(mine) for mine in groups.values()} == {3, 4}
        for owner, mine in groups.items():
            assert_used_before_repeated(flat(mine), np.flatnonzero(pids == owner).tolist())
        if epoch % 4 == 3:
            assert_used_before_repeated(sequence, large)
            assert set(sequence) == set(large)
            sequence = []


def test_fair_sets_give_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        IdentitySampler(pids_of(MIXED), identities=3, images=4)
    assert not caplog.text


def test_large_and_extreme_sets_end():
    rng = np.random.default_rng(0)
    pids = rng.integers(0, 2000, 20_000)
    sampler = IdentitySampler(pids, rng.integers(0, 20, len(pids)), identities=16, images=4)
    assert sorted(set(flat(epoch_of(sampler, 1)))) == list(range(len(pids)))
    for sizes in ([5000] + [4] * 100, [5000, 1], [5000, 1, 1, 1], [1, 1]):
        sampler = IdentitySampler(pids_of(sizes), identities=2, images=4)
        batches = epoch_of(sampler, 3)
        assert len(batches) == len(sampler)
        draws(batches, pids_of(sizes), 4)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_data_loader_takes_it(workers):
    pids = pids_of(BALANCED)
    sampler = IdentitySampler(pids, identities=4, images=2)
    loader = DataLoader(torch.arange(len(pids)), batch_sampler=sampler, num_workers=workers)
    sampler.set_epoch(1, start_batch=2)
    assert [batch.tolist() for batch in loader] == epoch_of(sampler, 1)[2:]
    assert len(loader) == len(sampler) == 12


def test_the_batch_size_is_divided():
    sampler = IdentitySampler.from_batch_size(pids_of(MIXED), 12, 4, seed=3)
    assert (sampler.identities, sampler.images, sampler.seed) == (3, 4, 3)
    for size, images in ((10, 4), (0, 4), (8, 0)):
        with pytest.raises(ValueError, match='multiple of images_per_identity'):
            IdentitySampler.from_batch_size(pids_of(MIXED), size, images)


def test_names_may_be_strings():
    pids = ['red car', 'red car', 'truck', 'van', 'van', 'van']
    draws(list(IdentitySampler(pids, list('ababab'), identities=2, images=2)), np.array(pids), 2)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'identities': 13}, r'13 identities.*has 12.*at most 12'),
        ({'identities': 0}, 'at least 1'),
        ({'images': 0}, 'at least 1'),
        ({'seed': -1}, 'seed'),
        ({'rank': 2, 'world_size': 2}, 'rank'),
        ({'identities': 3, 'images': 3, 'world_size': 2}, 'multiple of 2'),
        ({'camids': [1, 2]}, 'camids'),
    ],
    ids=str,
)
def test_wrong_values_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        IdentitySampler(pids_of(BALANCED), **{'identities': 4, **options})


def test_no_images_are_an_error():
    with pytest.raises(ValueError, match='has 0'):
        IdentitySampler([], identities=2)
