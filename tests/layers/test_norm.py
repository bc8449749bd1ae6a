import pytest
import torch
from torch import nn

from tests.support.modules import randomise
from timm_dpa.layers.norm import InstanceBatchNorm2d, VectorBatchNorm


def pair() -> tuple[VectorBatchNorm, nn.BatchNorm1d]:
    torch.manual_seed(0)
    ours, torchs = VectorBatchNorm(6), nn.BatchNorm1d(6)
    nn.init.uniform_(ours.weight)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


@pytest.mark.parametrize('momentum', [0.1, 0.3, None])
def test_equals_torch_in_training_and_evaluation(momentum):
    ours, torchs = pair()
    for norm in (ours, torchs):
        norm.momentum = momentum
    for training in (True, True, False):
        x = torch.randn(5, 6) * 3 + 1
        torch.testing.assert_close(ours.train(training)(x), torchs.train(training)(x), rtol=0, atol=0)
    for (name, value), other in zip(ours.state_dict().items(), torchs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_a_batch_of_one_is_normalized_with_the_running_statistics(momentum):
    ours, torchs = pair()
    for norm in (ours, torchs):
        norm.momentum = momentum
        norm(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(1, 6, requires_grad=True)
    y = ours.train()(x)
    torch.testing.assert_close(y, torchs.eval()(x), rtol=0, atol=0)
    for (name, value), other in zip(ours.state_dict().items(), torchs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, msg=name)
    y.sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
@pytest.mark.parametrize('convert', [torch.jit.script, torch.fx.symbolic_trace])
@pytest.mark.parametrize('momentum', [0.1, None])
def test_converted_training_keeps_the_same_statistics(convert, momentum):
    ours, torchs = pair()
    for norm in (ours, torchs):
        norm.momentum = momentum
    converted = convert(ours)
    for seed in range(3):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(converted(x), torchs(x))
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    assert ours.num_batches_tracked == 3


def test_half_is_a_method_as_of_every_module():
    norm = InstanceBatchNorm2d(6).half()
    assert {value.dtype for name, value in norm.state_dict().items() if 'tracked' not in name} == {torch.float16}


def test_without_bias_there_is_none_in_the_state():
    assert set(VectorBatchNorm(3, bias=False).state_dict()) == {
        'weight',
        'running_mean',
        'running_var',
        'num_batches_tracked',
    }


@pytest.mark.parametrize('convert', [None, torch.jit.script, torch.fx.symbolic_trace])
@pytest.mark.parametrize('channels', [6, 7])
@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
def test_first_half_of_the_channels_has_the_statistics_of_its_image(channels, convert):
    norm = randomise(InstanceBatchNorm2d(channels))
    assert set(norm.state_dict()) == {
        *(f'IN.{name}' for name in ('weight', 'bias')),
        *(f'BN.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')),
    }
    x = torch.randn(3, channels, 5, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    first, second = x.double().split([3, channels - 3], dim=1)
    scale, offset, mean, var, weight, bias = (
        value.detach().double().view(1, -1, 1, 1)
        for value in (
            norm.IN.weight,
            norm.IN.bias,
            norm.BN.running_mean,
            norm.BN.running_var,
            norm.BN.weight,
            norm.BN.bias,
        )
    )
    first = first - first.mean((2, 3), keepdim=True)
    first = first / (first.square().mean((2, 3), keepdim=True) + 1e-5).sqrt() * scale + offset
    second = (second - mean) / (var + 1e-5).sqrt() * weight + bias
    got = (norm if convert is None else convert(norm))(x)
    torch.testing.assert_close(got.double(), torch.cat([first, second], dim=1), rtol=0, atol=1e-5)
