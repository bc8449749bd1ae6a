import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.layers.test_odconv import released_state
from tests.support import reference
from tests.support.modules import float64_state, randomise
from timm_dpa import ChannelPoolingAttention, DualPoolingAttention, SpatialPoolingAttention, create_stage_attn
from timm_dpa.attention import ATTN_LAYERS, _gated

FIXTURE = load_file(Path(__file__).parent / 'data' / 'public_modules_c64.safetensors')


def feature_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.fixture(scope='module')
def released() -> DualPoolingAttention:
    module = DualPoolingAttention(64).eval()
    module.cpa.load_state_dict(released_state('cpa.'))
    module.spa.load_state_dict(released_state('spa.'))
    return module


def test_gates_and_output_equal_the_released_implementation(released):
    x = FIXTURE['x']
    torch.testing.assert_close(released.cpa.gate(x), FIXTURE['y_cpa_gate'], rtol=0, atol=1e-5)
    torch.testing.assert_close(released.spa.gate(x), FIXTURE['y_spa_gate'], rtol=0, atol=1e-5)
    torch.testing.assert_close(released(x), FIXTURE['y_dpa'], rtol=0, atol=1e-5)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_gradient_equals_the_released_implementation(released, memory_format):
    x = FIXTURE['x'].to(memory_format=memory_format).clone().requires_grad_()
    released(x).square().sum().backward()
    torch.testing.assert_close(x.grad, FIXTURE['grad_x_of_sum_sq_dpa'], rtol=1e-3, atol=1e-5)


