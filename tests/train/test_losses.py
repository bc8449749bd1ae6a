import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support import pair_loss_worker
from tests.support.loss_formulas import FORMULAS, circle_softmax
from tests.support.processes import run_two
from timm_dpa.train.losses import (
    METRIC_LOSSES,
    CircleLoss,
    ClassifierLogits,
    MultiSimilarityLoss,
    SupConLoss,
    TripletLoss,
    create_metric_loss,
    gather_batch,
    pairwise_distances,
)

TESTS = Path(__file__).parents[1]
with safe_open(TESTS / 'data' / 'public_losses_metrics.safetensors', 'pt') as file:
    FIXTURE = {name: file.get_tensor(name) for name in ('emb', 'labels', 'logits', 'targets')}
    VALUES = json.loads(file.metadata()['values'])

EVERY_LOSS = {
    'hard': lambda: TripletLoss(),
    'hinge': lambda: TripletLoss(margin=0.3),
    'hard-cosine': lambda: TripletLoss(metric='cosine'),
    'softmax': lambda: TripletLoss(mining='softmax'),
    'weighted': lambda: TripletLoss(mining='weighted'),
    'weighted-cosine-hinge': lambda: TripletLoss(margin=0.1, metric='cosine', mining='weighted'),
    'circle': CircleLoss,
    'multi_similarity': MultiSimilarityLoss,
    'supcon': SupConLoss,
}
every_loss = pytest.mark.parametrize('make', EVERY_LOSS.values(), ids=EVERY_LOSS.keys())

LABELS = {
    'P x K': [3, 3, 3, 7, 7, 7, 0, 0, 0, 5, 5, 5],
    'any integers': [-(2**62), 4, 4, -(2**62), 2**62, 2**62, 4, -1, -1, 2**62],
    'singletons': [0, 0, 1, 2, 2, 2, 3, 4, 4],
}
every_batch = pytest.mark.parametrize('labels', LABELS.values(), ids=LABELS.keys())


