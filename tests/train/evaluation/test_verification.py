"""Equal error rate and thresholds of the cosine, against all pairs in float64 loops."""

import json

import numpy as np
import pytest
import torch

from timm_dpa.train.evaluation import verification
from timm_dpa.train.evaluation.candidates import Candidates
from timm_dpa.train.evaluation.verification import Verification, count_pairs, verification_table, verify

STEP = 1e-5


def clusters(n, identities, spread, seed=0, width=12):
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, identities, n)
    centers = rng.normal(size=(identities, width))
    return (centers[pids] + spread * rng.normal(size=(n, width))).astype(np.float32), pids, rng.integers(0, 3, n)


def all_pairs(query, gallery, pids, camids=None, files=None, junk=()):
    """Cosines of the pairs of one vehicle and of different ones, one by one."""
    same, different = [], []
    for i, q in enumerate(query.astype(np.float64)):
        for j, g in enumerate(gallery.astype(np.float64)):
            is_same = pids[0][i] == pids[1][j]
            if pids[0][i] in junk or pids[1][j] in junk or (files is not None and files[0][i] == files[1][j]):
                continue
            if is_same and camids is not None and camids[0][i] == camids[1][j]:
                continue
            (same if is_same else different).append(q @ g / np.linalg.norm(q) / np.linalg.norm(g))
    return np.array(same), np.array(different)


def equal_error_rate(same, different):
    """Where the two rates cross, over all thresholds that make a difference."""
    edges = np.unique(np.concatenate([same, different, [2]]))
    rates = [(np.mean(different >= edge), np.mean(same < edge)) for edge in edges]
    return min(rates, key=lambda pair: abs(pair[0] - pair[1]))


@pytest.mark.parametrize('chunk_bytes', [1, 64 << 20])
@pytest.mark.parametrize('rule', ['none', 'cameras', 'files', 'junk'])
def test_equals_all_pairs_in_float64(rule, chunk_bytes):
    query, query_pids, query_camids = clusters(60, 9, 0.6, seed=1)
    gallery, gallery_pids, gallery_camids = clusters(90, 9, 0.6, seed=2)
    gallery[:5], gallery_pids[:5] = query[:5], query_pids[:5]
    options, known = {}, {}
    if rule == 'cameras':
        options = {'query_camids': query_camids, 'gallery_camids': gallery_camids}
        known = {'camids': (query_camids, gallery_camids)}
    elif rule == 'files':
        files = np.arange(60), np.concatenate([np.arange(5), np.arange(100, 185)])
        options, known = {'query_files': files[0], 'gallery_files': files[1]}, {'files': files}
    elif rule == 'junk':
        query_pids[10:20], gallery_pids[20:40] = -1, -1
        known = {'junk': (-1,)}
    rates = (0.01, 0.05, 0.2)
    result = verify(query, gallery, query_pids, gallery_pids, rates=rates, chunk_bytes=chunk_bytes, **options)
    same, different = all_pairs(query, gallery, (query_pids, gallery_pids), **known)
    assert (result.same_pairs, result.different_pairs) == (len(same), len(different))
    accepted, missed = equal_error_rate(same, different)
    # a step may hold several pairs
    assert result.equal_error_rate == pytest.approx((accepted + missed) / 2, abs=1 / min(len(same), len(different)))
    for rate, threshold in zip(rates, result.thresholds, strict=True):
        assert threshold.false_match_rate == rate
        allowed = int(rate * len(different))
        first_refused = np.sort(different)[::-1][allowed]
        assert first_refused < threshold.cosine <= first_refused + 2 * STEP
        assert np.mean(different >= threshold.cosine - 1e-6) <= rate
        assert threshold.miss_rate == pytest.approx(np.mean(same < threshold.cosine - 1e-6), abs=1 / len(same))


def test_dtypes_and_lengths_of_embeddings_make_no_difference():
    query, pids, _ = clusters(40, 5, 0.5)
    wanted = verify(query, query, pids, pids, query_files=np.arange(40), gallery_files=np.arange(40))
    scaled = torch.from_numpy(query * np.linspace(0.1, 9, 40, dtype=np.float32)[:, None]).double()
    files = np.arange(40)
    found = verify(scaled, scaled, torch.from_numpy(pids), pids, query_files=files, gallery_files=files)
    assert found.equal_error_rate == pytest.approx(wanted.equal_error_rate, abs=1e-3)
    assert found.thresholds[2].cosine == pytest.approx(wanted.thresholds[2].cosine, abs=2 * STEP)


def test_perfect_and_useless_embeddings():
    pids = np.repeat(np.arange(8), 5)
    perfect = verify(np.eye(8, dtype=np.float32)[pids], np.eye(8, dtype=np.float32)[pids], pids, pids)
    assert perfect.equal_error_rate == 0
    assert 0 < perfect.equal_error_cosine < 1  # any between the two would do, and none at the edge
    # 1400 pairs of different vehicles: one false match is allowed by the lowest rate, and none occurs
    assert [each.cosine for each in perfect.thresholds] == [STEP] * 3
    assert [each.miss_rate for each in perfect.thresholds] == [0.0] * 3
    equal = np.ones((40, 8), np.float32)
    useless = verify(equal, equal, pids, pids)
    assert useless.equal_error_rate == 0.5
    assert [each.cosine for each in useless.thresholds] == [None] * 3


def test_rates_that_so_few_pairs_cannot_tell_are_left_open():
    query, pids, _ = clusters(15, 4, 0.5)
    result = verify(query, query, pids, pids)
    assert result.different_pairs < 1000
    assert result.thresholds[0] == verification.Threshold(0.001, None, None)
    assert result.thresholds[2].cosine is not None
    assert [row.split()[:4] for row in verification_table(result).splitlines()[3:4]] == [['0.1', '%', '-', '-']]
    one = np.zeros(15, np.int64)
    assert verify(query, query, one, one) is None


def test_shares_of_the_queries_add_up():
    query, pids, _ = clusters(50, 6, 0.7)
    gallery, gallery_pids, _ = clusters(70, 6, 0.7, seed=3)

    def counted(rows):
        candidates = Candidates(
            (len(rows), 70), (pids[rows], gallery_pids), (None, None), (None, None), None, (-1,), torch.device('cpu')
        )
        return count_pairs(query, rows, gallery, candidates)

    parts = [counted(rows) for rows in (np.arange(20), np.arange(20, 50), np.arange(0))]
    whole = counted(np.arange(50))
    for kind in (0, 1):
        np.testing.assert_array_equal(sum(part[kind] for part in parts), whole[kind])
    assert Verification.of(*whole) == verify(query, gallery, pids, gallery_pids)
    assert sum(whole[0]) + sum(whole[1]) == 50 * 70


def test_json_takes_it_and_bad_embeddings_are_refused():
    query, pids, _ = clusters(15, 4, 0.5)
    content = json.loads(json.dumps(verify(query, query, pids, pids).as_dict()))
    assert content['thresholds'][0] == {'false_match_rate': 0.001, 'cosine': None, 'miss_rate': None}
    query[3, 2] = np.nan
    with pytest.raises(ValueError, match='1 of 15 embeddings have NaN'):
        verify(query, query, pids, pids)
