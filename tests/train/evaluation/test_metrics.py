"""Ranking metrics against loops in float64, the fixture's numbers and what must not change them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.support import ranking_reference as reference
from tests.support import ranking_worker
from tests.support.peak_memory import extra_bytes
from tests.support.processes import run_two
from timm_dpa.train.evaluation import counting
from timm_dpa.train.evaluation.inputs import full_precision
from timm_dpa.train.evaluation.metrics import draw_gallery, evaluate, evaluate_distances, evaluate_draws

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def public():
    with safe_open(TESTS / 'data/public_losses_metrics.safetensors', framework='numpy') as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()['values'])  # noqa: SIM118


def case(queries=23, images=150, ids=6, cameras=3, width=12, seed=0):
    """Query and gallery embeddings, identities with some junk (-1) and some that are on one side only, cameras."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(ids + 2, width))
    query_pids, gallery_pids = rng.integers(-1, ids, queries), rng.integers(-1, ids + 1, images)
    query_pids[0] = ids + 5
    query, gallery = (
        (centers[pids % (ids + 2)] + 1.5 * rng.normal(size=(len(pids), width))).astype(np.float32)
        for pids in (query_pids, gallery_pids)
    )
    return query, gallery, query_pids, gallery_pids, rng.integers(0, cameras, queries), rng.integers(0, cameras, images)


def assert_same(result, expected, tolerance=1e-12):
    cmc, mean_ap, mean_inp, ap = expected
    np.testing.assert_allclose(result.cmc, cmc, rtol=0, atol=tolerance)
    assert result.mAP == pytest.approx(mean_ap, abs=tolerance)
    assert result.mINP == pytest.approx(mean_inp, abs=tolerance)
    np.testing.assert_allclose(result.ap, ap, rtol=0, atol=tolerance)
    assert result.queries == len(ap)
    assert result.valid_queries == np.isfinite(ap).sum()


DISTANCES = {'cosine': reference.cosine_distances, 'euclidean': reference.euclidean_distances}


