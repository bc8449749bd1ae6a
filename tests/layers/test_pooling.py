import numpy as np
import pytest
import torch

from tests.support import reference
from timm_dpa import AvgPool, GeMPool, MinPool, SoftPool
from timm_dpa.layers.pooling import PoolingPair

AXES = {'positions': (2, 3), 'channels': (1,)}


def feature_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize('over', AXES)
@pytest.mark.parametrize('shape', [(2, 5, 7, 4), (1, 1, 1, 1), (3, 17, 1, 9)])
def test_poolings_equal_the_formulas(over, shape):
    x = feature_map(*shape)
    wide = x.double().numpy()
    expected = {
        AvgPool(over): wide.mean(AXES[over], keepdims=True),
        MinPool(over): wide.min(AXES[over], keepdims=True),
        GeMPool(1.0, over=over): reference.gem(wide, 1, AXES[over]),
        GeMPool(3.0, over=over): reference.gem(wide, 3, AXES[over]),
        GeMPool(0.5, learnable=True, over=over): reference.gem(wide, 0.5, AXES[over]),
    }
    for pool, value in expected.items():
        np.testing.assert_allclose(pool(x).detach().numpy(), value, rtol=2e-5, atol=1e-6, err_msg=repr(pool))


def test_global_soft_pooling_is_the_softmax_weighted_mean():
    x = feature_map(2, 5, 4, 3) * 30  # exp() of it would overflow
    wide = x.double().numpy()
    for over, axes in AXES.items():
        weights = np.exp(wide - wide.max(axes, keepdims=True))
        expected = (weights * wide).sum(axes, keepdims=True) / weights.sum(axes, keepdims=True)
        np.testing.assert_allclose(SoftPool(over=over)(x).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize('kernel', [1, 3, 5])
def test_windowed_soft_pooling_equals_eq_4(kernel):
    x = feature_map(2, 3, 6, 5)
    x[0, 0] += 200  # a ratio of exponentials would be infinite here
    x[0, 1] -= 200  # and 0 / 0 here
    np.testing.assert_allclose(
        SoftPool(kernel)(x).numpy(), reference.soft_pool(x.double().numpy(), kernel), rtol=1e-5, atol=1e-5
    )


def test_soft_pooling_of_one_position_is_the_identity():
    x = feature_map(2, 3, 4, 4)
    assert SoftPool(1)(x) is x


@pytest.mark.parametrize('p', [1.0, 3.0, 20.0])
def test_gem_gradient_equals_that_of_the_plain_formula(p):
    x = feature_map(2, 4, 3, 5).relu()  # the zeros are below the clamp
    pool = GeMPool(p, learnable=True)
    y = x.clone().requires_grad_()
    pool(y).square().sum().backward()

    wide = x.double().requires_grad_()
    exponent = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    plain = wide.clamp(min=1e-6).pow(exponent).mean((2, 3)).pow(1 / exponent)
    plain.square().sum().backward()
    torch.testing.assert_close(y.grad, wide.grad.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pool.p.grad[0], exponent.grad.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gem_neither_overflows_nor_vanishes_in_half_precision(dtype):
    pool = GeMPool(6.0, learnable=True)
    for level in (3e-3, 1.0, 3e3):
        x = torch.full((1, 2, 4, 4), level, dtype=dtype)
        torch.testing.assert_close(pool(x).detach().float(), torch.full((1, 2, 1, 1), level), rtol=1e-2, atol=0)


def test_gem_of_an_empty_channel_has_a_finite_gradient():
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    pool = GeMPool(7.0, learnable=True)  # 1e-6 ** 7 is no float32 any more
    pool(x).sum().backward()
    assert x.grad.isfinite().all()
    assert pool.p.grad.isfinite().all()


@pytest.mark.parametrize('over', AXES)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_pooling_pair_equals_its_parts_with_gradient(over, memory_format):
    x = feature_map(3, 6, 5, 4).relu()  # ties at 0, where the gradient of the minimum is a choice
    fused = x.to(memory_format=memory_format).clone().requires_grad_()
    plain = x.clone().requires_grad_()
    weights = feature_map(3, 6, 5, 4, seed=1)
    mean, contrast = PoolingPair(over=over)(fused)
    expected = AvgPool(over)(plain), GeMPool(1.0, over=over)(plain) - MinPool(over)(plain)
    torch.testing.assert_close((mean, contrast), expected)
    # each used once more than the other, so that swapped gradients show
    (mean * weights).sum().add((contrast * weights.square()).sum()).backward()
    (expected[0] * weights).sum().add((expected[1] * weights.square()).sum()).backward()
    torch.testing.assert_close(fused.grad, plain.grad)
    with torch.no_grad():
        torch.testing.assert_close(PoolingPair(over=over)(x), expected)


@pytest.mark.parametrize('over', AXES)
def test_pooling_pair_gradient_equals_finite_differences(over):
    x = torch.rand(2, 3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(PoolingPair(over=over), (x,))


def test_minimum_sends_the_gradient_of_a_tie_to_the_first():
    x = torch.zeros(1, 2, 2, 2, requires_grad=True)
    MinPool()(x).sum().backward()
    assert x.grad.flatten(2).tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0]]]
    x.grad = None
    MinPool('channels')(x).sum().backward()
    assert x.grad[0].flatten(1).tolist() == [[1] * 4, [0] * 4]


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: AvgPool('rows'), 'positions'),
        (lambda: GeMPool(0.0), 'above 0'),
        (lambda: GeMPool(float('nan')), 'finite'),
        (lambda: GeMPool(eps=0.0), 'eps'),
        (lambda: SoftPool(2), 'odd'),
        (lambda: SoftPool(3, over='channels'), 'positions'),
    ],
)
def test_wrong_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
