from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.support import reference
from tests.support.modules import float64_state, randomise
from timm_dpa import ODConv2d

FIXTURE = load_file(Path(__file__).parents[1] / 'data' / 'public_modules_c64.safetensors')
RELEASED = sorted({name.split('.')[0] for name in FIXTURE if name.startswith('odconv_')})


def released_state(prefix: str) -> dict[str, torch.Tensor]:
    found = {name.removeprefix(prefix): value for name, value in FIXTURE.items() if name.startswith(prefix)}
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


@pytest.mark.parametrize('case', RELEASED)
def test_equals_the_released_implementation(case):
    kernel_num, channels, out_channels, size, stride, groups = (
        int(''.join(c for c in part if c.isdigit())) for part in case.removeprefix('odconv_').split('_')
    )
    conv = ODConv2d(channels, out_channels, size, stride, size // 2, groups=groups, kernel_num=kernel_num).eval()
    state = released_state(f'{case}.')
    x, expected = state.pop('x'), state.pop('y')
    conv.load_state_dict(state)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-5)


CASES = {
    'plain': {},
    'widening': {'in_channels': 4, 'out_channels': 18},
    'four kernels': {'kernel_num': 4},
    'four kernels, widening': {'in_channels': 4, 'out_channels': 18, 'kernel_num': 4},
    'stride': {'stride': (2, 3)},
    'stride, four kernels': {'stride': 2, 'kernel_num': 4},
    'dilation': {'dilation': (1, 2), 'padding': 2},
    'no padding': {'padding': 0},
    'oblong kernel': {'kernel_size': (3, 5), 'padding': (1, 2)},
    'even kernel': {'kernel_size': 2, 'padding': 0},
    'groups': {'groups': 2},
    'groups, four kernels': {'groups': 2, 'kernel_num': 4},
    'groups, stride': {'groups': 4, 'stride': 2, 'dilation': 2, 'padding': 2},
    'groups, widening': {'in_channels': 4, 'out_channels': 18, 'groups': 2},
    'depth-wise': {'in_channels': 6, 'out_channels': 6, 'groups': 6},
    'depth-wise, four kernels, stride': {
        'in_channels': 6,
        'out_channels': 6,
        'groups': 6,
        'kernel_num': 4,
        'stride': 2,
    },
    '1x1': {'kernel_size': 1, 'padding': 0},
    '1x1, four kernels, groups': {'kernel_size': 1, 'padding': 0, 'kernel_num': 4, 'groups': 2},
    '1x1, stride and padding': {'kernel_size': 1, 'padding': 1, 'stride': 2},
    'temperature': {'temperature': 4.0, 'kernel_num': 2},
}


def build(**options) -> ODConv2d:
    options = {'in_channels': 12, 'out_channels': 8, 'kernel_size': 3, 'padding': 1, **options}
    return randomise(ODConv2d(**options))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('case', CASES)
def test_equals_a_kernel_per_image(case, memory_format):
    conv = build(**CASES[case])
    x = torch.randn(3, conv.in_channels, 9, 7, generator=torch.Generator().manual_seed(1))
    options = {k: CASES[case][k] for k in ('kernel_num', 'groups', 'temperature') if k in CASES[case]}
    expected = reference.od_conv(
        x.double().numpy(),
        float64_state(conv),
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        **options,
    )
    y = conv.to(memory_format=memory_format)(x.to(memory_format=memory_format))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-5)


def per_image(conv: ODConv2d, x: torch.Tensor) -> torch.Tensor:
    """The usual way: torch's grouped convolution, a group per image."""
    channel, filters, taps, kernels = conv.attention(x.mean((2, 3)))
    weight = conv.weight.view(conv.kernel_num, -1, *conv.weight.shape[1:])
    mix = torch.ones(len(x), 1) if kernels is None else kernels
    weight = torch.einsum('bk,koihw->boihw', mix, weight)
    if taps is not None:
        weight = weight * taps.view(len(x), 1, 1, conv.kernel_h, conv.kernel_w)
    if filters is not None:
        weight = weight * filters[:, :, None, None, None]
    y = F.conv2d(
        (x * channel[:, :, None, None]).flatten(0, 1)[None],
        weight.flatten(0, 1),
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=len(x) * conv.groups,
    )
    return y.view(len(x), conv.out_channels, *y.shape[2:])


@pytest.mark.parametrize('case', CASES)
def test_gradients_equal_those_of_a_kernel_per_image(case):
    conv = build(**CASES[case]).train()
    x = torch.randn(3, conv.in_channels, 9, 7, generator=torch.Generator().manual_seed(1))
    wanted = None
    for forward in (per_image, lambda conv, x: conv(x)):
        y = x.clone().requires_grad_()
        out = forward(conv, y)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        gradients = torch.autograd.grad((out * weight).sum(), [y, *conv.parameters()])
        if wanted is None:
            wanted = gradients
        else:
            for (name, _), got, want in zip([('x', y), *conv.named_parameters()], gradients, wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f'{n}: {m}')


def test_affine_input_equals_the_materialised_one():
    conv = build()
    x = torch.randn(3, 12, 6, 5)
    scale, shift = torch.randn(3, 12), torch.randn(3, 12)
    expected = conv(x * scale[:, :, None, None] + shift[:, :, None, None])
    torch.testing.assert_close(conv.forward_affine(x, x.mean((2, 3)), scale, shift), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kernel_num', [1, 4])
def test_pooled_input_equals_a_padded_1x1_map(kernel_num):
    conv = build(kernel_num=kernel_num)
    x = torch.randn(3, 12)
    torch.testing.assert_close(conv.forward_pooled(x), conv(x[:, :, None, None]).flatten(1), rtol=1e-4, atol=1e-6)


def test_a_map_smaller_than_the_kernel_is_an_error():
    conv = build(padding=0)
    with pytest.raises(AssertionError, match='lower than the kernel'):
        conv(torch.randn(2, 12, 2, 8))
    with pytest.raises(AssertionError, match='narrower than the kernel'):
        conv(torch.randn(2, 12, 8, 2))


def test_a_training_batch_of_one_uses_the_running_statistics():
    conv = build().train()
    x = torch.randn(1, 12, 8, 8)
    before = conv.attention.bn.running_mean.clone()
    y = conv(x)
    torch.testing.assert_close(conv.attention.bn.running_mean, before, rtol=0, atol=0)
    torch.testing.assert_close(y, conv.eval()(x), rtol=0, atol=0)
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters())


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'groups': 5}, 'groups=5 must divide'),
        ({'kernel_num': 0}, 'kernel_num'),
        ({'temperature': 0.0}, 'temperature'),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('case', ['plain', 'widening', 'four kernels', 'depth-wise'])
def test_autocast_stays_close(case, dtype):
    conv = build(**CASES[case])
    x = torch.randn(3, conv.in_channels, 9, 7)
    with torch.autocast('cpu', dtype=dtype):
        y = conv(x)
    torch.testing.assert_close(y.float(), conv(x), rtol=0.05, atol=0.1)