class TestEvaluate:
    def test_numbers_of_the_public_implementation(self, public):
        tensors, values = public
        labels = [tensors[name] for name in ('qp', 'gp', 'qc', 'gc')]
        expected = values['market']
        distances = 1 - tensors['q'] @ tensors['g'].T
        for result in (
            evaluate(tensors['q'], tensors['g'], *labels, max_rank=20),
            evaluate_distances(distances, *labels, max_rank=20),
        ):
            np.testing.assert_allclose(result.cmc, expected['cmc'], rtol=0, atol=1e-7)  # stored in float32
            assert result.mAP == pytest.approx(expected['mAP'], abs=1e-12)
            assert result.mINP == pytest.approx(expected['mINP'], abs=1e-12)
            assert result.valid_queries == expected['n_valid']

    # 6 identities: about 20 positives a query; 100: one or two
    @pytest.mark.parametrize('ids', [6, 100])
    @pytest.mark.parametrize('cameras', [True, False])
    @pytest.mark.parametrize('metric', DISTANCES)
    def test_as_loops(self, metric, cameras, ids):
        query, gallery, *pids, query_camids, gallery_camids = case(ids=ids)
        camids = (query_camids, gallery_camids) if cameras else (None, None)
        expected = reference.metrics(DISTANCES[metric](query, gallery), *pids, *camids, junk=(-1,))
        assert 0 < np.isfinite(expected[3]).sum() < len(query)
        assert_same(evaluate(query, gallery, *pids, *camids, metric=metric), expected)

    @pytest.mark.parametrize('cameras', [True, False])
    def test_the_own_file_is_left_out(self, cameras):
        """Whatever the identity: a copy under another one is no negative either."""
        query, gallery, *pids, query_camids, gallery_camids = case(ids=6)
        rng = np.random.default_rng(1)
        files = rng.integers(0, 40, len(query)), rng.integers(0, 40, len(gallery))
        for k, file in enumerate(files[0]):
            gallery[files[1] == file] = query[k]
        camids = (query_camids, gallery_camids) if cameras else (None, None)
        distances = reference.cosine_distances(query, gallery)
        expected = reference.metrics(distances, *pids, *camids, junk=(-1,), files=files, tie=5e-7)
        named = {'query_files': files[0], 'gallery_files': files[1]}
        for chunk_bytes in (1, 64 << 20):
            assert_same(evaluate(query, gallery, *pids, *camids, **named, chunk_bytes=chunk_bytes), expected)
        exact = reference.metrics(distances, *pids, *camids, junk=(-1,), files=files)
        assert_same(evaluate_distances(distances, *pids, *camids, **named), exact)
        assert evaluate(query, gallery, *pids, *camids).mAP != pytest.approx(expected[1], abs=1e-3)
        with pytest.raises(ValueError, match='files of queries and gallery'):
            evaluate(query, gallery, *pids, query_files=files[0])

    def test_one_positive_each_and_a_short_gallery(self):
        query, gallery, *_ = case(30, 7)
        pids = np.arange(30) % 7, np.arange(7)
        result = evaluate(query, gallery, *pids, max_rank=50)
        assert_same(result, reference.metrics(reference.cosine_distances(query, gallery), *pids))
        assert result.cmc.shape == (50,)
        assert result.cmc[6] == 1
        assert result.mINP == pytest.approx(result.mAP, abs=1e-15)

    def test_a_gallery_of_one(self):
        result = evaluate(torch.eye(3), torch.eye(3)[:1], [4, 4, 5], [4])
        assert (result.mAP, result.rank(1), result.valid_queries) == (1, 1, 2)
        np.testing.assert_array_equal(result.first_match, [1, 1, 0])

    def test_junk_identities_are_as_if_they_were_not_there(self):
        query, gallery, query_pids, gallery_pids, *_ = case()
        some_queries, some_images = (~np.isin(pids, [-1, 2]) for pids in (query_pids, gallery_pids))
        result = evaluate(query, gallery, query_pids, gallery_pids, junk_pids=(-1, 2))
        without = evaluate(
            query[some_queries], gallery[some_images], query_pids[some_queries], gallery_pids[some_images]
        )
        np.testing.assert_array_equal(result.ap[some_queries], without.ap)
        assert np.isnan(result.ap[~some_queries]).all()
        every = evaluate(query, gallery, query_pids, gallery_pids, junk_pids=())
        assert every.valid_queries > result.valid_queries

    def test_the_camera_rule_can_be_off(self):
        query, gallery, *pids, query_camids, gallery_camids = case()
        off = evaluate(query, gallery, *pids, query_camids, gallery_camids, exclude_same_camera=False)
        np.testing.assert_array_equal(off.ap, evaluate(query, gallery, *pids).ap)

    @pytest.mark.parametrize('positives', [1, 40])
    def test_equal_embeddings_score_worst(self, positives):
        """All negatives count as nearer, although products of equal vectors may differ by their place."""
        rng = np.random.default_rng(0)
        for width in (7, 512, 2048):
            images = np.tile(np.abs(rng.normal(size=(1, width))), (1003, 1)).astype(np.float32)
            images *= np.exp2(rng.integers(-2, 3, (1003, 1))).astype(np.float32)
            pids = np.full(1003, 7)
            pids[rng.permutation(1003)[:positives]] = 3
            result = evaluate(images[:5], images, np.full(5, 3), pids)
            negatives = 1003 - positives
            worst = np.mean([k / (negatives + k) for k in range(1, positives + 1)])
            assert result.mAP == pytest.approx(worst, abs=1e-12)
            assert result.cmc[-1] == 0
            np.testing.assert_array_equal(result.first_match, negatives + 1)

    @pytest.mark.parametrize('ids', [6, 40])
    def test_ties(self, ids):
        """Vectors of few different whole numbers, as float32 holds their products."""
        rng = np.random.default_rng(1)
        query, gallery = (rng.integers(0, 3, size=(n, 3)).astype(np.float32) for n in (20, 90))
        pids = rng.integers(0, ids, 20), rng.integers(0, ids, 90)
        for metric, distances in DISTANCES.items():
            expected = reference.metrics(distances(query, gallery), *pids, tie=1e-9)
            assert_same(evaluate(query, gallery, *pids, metric=metric), expected)
            order = rng.permutation(90)
            assert_same(evaluate(query, gallery[order], pids[0], pids[1][order], metric=metric), expected)

    def test_neither_chunks_nor_kind_of_input_matter(self, tmp_path):
        query, gallery, *labels = case(queries=60)
        expected = evaluate(query, gallery, *labels)
        mapped = np.lib.format.open_memmap(tmp_path / 'query.npy', 'w+', np.float32, query.shape)
        mapped[:] = query
        mapped.flush()
        tensors = [torch.from_numpy(x) for x in (query, gallery, *labels)]
        for result in (
            evaluate(query, gallery, *labels, chunk_bytes=1),
            evaluate(np.load(tmp_path / 'query.npy', mmap_mode='r'), gallery, *labels, chunk_bytes=10_000),
            evaluate(*tensors),
            evaluate(np.asfortranarray(query), gallery[::-1][::-1], *map(list, labels)),
            evaluate(tensors[0].double(), tensors[1].double().requires_grad_(), *tensors[2:]),
        ):
            for name in ('cmc', 'ap', 'inp', 'first_match'):
                np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)

    def test_half_precision_is_compared_in_float32(self):
        query, gallery, *labels = case(width=512)
        half = [torch.from_numpy(x).half() for x in (query, gallery)]
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('medium')
        try:
            with torch.autocast('cpu', dtype=torch.bfloat16):
                result = evaluate(*half, *labels)
            assert torch.get_float32_matmul_precision() == 'medium'
        finally:
            torch.set_float32_matmul_precision(before)
        expected = evaluate(*[x.float() for x in half], *labels)
        np.testing.assert_array_equal(result.ap, expected.ap)

    def test_zero_vectors_tie_with_all_that_are_at_a_right_angle(self):
        result = evaluate(torch.tensor([[0.0, 0.0]]), torch.eye(2), [1], [1, 2])
        assert result.first_match[0] == 2

    def test_as_dict_is_plain(self):
        query, gallery, *labels = case()
        result = evaluate(query, gallery, *labels, max_rank=10)
        row = json.loads(json.dumps(result.as_dict()))
        assert list(row) == ['mAP', 'mINP', 'rank1', 'rank5', 'rank10', 'valid_queries', 'queries']
        assert row['rank5'] == result.cmc[4] == result.rank(5)
        with pytest.raises(ValueError, match=r'k must be 1\.\.10'):
            result.rank(11)

    def test_wrong_use(self):
        query, gallery, *labels = case()
        query_pids, gallery_pids, query_camids, _ = labels
        bad = gallery.copy()
        bad[[3, 9], 4] = np.nan, np.inf
        with pytest.raises(ValueError, match=r'gallery: 2 of 150 embeddings .* the first is 3'):
            evaluate(query, bad, *labels)
        with pytest.raises(ValueError, match=r'query: 2 of 150 embeddings .* the first is 3'):
            evaluate(bad, gallery, gallery_pids, gallery_pids)
        with pytest.raises(ValueError, match='too long for float32, the first is 0'):
            evaluate(query * np.float32(1e30), gallery, *labels)
        with pytest.raises(TypeError, match='query must be floating-point, not int64'):
            evaluate(query.astype(np.int64), gallery, *labels)
        with pytest.raises(ValueError, match='gallery must be two-dimensional'):
            evaluate(query, gallery[0], *labels)
        with pytest.raises(ValueError, match='query embeddings have 11 numbers, gallery embeddings 12'):
            evaluate(query[:, 1:], gallery, *labels)
        with pytest.raises(ValueError, match='gallery_pids must have 150 numbers'):
            evaluate(query, gallery, query_pids, query_pids)
        with pytest.raises(TypeError, match='query_pids must be whole numbers'):
            evaluate(query, gallery, query_pids + 0.5, gallery_pids)
        with pytest.raises(ValueError, match='exclude_same_camera needs'):
            evaluate(query, gallery, query_pids, gallery_pids, exclude_same_camera=True)
        with pytest.raises(ValueError, match='not only one'):
            evaluate(query, gallery, query_pids, gallery_pids, query_camids)
        with pytest.raises(ValueError, match="'cosine' or 'euclidean', not 'l2'"):
            evaluate(query, gallery, *labels, metric='l2')
        with pytest.raises(ValueError, match='max_rank'):
            evaluate(query, gallery, *labels, max_rank=0)
        for some in (query, query[:0]):
            with pytest.raises(ValueError, match='queries has a positive'):
                evaluate(some, gallery, query_pids[: len(some)] + 1000, gallery_pids)
        with pytest.raises(ValueError, match='queries has a positive'):
            evaluate(query, gallery[:0], query_pids, [])

    def test_euclidean_far_from_the_origin(self):
        query, gallery, *labels = case(ids=6)
        query, gallery = query + np.float32(1000), gallery + np.float32(1000)
        distances = reference.euclidean_distances(query, gallery)
        result = evaluate(query, gallery, *labels, metric='euclidean')
        assert_same(result, reference.metrics(distances, *labels, junk=(-1,)))

    def test_precision_that_the_caller_allows_is_left_as_it_is(self):
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision('medium')
            with full_precision('cpu'):
                assert torch.get_float32_matmul_precision() == 'highest'
            assert torch.get_float32_matmul_precision() == 'medium'
        finally:
            torch.set_float32_matmul_precision(before)

    @pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
    def test_memory_is_bounded(self):
        """The whole matrix would take 480 MB. One positive a query is another path than many."""
        setup = (
            'from timm_dpa.train.evaluation.metrics import evaluate\n'
            'q, g, p = torch.randn(30_000, 8), torch.randn(4000, 8), torch.arange(30_000) % 4000\n'
            'evaluate(q[:100], g, p[:100], p[:4000])'
        )
        calls = 'evaluate(q, g, p, p[:4000]), evaluate(q, g, p % 100, p[:4000] % 100)'
        assert extra_bytes(setup, calls) < 200e6

    @pytest.mark.slow
    def test_two_processes_give_the_metrics_of_one(self, tmp_path):
        expected = ranking_worker.results(distributed=False)
        for out in run_two('ranking_worker', tmp_path, '.npz'):
            with np.load(out) as got:
                assert set(got) == set(expected)
                for name, value in expected.items():
                    np.testing.assert_array_equal(got[name], value, err_msg=name)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
    @pytest.mark.parametrize('ids', [6, 100])
    def test_cuda(self, ids):
        query, gallery, *labels = case(ids=ids)
        expected = evaluate(query, gallery, *labels)
        on_gpu = [torch.from_numpy(x).cuda() for x in (query, gallery)]
        for result in (evaluate(*on_gpu, *labels), evaluate(query, gallery, *labels, device='cuda')):
            np.testing.assert_allclose(result.ap, expected.ap, rtol=0, atol=1e-9)


