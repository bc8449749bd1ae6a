"""The paper's formulas in plain float64 numpy, loops and all; nothing here uses the package."""

from __future__ import annotations

import numpy as np

State = dict[str, np.ndarray]


def part(state: State, prefix: str) -> State:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def batch_norm(x: np.ndarray, state: State, eps: float = 1e-5) -> np.ndarray:
    """Evaluation mode; channels are axis 1."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, weight, bias = (state[k].reshape(shape) for k in ('running_mean', 'running_var', 'weight', 'bias'))
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def gem(x: np.ndarray, p: float, axes: tuple[int, ...], eps: float = 1e-6) -> np.ndarray:
    return (np.maximum(x, eps) ** p).mean(axes, keepdims=True) ** (1 / p)


def soft_pool(x: np.ndarray, kernel: int) -> np.ndarray:
    """Eq. 4 in windows of `kernel`, positions outside of the map left out."""
    batch, channels, height, width = x.shape
    half = kernel // 2
    out = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            window = x[:, :, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1].reshape(
                batch, channels, -1
            )
            weights = np.exp(window - window.max(-1, keepdims=True))
            out[:, :, i, j] = (weights * window).sum(-1) / weights.sum(-1)
    return out


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """One image `(C, H, W)`, position by position."""
    out_channels, group_in, kernel_h, kernel_w = weight.shape
    x = np.pad(x, ((0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    height = (x.shape[1] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    out = np.zeros((out_channels, height, width))
    group_out = out_channels // groups
    for group in range(groups):
        inputs = x[group * group_in : (group + 1) * group_in]
        kernel = weight[group * group_out : (group + 1) * group_out]
        for i in range(height):
            for j in range(width):
                top, left = i * stride[0], j * stride[1]
                patch = inputs[
                    :,
                    top : top + dilation[0] * (kernel_h - 1) + 1 : dilation[0],
                    left : left + dilation[1] * (kernel_w - 1) + 1 : dilation[1],
                ]
                out[group * group_out : (group + 1) * group_out, i, j] = np.einsum('oikl,ikl->o', kernel, patch)
    return out


def od_conv(
    x: np.ndarray,
    state: State,
    kernel_num: int = 1,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    temperature: float = 1.0,
) -> np.ndarray:
    """Eq. 3 of the ODConv paper: the kernel of every image is built, then convolved with it."""
    attention = part(state, 'attention.')
    squeezed = x.mean((2, 3)) @ attention['fc.weight'].T
    squeezed = np.maximum(batch_norm(squeezed, part(attention, 'bn.')), 0)

    def logits(name: str) -> np.ndarray:
        return (squeezed @ attention[f'{name}.weight'].T + attention[f'{name}.bias']) / temperature

    weight = state['weight'].reshape(kernel_num, -1, *state['weight'].shape[1:])  # (K, O, I / groups, kh, kw)
    images = []
    for b in range(len(x)):
        kernels = weight
        if 'spatial_fc.weight' in attention:
            kernels = kernels * sigmoid(logits('spatial_fc'))[b].reshape(1, 1, 1, *weight.shape[3:])
        if 'filter_fc.weight' in attention:
            kernels = kernels * sigmoid(logits('filter_fc'))[b].reshape(1, -1, 1, 1, 1)
        mix = np.ones(1)
        if 'kernel_fc.weight' in attention:
            mix = np.exp(logits('kernel_fc')[b])
            mix = mix / mix.sum()
        image = x[b] * sigmoid(logits('channel_fc'))[b].reshape(-1, 1, 1)
        images.append(conv2d(image, np.einsum('k,koihw->oihw', mix, kernels), stride, padding, dilation, groups))
    return np.stack(images)


def channel_gate(x: np.ndarray, state: State, kernel_num: int = 1, gem_p: float = 1.0, soft: int = 1) -> np.ndarray:
    """Eq. 5-8."""
    a1 = x.mean((2, 3), keepdims=True) + soft_pool(x, soft)
    a2 = gem(x, gem_p, (2, 3)) - x.min((2, 3), keepdims=True)
    y = a1 * a2
    for k in '12':
        y = od_conv(y, part(state, f'fc{k}.'), kernel_num)
        y = np.maximum(batch_norm(y, part(state, f'bn{k}.')), 0)
    return sigmoid(y + x)


def spatial_gate(
    x: np.ndarray,
    state: State,
    grid: tuple[int, int],
    kernel_num: int = 1,
    gem_p: float = 1.0,
    soft: int = 1,
) -> np.ndarray:
    """Eq. 9-12, the descriptor maps resampled to the base grid."""
    mixed = x.mean(1, keepdims=True) + soft_pool(x, soft)
    b1 = np.einsum('bchw,c->bhw', mixed, state['conv2.weight'].reshape(-1))
    b2 = (gem(x, gem_p, (1,)) - x.min(1, keepdims=True))[:, 0]
    rows, columns = bilinear(x.shape[2], grid[0]), bilinear(x.shape[3], grid[1])
    descriptors = [np.einsum('ih,bhw,jw->bij', rows, b, columns).reshape(len(x), -1) for b in (b1, b2)]
    weight = state['conv1.weight'].reshape(len(state['conv1.weight']), -1)
    y = (np.concatenate(descriptors, axis=1) @ weight.T)[:, :, None, None]
    for k in '12':
        y = od_conv(y, part(state, f'fc{k}.'), kernel_num)  # 3 x 3 with padding on a 1 x 1 map, as the paper has it
        y = np.maximum(batch_norm(y, part(state, f'bn{k}.')), 0)
    return sigmoid(y + x)


def bilinear(source: int, target: int) -> np.ndarray:
    """Matrix `(target, source)` of linear interpolation between pixel centres, edges repeated."""
    matrix = np.zeros((target, source))
    for i in range(target):
        position = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
        low = int(np.floor(position))
        high = min(low + 1, source - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, high] += position - low
    return matrix
