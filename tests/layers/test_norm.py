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


def test_equals_torch_in_training_and_evaluation():
    ours, torchs = pair()
    for training in (True, True, False):
        x = torch.randn(5, 6) * 3 + 1
        torch.testing.assert_close(ours.train(training)(x), torchs.train(training)(x), rtol=0, atol=0)
    for (name, value), other in zip(ours.state_dict().items(), torchs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, msg=name)


def test_a_batch_of_one_is_normalised_with_the_running_statistics():
    ours, torchs = pair()
    for norm in (ours, torchs):
        norm(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(1, 6, requires_grad=True)
    y = ours.train()(x)
    torch.testing.assert_close(y, torchs.eval()(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.running_var, torchs.running_var, rtol=0, atol=0)
    y.sum().backward()
    assert (x.grad != 0).all()


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