class TestDistances:
    @pytest.mark.parametrize('ids', [6, 100])
    @pytest.mark.parametrize('dtype', [np.float32, np.float64, np.float16])
    def test_as_loops(self, dtype, ids):
        *_, query_pids, gallery_pids, query_camids, gallery_camids = case(ids=ids)
        distances = np.random.default_rng(0).integers(0, 40, (23, 150)).astype(dtype)  # with ties
        labels = query_pids, gallery_pids, query_camids, gallery_camids
        expected = reference.metrics(distances, *labels, junk=(-1,))
        before = distances.copy()
        assert_same(evaluate_distances(distances, *labels), expected)
        assert_same(evaluate_distances(torch.from_numpy(distances), *labels, chunk_bytes=1), expected)
        np.testing.assert_array_equal(distances, before)

    def test_float64_is_not_rounded(self):
        close = np.array([[1.0, 1 + 1e-12]])
        assert evaluate_distances(close, [1], [1, 2]).first_match[0] == 1
        assert evaluate_distances(close[:, ::-1], [1], [1, 2]).first_match[0] == 2

    @pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite(self, number):
        distances = np.ones((3, 4))
        distances[2, 1] = number
        with pytest.raises(ValueError, match='distances of query 2'):
            evaluate_distances(distances, [1, 1, 1], [1, 2, 3, 4])