def embeddings(labels: list[int], size: int = 16, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Images of an identity are near each other, so that some pairs are easy and some hard."""
    generator = torch.Generator().manual_seed(seed)
    centers = {label: torch.randn(size, generator=generator) for label in sorted(set(labels))}
    noise = torch.randn(len(labels), size, generator=generator)
    return scale * (torch.stack([centers[label] for label in labels]) + 0.9 * noise)


def value_and_gradient(loss, x: torch.Tensor, labels) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().clone().requires_grad_()
    value = loss(x, labels)
    value.backward()
    return value.detach(), x.grad


@pytest.mark.parametrize(
    ('make', 'key'),
    [
        (lambda: TripletLoss(), 'triplet_softmargin_batchhard_mean'),
        (lambda: TripletLoss(margin=0.3), 'triplet_margin0.3_batchhard_mean'),
        (lambda: TripletLoss(mining='weighted'), 'triplet_softmargin_weighted_mean'),
        (lambda: CircleLoss(margin=0.25, scale=128), 'circle_m0.25_g128'),
        (lambda: MultiSimilarityLoss(2, 40, 0.5, 0.1), 'ms_pos2_neg40_thr0.5_margin0.1'),
        (lambda: SupConLoss(0.07), 'supcon'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_values_equal_the_released_implementation(make, key):
    value = make()(FIXTURE['emb'], FIXTURE['labels'])
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(VALUES[key], rel=1e-5)


def test_label_smoothing_of_torch_is_that_of_the_paper():
    value = F.cross_entropy(FIXTURE['logits'], FIXTURE['targets'], label_smoothing=0.1)
    assert value.item() == pytest.approx(VALUES['ce_ls0.1_over_n(paper eq 13)'], rel=1e-6)


EUCLIDEAN = {'distance': distances.LpDistance(normalize_embeddings=False), 'reducer': reducers.MeanReducer()}
COSINE = {'distance': distances.CosineSimilarity(), 'reducer': reducers.MeanReducer()}
PEERS = {
    'soft': (lambda: TripletLoss(), losses.TripletMarginLoss(0, smooth_loss=True, **EUCLIDEAN), 'hard'),
    'hinge': (lambda: TripletLoss(1.0), losses.TripletMarginLoss(1.0, **EUCLIDEAN), 'hard'),
    'cosine': (lambda: TripletLoss(0.2, metric='cosine'), losses.TripletMarginLoss(0.2, **COSINE), 'hard'),
    'circle': (lambda: CircleLoss(0.4, 80), losses.CircleLoss(0.4, 80), None),
    'multi_similarity': (lambda: MultiSimilarityLoss(2, 50, 0.6, 0.2), losses.MultiSimilarityLoss(2, 50, 0.6), 'ms'),
    'supcon': (lambda: SupConLoss(0.1), losses.SupConLoss(0.1), None),
}


@every_batch
@pytest.mark.parametrize('peer', PEERS.values(), ids=PEERS.keys())
def test_values_and_gradients_equal_pytorch_metric_learning(peer, labels):
    make, theirs, mining = peer
    miner = {
        'hard': lambda: miners.BatchHardMiner(distance=theirs.distance),
        'ms': lambda: miners.MultiSimilarityMiner(0.2),
        None: lambda: lambda *_: None,
    }[mining]()
    labels = torch.tensor(labels)
    for seed in range(5):
        x = embeddings(labels.tolist(), seed=seed)
        ours = value_and_gradient(make(), x, labels)
        # in float64, as rounding of its own is no part of the comparison
        value, gradient = value_and_gradient(lambda y, k: theirs(y, k, miner(y, k)), x.double(), labels)
        torch.testing.assert_close(ours, (value.float(), gradient.float()), rtol=1e-5, atol=1e-5)


@every_batch
@every_loss
def test_values_and_gradients_equal_the_formulas(make, labels):
    ours = make()
    options = {key: value for key, value in vars(ours).items() if key[0] != '_' and key != 'training'}
    name = next(name for name, kind in METRIC_LOSSES.items() if type(ours) is kind)
    x = embeddings(labels, scale=3.0)
    value, gradient = value_and_gradient(lambda y, k: FORMULAS[name](y, k, **options), x.double(), labels)
    result = value_and_gradient(ours, x, torch.tensor(labels))
    torch.testing.assert_close(result, (value.float(), gradient.float()), rtol=1e-5, atol=1e-6)


@every_loss
@pytest.mark.parametrize('labels', [[0, 1, 1, 2, 2, 2], [4] * 6, [0, 1, 2, 3, 4, 5], [9], [0, 0, 0, 1, 1, 1]], ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_hard_cases_are_finite(make, labels, dtype):
    count = len(labels)
    cases = {
        'random': embeddings(labels, scale=1.0),
        'norm 1e3': F.normalize(embeddings(labels, size=256)) * 1e3,
        'identical': embeddings([0], scale=30.0).repeat(count, 1),
        'opposite': embeddings([0], scale=30.0) * torch.tensor([1.0, -1.0] * 3)[:count, None],
        'zero': torch.zeros(count, 8),
        'tiny': torch.full((count, 8), 1e-7),
        'one zero': embeddings(labels) * (torch.arange(count) != 1)[:, None],
    }
    for name, x in cases.items():
        value, gradient = value_and_gradient(make(), x.to(dtype), torch.tensor(labels))
        assert value.dtype == torch.float32, name
        assert value.isfinite(), name
        assert gradient.isfinite().all(), name
        if len(set(labels)) == 1 or len(set(labels)) == count:
            assert value == 0, name
            assert (gradient == 0).all(), name


@every_loss
def test_autocast_changes_nothing(make):
    labels = torch.tensor(LABELS['P x K'])
    for dtype in (torch.float32, torch.bfloat16):
        x = embeddings(labels.tolist(), scale=5.0).to(dtype)
        expected = value_and_gradient(make(), x, labels)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            torch.testing.assert_close(value_and_gradient(make(), x, labels), expected, rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf], ids=str)
def test_an_embedding_that_is_not_finite_makes_the_loss_nan(make, bad):
    for labels in ([0, 0, 1, 1, 2], [0, 0, 0, 0, 0]):
        for row in (0, 4):
            x = embeddings(labels)
            x[row, 3] = bad
            assert make()(x, torch.tensor(labels)).isnan()


class NoHostReads(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique_dim')
        if name in ('index', 'index_put', 'index_put_'):
            assert all(i is None or i.dtype != torch.bool for i in args[1])
        return func(*args, **(kwargs or {}))


def test_the_watch_for_host_reads_sees_them():
    x = torch.arange(3.0)
    for read in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x[x > 1], lambda: F.one_hot(x.long(), 3)):
        with pytest.raises(AssertionError), NoHostReads():
            read()


@every_loss
def test_the_host_never_waits(make):
    labels = torch.tensor(LABELS['singletons'])
    x = embeddings(labels.tolist()).requires_grad_()
    with NoHostReads():
        make()(x, labels).backward()


def test_the_host_never_waits_for_logits():
    weight = torch.randn(5, 16, requires_grad=True)
    labels = torch.tensor([0, 4, 2])
    for kind in ('linear', 'cosine', 'circle'):
        with NoHostReads():
            ClassifierLogits(kind)(embeddings([0, 1, 2]).requires_grad_(), weight, labels).sum().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@every_loss
def test_cuda_gives_the_numbers_of_the_cpu_without_waiting_and_with_tf32_allowed(make):
    labels = torch.tensor(LABELS['singletons'])
    x = embeddings(labels.tolist(), size=2048)
    expected = value_and_gradient(make(), x, labels)
    loss, x, labels = make(), x.cuda().requires_grad_(), labels.cuda()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    torch.cuda.set_sync_debug_mode('error')
    try:
        value = loss(x, labels)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
        torch.set_float32_matmul_precision(precision)
    torch.testing.assert_close((value.detach().cpu(), x.grad.cpu()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_distances_of_equal_features_do_not_cancel(offset):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2048, generator=generator) + offset  # of length 45, and of 4500
    x[1] = x[0]
    x[3] = x[2]
    x[3, 0] += 0.01
    x.requires_grad_()
    result = pairwise_distances(x, x)
    expected = (x.detach().double()[:, None] - x.detach().double()).square().sum(2).sqrt()
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-5)
    assert result.dtype == torch.float32
    assert result[0, 1] < 1e-3
    result.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 100
    cosines = pairwise_distances(x.detach(), x.detach()[:7], 'cosine')
    expected = 1 - F.cosine_similarity(x.detach().double()[:, None], x.detach().double()[:7], 2)
    torch.testing.assert_close(cosines.double(), expected, rtol=0, atol=1e-6)


def test_gradient_of_distances_equals_finite_differences():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (3, 2))
    for metric in ('euclidean', 'cosine'):
        assert torch.autograd.gradcheck(
            lambda x, y, metric=metric: pairwise_distances(x, y, metric).double(), (a, b), eps=1e-2, atol=1e-3
        )


def test_logits_equal_their_formulas():
    labels = [2, 0, 4, 4, 1, 3]
    x, weight = embeddings(labels, scale=4.0), embeddings(list(range(5)), seed=1)
    classes = torch.tensor(labels)
    torch.testing.assert_close(ClassifierLogits()(x, weight, classes), x @ weight.T)
    cosines = F.cosine_similarity(x[:, None], weight, 2)
    torch.testing.assert_close(ClassifierLogits('cosine', scale=16)(x, weight), 16 * cosines)
    torch.testing.assert_close(ClassifierLogits('circle')(x, weight), 64 * cosines)
    for options in ({}, {'scale': 30.0, 'margin': 0.1}):
        ours = [t.clone().requires_grad_() for t in (x, weight)]
        theirs = [t.double().requires_grad_() for t in (x, weight)]
        logits = ClassifierLogits('circle', **options)(*ours, classes)
        expected = circle_softmax(*theirs, labels, **options)
        torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-4)
        F.cross_entropy(logits, classes).backward()
        F.cross_entropy(expected, classes).backward()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['linear', 'cosine', 'circle'])
def test_logits_are_float32_in_autocast(kind):
    x, weight, labels = embeddings([0, 1, 2]), embeddings(list(range(5)), seed=1), torch.tensor([0, 1, 2])
    expected = ClassifierLogits(kind)(x, weight, labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(ClassifierLogits(kind)(x, weight, labels), expected, rtol=0, atol=0)
    half = ClassifierLogits(kind)(torch.zeros(2, 16, dtype=torch.float16), weight, labels[:2])
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    alone = pair_loss_worker.steps(pair_loss_worker.net())
    for path in run_two('pair_loss_worker', tmp_path):
        result = torch.load(path, weights_only=True)
        torch.testing.assert_close(result['steps'], alone, rtol=1e-9, atol=1e-9)
        half, labels = result['half']
        assert half.dtype == torch.bfloat16
        assert half[:, 0].tolist() == [0, 0, 1, 1]
        assert labels.tolist() == [0, 10, 1, 10]
        assert '[2, 3]' in result['unequal']
    assert all(step['0.weight'].abs().max() > 1e-4 for step in alone.values())


def test_one_process_gathers_nothing():
    x, labels = embeddings([0, 1]), torch.tensor([0, 1])
    assert gather_batch(x, labels) == (x, labels)


def test_losses_are_created_by_name():
    loss = create_metric_loss('triplet', margin=0.5, metric='cosine')
    assert (type(loss), loss.margin, loss.metric) == (TripletLoss, 0.5, 'cosine')
    assert create_metric_loss('circle', scale=80).scale == 80
    assert isinstance(create_metric_loss('multi_similarity'), MultiSimilarityLoss)
    assert isinstance(create_metric_loss('supcon'), SupConLoss)
    with pytest.raises(ValueError, match=r"'triplets'.*triplet, circle, multi_similarity, supcon"):
        create_metric_loss('triplets')
    with pytest.raises(TypeError, match=r"'circle'.*'gamma'.*margin, scale"):
        create_metric_loss('circle', gamma=3)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: TripletLoss(margin=-1), 'margin'),
        (lambda: TripletLoss(metric='l2'), "'euclidean' or 'cosine'"),
        (lambda: TripletLoss(mining='all'), 'mining'),
        (lambda: CircleLoss(margin=1.0), 'margin'),
        (lambda: CircleLoss(scale=0), 'scale'),
        (lambda: MultiSimilarityLoss(beta=-2), 'beta'),
        (lambda: SupConLoss(temperature=0), 'temperature'),
        (lambda: ClassifierLogits('arcface'), 'kind'),
        (lambda: ClassifierLogits()(torch.zeros(2, 3), torch.zeros(5, 4)), r'\(2, 3\).*\(5, 4\)'),
        (lambda: TripletLoss()(torch.zeros(2, 3), torch.zeros(3).long()), 'embeddings'),
        (lambda: TripletLoss()(torch.zeros(0, 3), torch.zeros(0).long()), 'embeddings'),
        (lambda: pairwise_distances(torch.zeros(2, 3), torch.zeros(2, 4)), r'\(2, 4\)'),
        (lambda: pairwise_distances(torch.zeros(2, 3), torch.zeros(2, 3), 'dot'), 'metric'),
    ],
)
def test_wrong_values_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_wrong_dtypes_are_named():
    for x, labels in ((torch.zeros(2, 3).long(), torch.zeros(2).long()), (torch.zeros(2, 3), torch.zeros(2))):
        with pytest.raises(TypeError, match='floats'):
            TripletLoss()(x, labels)


@pytest.mark.slow
@every_loss
def test_losses_compile_as_one_graph(make):
    labels = torch.tensor(LABELS['singletons'])
    x = embeddings(labels.tolist())
    torch.compiler.reset()
    compiled = torch.compile(make(), backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(value_and_gradient(compiled, x, labels), value_and_gradient(make(), x, labels))