def test_gradient_of_the_two_gates_equals_finite_differences():
    generator = torch.Generator().manual_seed(0)
    x, channel = (torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    spatial = torch.randn(2, 3, 1, 1, dtype=torch.float64, generator=generator).requires_grad_()
    for training in (True, False):
        assert torch.autograd.gradcheck(functools.partial(_gated, training=training), (x, channel, spatial))


SHAPES = [(2, 64, 16, 16), (1, 17, 5, 9), (3, 6, 1, 1), (2, 32, 20, 12)]
OPTIONS = [{}, {'kernel_num': 3}, {'gem_p': 3.0, 'soft_kernel': 3}, {'gem_learnable': True, 'reduction': 4}]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_modules_equal_the_float64_formulas(shape, options):
    x = feature_map(*shape)
    wide = x.double().numpy()
    grid = (6, 8)
    formula = {
        'kernel_num': options.get('kernel_num', 1),
        'gem_p': options.get('gem_p', 1.0),
        'soft': options.get('soft_kernel', 1),
    }
    cpa = randomise(ChannelPoolingAttention(shape[1], **options), seed=1)
    spa = randomise(SpatialPoolingAttention(shape[1], grid_size=grid, **options), seed=2)
    if options.get('gem_learnable'):
        formula['gem_p'] = cpa.pool.gem_pool.p.item()
    cpa_gate = reference.channel_gate(wide, float64_state(cpa), **formula)
    if options.get('gem_learnable'):
        formula['gem_p'] = spa.pool.gem_pool.p.item()
    spa_gate = reference.spatial_gate(wide, float64_state(spa), grid, **formula)
    for module, gate in ((cpa, cpa_gate), (spa, spa_gate)):
        np.testing.assert_allclose(module.gate(x).detach().numpy(), gate, atol=1e-5)
        np.testing.assert_allclose(module(x).detach().numpy(), wide * gate, atol=3e-5)

    dpa = DualPoolingAttention(shape[1], grid_size=grid, **options).eval()
    dpa.cpa.load_state_dict(cpa.state_dict())
    dpa.spa.load_state_dict(spa.state_dict())
    np.testing.assert_allclose(dpa(x).detach().numpy(), wide * cpa_gate * spa_gate, atol=3e-5)
    np.testing.assert_allclose(
        dpa(x.to(memory_format=torch.channels_last)).detach().numpy(), wide * cpa_gate * spa_gate, atol=3e-5
    )


def test_another_grid_is_loaded_without_a_change_on_maps_of_that_grid():
    saved = randomise(SpatialPoolingAttention(12, grid_size=(8, 4)))
    for grid in ((16, 8), (6, 3), (8, 4)):
        loaded = randomise(SpatialPoolingAttention(12, grid_size=grid), seed=5)
        loaded.load_state_dict(saved.state_dict())
        x = feature_map(2, 12, *grid)
        torch.testing.assert_close(loaded.gate(x), saved.gate(x), rtol=0, atol=1e-6)


def test_a_grid_of_other_proportions_is_an_error():
    saved = SpatialPoolingAttention(12, grid_size=(8, 4))
    with pytest.raises(ValueError, match='grid_size'):
        SpatialPoolingAttention(12, grid_size=(5, 5)).load_state_dict(saved.state_dict())


@pytest.mark.parametrize('name', ATTN_LAYERS)
@pytest.mark.parametrize('shape', [(2, 48, 7, 5), (2, 16, 1, 1)], ids=str)
def test_every_attention_keeps_the_shape_and_trains(name, shape):
    module = create_stage_attn(name, shape[1]).train()
    x = feature_map(*shape).requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_unknown_attention_and_option_are_errors():
    with pytest.raises(ValueError, match=r"unknown attn_layer 'dpaa'.*dpa, cpa"):
        create_stage_attn('dpaa', 16)
    for name in ATTN_LAYERS:
        with pytest.raises(TypeError, match='kernel_nums'):
            create_stage_attn(name, 16, kernel_nums=2)
    for options, words in (
        ({'reduction': 0}, 'reduction'),
        ({'grid_size': 0}, 'grid_size'),
        ({'soft_kernel': 2}, 'odd'),
    ):
        with pytest.raises(ValueError, match=words):
            create_stage_attn('dpa', 16, **options)


def test_squeeze_excitation_is_that_of_the_paper():
    module = randomise(create_stage_attn('se', 160))
    state = float64_state(module)
    x = feature_map(2, 160, 4, 3)
    wide = x.double().numpy()
    assert state['fc1.weight'].shape == (10, 160, 1, 1)  # reduction 16, not rounded
    hidden = np.maximum(wide.mean((2, 3)) @ state['fc1.weight'][:, :, 0, 0].T + state['fc1.bias'], 0)
    gate = reference.sigmoid(hidden @ state['fc2.weight'][:, :, 0, 0].T + state['fc2.bias'])
    np.testing.assert_allclose(module(x).detach().numpy(), wide * gate[:, :, None, None], atol=1e-5)


def test_cbam_is_that_of_the_paper_with_the_batch_norm_of_its_code():
    module = randomise(create_stage_attn('cbam', 160))
    state = float64_state(module)
    x = feature_map(2, 160, 8, 9)
    y = x.double().numpy()
    w1, w2 = state['channel.fc1.weight'][:, :, 0, 0], state['channel.fc2.weight'][:, :, 0, 0]
    assert w1.shape == (10, 160)
    pooled = [np.maximum(v @ w1.T, 0) @ w2.T for v in (y.mean((2, 3)), y.max((2, 3)))]
    y = y * reference.sigmoid(sum(pooled))[:, :, None, None]
    planes = np.stack([y.mean(1), y.max(1)], axis=1)
    conv = state['spatial.conv.conv.weight']
    assert conv.shape == (1, 2, 7, 7)
    weighed = np.stack([reference.conv2d(image, conv, (1, 1), (3, 3), (1, 1), 1) for image in planes])
    gate = reference.sigmoid(reference.batch_norm(weighed, reference.part(state, 'spatial.conv.bn.')))
    np.testing.assert_allclose(module(x).detach().numpy(), y * gate, atol=1e-5)


def test_coordinate_attention_is_that_of_the_paper_at_reduction_16():
    module = randomise(create_stage_attn('ca', 160))
    state = float64_state(module)
    x = feature_map(2, 160, 5, 7)
    wide = x.double().numpy()
    conv1, conv_h, conv_w = (state[f'{n}.weight'][:, :, 0, 0] for n in ('conv1', 'conv_h', 'conv_w'))
    assert conv1.shape == (10, 160)
    strips = np.concatenate([wide.mean(3), wide.mean(2)], axis=2)
    hidden = reference.batch_norm(np.einsum('oc,bcl->bol', conv1, strips), reference.part(state, 'bn1.'))
    hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
    gate_h = reference.sigmoid(np.einsum('oc,bcl->bol', conv_h, hidden[:, :, :5]))
    gate_w = reference.sigmoid(np.einsum('oc,bcl->bol', conv_w, hidden[:, :, 5:]))
    expected = wide * gate_h[:, :, :, None] * gate_w[:, :, None, :]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-5)