class TestDraws:
    def test_a_draw_has_one_image_of_each_vehicle(self):
        pids = np.random.default_rng(0).integers(0, 50, 400)
        query, gallery = draw_gallery(pids, 3)
        assert sorted(np.concatenate([query, gallery])) == list(range(400))
        assert len(gallery) == len(set(pids)) == len(set(pids[gallery]))
        assert all((np.diff(rows) > 0).all() for rows in (query, gallery))
        again = draw_gallery(torch.from_numpy(pids), 3)
        np.testing.assert_array_equal(again[1], gallery)
        assert (draw_gallery(pids, 4)[1] != gallery).any()

    def test_every_image_is_drawn_about_as_often(self):
        pids = [0, 0, 0, 0, 1, 1]
        counts = np.zeros(6)
        for seed in range(2000):
            counts[draw_gallery(pids, seed)[1]] += 1
        np.testing.assert_allclose(counts, [500] * 4 + [1000] * 2, atol=100)  # 4 to 5 standard deviations

    def test_mean_and_deviation(self):
        rng = np.random.default_rng(1)
        pids = rng.integers(0, 40, 300)
        embeddings = (rng.normal(size=(40, 8))[pids] + rng.normal(size=(300, 8))).astype(np.float32)
        result = evaluate_draws(embeddings, pids, draws=4, seed=7, metric='euclidean')
        rows = []
        for draw in range(4):
            query, gallery = draw_gallery(pids, (7, draw))
            distances = reference.euclidean_distances(embeddings[query], embeddings[gallery])
            expected = reference.metrics(distances, pids[query], pids[gallery])
            assert_same(result.draws[draw], expected)
            rows.append((expected[1], expected[0][0]))
        np.testing.assert_allclose([result.mean['mAP'], result.mean['rank1']], np.mean(rows, axis=0))
        np.testing.assert_allclose([result.std['mAP'], result.std['rank1']], np.std(rows, axis=0, ddof=1))
        assert result.std['mAP'] > 0
        assert result.mean['mINP'] == pytest.approx(result.mean['mAP'], abs=1e-12)
        np.testing.assert_allclose(result.cmc, np.mean([draw.cmc for draw in result.draws], axis=0))
        again = evaluate_draws(torch.from_numpy(embeddings), pids, draws=1, seed=7, metric='euclidean')
        assert again.mean['mAP'] == result.draws[0].mAP
        assert again.std['mAP'] == 0

    def test_wrong_use(self):
        with pytest.raises(ValueError, match='draws'):
            evaluate_draws(np.eye(3), [1, 1, 2], draws=0)
        with pytest.raises(ValueError, match='pids must have 3 numbers'):
            evaluate_draws(np.eye(3), [1, 1])
        with pytest.raises(ValueError, match='positive'):
            evaluate_draws(np.eye(3), [1, 2, 3])


