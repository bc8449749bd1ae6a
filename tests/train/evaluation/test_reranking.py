"""Re-ranking against loops in float64 and the fixture's numbers; query expansion against its formula."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.support import ranking_reference as reference
from tests.support.peak_memory import extra_bytes
from timm_dpa.train.evaluation import reranking
from timm_dpa.train.evaluation.metrics import evaluate_distances
from timm_dpa.train.evaluation.reranking import expand_queries, rerank

DATA = Path(__file__).parents[2] / 'data/public_losses_metrics.safetensors'


def case(queries: int, images: int, seed: int = 0, spread: float = 0.5, width: int = 8):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(4, width))
    return [
        (centers[rng.integers(0, 4, count)] + spread * rng.normal(size=(count, width))).astype(np.float32)
        for count in (queries, images)
    ]


class TestRerank:
    def test_numbers_of_the_public_implementation(self):
        with safe_open(DATA, framework='numpy') as file:
            expected = json.loads(file.metadata()['values'])['market_rerank_k20_6_0.3']
            query, gallery, distances, *labels = (
                file.get_tensor(name) for name in ('q', 'g', 'rerank_dist', 'qp', 'gp', 'qc', 'gc')
            )
        ours = rerank(query, gallery, k1=20, k2=6, lambda_value=0.3)
        np.testing.assert_allclose(ours.numpy(), distances, rtol=0, atol=1e-5)
        result = evaluate_distances(ours, *labels, max_rank=20)
        np.testing.assert_allclose(result.cmc, expected['cmc'], rtol=0, atol=1e-7)
        assert result.mAP == pytest.approx(expected['mAP'], abs=1e-9)
        assert result.mINP == pytest.approx(expected['mINP'], abs=1e-9)

    # among them fewer images than neighbors, no averaging, and each of the two distances alone
    @pytest.mark.parametrize(
        ('queries', 'images', 'k1', 'k2', 'lambda_value'),
        [
            (12, 60, 10, 4, 0.3),
            (5, 9, 20, 6, 0.3),
            (7, 30, 4, 1, 0.0),
            (1, 1, 20, 6, 0.3),
            (6, 40, 1, 3, 0.5),
            (9, 50, 7, 3, 1.0),
            (3, 80, 2, 25, 0.1),
        ],
    )
    def test_as_loops(self, queries, images, k1, k2, lambda_value):
        query, gallery = case(queries, images)
        expected = reference.k_reciprocal(query, gallery, k1, k2, lambda_value)
        ours = rerank(query * 3, torch.from_numpy(gallery), k1, k2, lambda_value)
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)

    @pytest.mark.parametrize('chunk', [1, 2000])
    def test_small_chunks(self, monkeypatch, chunk):
        query, gallery = case(20, 90)
        expected = reference.k_reciprocal(query, gallery, 8, 3, 0.3)
        monkeypatch.setattr(reranking, '_CHUNK_BYTES', chunk)
        np.testing.assert_allclose(rerank(query, gallery, 8, 3), expected, rtol=0, atol=2e-6)

    def test_sets_that_grow_beyond_the_kept_neighbors(self, monkeypatch):
        query, gallery = case(10, 120, spread=1.5)
        monkeypatch.setattr(reranking, '_KEPT', 1)
        expected = reference.k_reciprocal(query, gallery, 6, 3, 0.3)
        np.testing.assert_allclose(rerank(query, gallery, 6, 3), expected, rtol=0, atol=2e-6)

    def test_copies(self):
        """At equal distances the first image is nearer; exact in float32, as the numbers are few bits."""
        rng = np.random.default_rng(0)
        corners = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 1], [0.5, 0.5, -0.5, 0.5]])
        query, gallery = (corners[rng.integers(0, 5, count)].astype(np.float32) for count in (6, 60))
        expected = reference.k_reciprocal(query, gallery, 5, 3, 0.3)
        np.testing.assert_allclose(rerank(query, gallery, 5, 3), expected, rtol=0, atol=2e-6)

    def test_all_alike(self):
        images = np.ones((30, 16), np.float32)
        result = rerank(images[:4], images)
        assert torch.equal(result, rerank(images[:4], images))
        assert result.isfinite().all()

    def test_half_precision_and_nothing(self):
        query, gallery = (torch.from_numpy(x).half() for x in case(5, 30))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            result = rerank(query, gallery, 6, 3)
        torch.testing.assert_close(result, rerank(query.float(), gallery.float(), 6, 3), rtol=0, atol=0)
        assert rerank(query[:0], gallery).shape == (0, 30)
        assert rerank(query, gallery[:0]).shape == (5, 0)

    def test_wrong_use(self):
        query, gallery = case(5, 30)
        bad = gallery.copy()
        bad[7, 1] = np.inf
        with pytest.raises(ValueError, match=r'gallery: 1 of 30 embeddings .* the first is 7'):
            rerank(query, bad)
        with pytest.raises(ValueError, match='query embeddings have 7 numbers'):
            rerank(query[:, 1:], gallery)
        with pytest.raises(ValueError, match='k1 and k2'):
            rerank(query, gallery, k1=0)
        with pytest.raises(ValueError, match='lambda_value'):
            rerank(query, gallery, lambda_value=1.5)
        with pytest.raises(TypeError, match='floating-point'):
            rerank(query, gallery.astype(int))

    @pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
    def test_memory_is_bounded(self):
        """One matrix of 12,000 x 12,000 would take 576 MB in float32."""
        setup = (
            'from timm_dpa.train.evaluation.reranking import rerank\n'
            'x = torch.randn(200, 16).repeat(60, 1) + torch.randn(12_000, 16) / 2\n'
            'rerank(x[:50], x[:500])'
        )
        assert extra_bytes(setup, 'rerank(x[:500], x[500:])') < 400e6

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
    def test_cuda(self):
        query, gallery = case(12, 60)
        ours = rerank(query, gallery, 10, 4, device='cuda')
        assert ours.is_cuda
        torch.testing.assert_close(ours.cpu(), rerank(query, gallery, 10, 4), rtol=0, atol=1e-5)


class TestExpandQueries:
    @pytest.mark.parametrize(('k', 'alpha'), [(1, 3.0), (5, 3.0), (4, 0.0), (100, 1.0)])
    def test_as_its_formula(self, monkeypatch, k, alpha):
        monkeypatch.setattr(reranking, '_CHUNK_BYTES', 2000)
        query, gallery = case(11, 40)
        q, g = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
        expected = []
        for one in q:
            total = one.copy()
            for j in np.argsort(-(g @ one))[:k]:
                total += max(g[j] @ one, 0) ** alpha * g[j]
            expected.append(total / np.linalg.norm(total))
        ours = expand_queries(query * 5, gallery, k, alpha)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)

    def test_zero_vectors_and_an_empty_gallery_change_nothing(self):
        zeros = torch.zeros(3, 4)
        assert torch.equal(expand_queries(zeros, zeros), zeros)
        unit = torch.eye(4)[:2]
        assert torch.equal(expand_queries(unit * 2, unit[:0]), unit)

    def test_wrong_use(self):
        query, gallery = case(5, 30)
        for wrong in ({'k': 0}, {'alpha': -1}):
            with pytest.raises(ValueError, match='k must be at least 1 and alpha at least 0'):
                expand_queries(query, gallery, **wrong)
        with pytest.raises(ValueError, match='NaN'):
            expand_queries(query * np.nan, gallery)