def test_non_local_is_the_embedded_gaussian_of_the_paper():
    module = randomise(create_stage_attn('nl', 20))
    state = float64_state(module)
    x = feature_map(2, 20, 4, 3)
    flat = x.double().numpy().reshape(2, 20, -1)

    def embed(name: str) -> np.ndarray:
        return np.einsum('oc,bcl->bol', state[f'{name}.weight'][:, :, 0, 0], flat) + state[f'{name}.bias'][:, None]

    assert state['t.weight'].shape == (10, 20, 1, 1)  # half of the channels
    weights = np.exp(np.einsum('bcl,bcm->blm', embed('t'), embed('p')))  # no scaling
    weights = weights / weights.sum(2, keepdims=True)
    mixed = np.einsum('blm,bcm->bcl', weights, embed('g'))
    mixed = np.einsum('oc,bcl->bol', state['z.weight'][:, :, 0, 0], mixed) + state['z.bias'][:, None]
    expected = flat + reference.batch_norm(mixed, reference.part(state, 'norm.'))
    np.testing.assert_allclose(module(x).detach().numpy().reshape(2, 20, -1), expected, atol=1e-5)


@pytest.mark.parametrize('convert', [None, torch.jit.script, torch.fx.symbolic_trace])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [(2, 3), (6, 5)], ids=['few positions', 'many positions'])
@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
def test_dot_product_non_local_is_eq_4_of_the_paper(size, memory_format, convert):
    module = randomise(create_stage_attn('nl_dot', 20))
    state = float64_state(module)
    x = feature_map(2, 20, *size)
    flat = x.double().numpy().reshape(2, 20, -1)

    def embed(name: str) -> np.ndarray:
        return np.einsum('oc,bcl->bol', state[f'{name}.weight'][:, :, 0, 0], flat) + state[f'{name}.bias'][:, None]

    assert state['t.weight'].shape == (10, 20, 1, 1)  # half of the channels
    weights = np.einsum('bcl,bcm->blm', embed('t'), embed('p')) / flat.shape[2]
    mixed = np.einsum('blm,bcm->bcl', weights, embed('g'))
    mixed = np.einsum('oc,bcl->bol', state['z.weight'][:, :, 0, 0], mixed) + state['z.bias'][:, None]
    expected = flat + reference.batch_norm(mixed, reference.part(state, 'norm.'))
    module = module if convert is None else convert(module)
    got = module(x.to(memory_format=memory_format)).detach().numpy()
    np.testing.assert_allclose(got.reshape(2, 20, -1), expected, atol=1e-5)


def test_exported_dot_product_non_local_takes_any_size():
    module = randomise(create_stage_attn('nl_dot', 20))
    sizes = {2: torch.export.Dim('height', max=64), 3: torch.export.Dim('width', max=64)}
    exported = torch.export.export(module, (feature_map(2, 20, 6, 5),), dynamic_shapes=(sizes,)).module()
    for size in ((2, 3), (6, 5)):
        x = feature_map(2, 20, *size)
        torch.testing.assert_close(exported(x), module(x))


def test_inner_channels_of_dot_product_non_local_are_an_option():
    for options, inner in (({'rd_channels': 1}, 1), ({'rd_ratio': 0.25}, 5)):
        assert create_stage_attn('nl_dot', 20, **options).t.weight.shape == (inner, 20, 1, 1)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_dot_product_non_local_stays_finite_in_half_precision(dtype):
    module = randomise(create_stage_attn('nl_dot', 64))
    x = 10 * feature_map(2, 64, 32, 32)
    with torch.autocast('cpu', dtype=dtype):
        got = module(x)
    expected = module(x)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize('name', ['nl', 'nl_dot'])
def test_non_local_starts_as_the_identity(name):
    x = feature_map(2, 20, 4, 3)
    torch.testing.assert_close(create_stage_attn(name, 20)(x), x)