@pytest.mark.parametrize(('rows', 'width', 'spread'), [(3, 20, 2), (300, 1000, 50), (1, 300_000, 9), (40, 7, 1)])
def test_counting_of_few_and_of_many_is_the_same(rows, width, spread):
    rng = np.random.default_rng(0)
    # many ties, both signs, both zeros, and left out places
    values = (rng.integers(-spread, spread + 1, (rows, width)) / spread).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = -0.0
    values[rng.random(values.shape) < 0.1] = -np.inf
    thresholds = np.sort(rng.integers(-spread, spread + 1, (rows, 8)) / spread, axis=1)[:, ::-1].astype(np.float32)
    lowest = thresholds[:, -1].copy()
    expected = [
        [sum(value >= limit for value in row) for limit in limits]
        for row, limits in zip(values, thresholds, strict=True)
    ]
    assert counting._count_few(values, thresholds, lowest).tolist() == expected
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert counting._count_few(values, thresholds, lowest).tolist() == expected
    finally:
        torch.set_num_threads(threads)


def test_well_separated_identities_with_many_positives():
    """Few negatives reach a positive here, which another way of counting is for."""
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((12, 16))
    pids, query_pids = np.arange(240) % 12, np.arange(30) % 12
    gallery = (centers[pids] + 0.5 * rng.standard_normal((240, 16))).astype(np.float32)
    query = (centers[query_pids] + 0.5 * rng.standard_normal((30, 16))).astype(np.float32)
    wanted = reference.metrics(reference.cosine_distances(query, gallery), query_pids, pids, tie=5e-7)
    result = evaluate(query, gallery, query_pids, pids)
    assert 0.5 < result.mAP < 0.99
    assert (result.mAP, result.mINP) == pytest.approx((wanted[1], wanted[2]), abs=1e-9)
