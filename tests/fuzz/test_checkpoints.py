"""Checkpoints in every packing: loaded exactly, or refused in one line, never loaded in part."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.fuzz.budget import EXAMPLES
from tests.support.models import tiny
from timm_dpa import WeightsError, load_weights

pytestmark = pytest.mark.slow

torch.manual_seed(0)
MODEL = tiny('se')
STATE = {name: value.clone() for name, value in MODEL.state_dict().items()}
LEARNED = [name for name in STATE if not name.endswith('num_batches_tracked')]
#: how training programs pack a state dict
PACKINGS = ('plain', 'state_dict', 'model', 'net', 'model_state_dict', 'network', 'deep')
PREFIXES = ('', 'module.', 'model.', 'module.model.', '_orig_mod.')
BESIDE = {'epoch': 3, 'best': np.float64(0.7), 'lr': np.float32(1e-3), 'note': 'x', 'optimizer': {'state': {}}}


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[object, bool, str]:
    """A checkpoint, whether it holds exactly these weights, and the form of file."""
    state = {name: value.clone() for name, value in STATE.items()}
    good = True
    change = draw(st.sampled_from(('none', 'none', 'drop', 'shape', 'rename', 'extra', 'no counters', 'half')))
    name = draw(st.sampled_from(LEARNED))
    if change == 'drop':
        del state[name]
        good = False
    elif change == 'shape':
        state[name] = torch.zeros(*state[name].shape, 2)
        good = False
    elif change == 'rename':
        state[f'{name}_x'] = state.pop(name)
        good = False
    elif change == 'extra':
        state[draw(st.sampled_from(('layer9.weight', 'head.weight', 'x')))] = torch.zeros(3)
        good = False
    elif change == 'no counters':
        state = {name: value for name, value in state.items() if name in LEARNED}
    elif change == 'half':
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    prefix = draw(st.sampled_from(PREFIXES))
    state = {f'{prefix}{name}': value for name, value in state.items()}
    form = draw(st.sampled_from(('pth', 'safetensors')))
    if form == 'safetensors':
        return state, good, form
    packing = draw(st.sampled_from(PACKINGS))
    beside = {key: BESIDE[key] for key in draw(st.sets(st.sampled_from(sorted(BESIDE))))}
    if packing == 'plain':
        return state, good, form
    if packing == 'deep':
        return {'state': {'model': state}, **beside}, good, form
    return {packing: state, **beside}, good, form


def _write(path, content, form):
    save_file(content, path) if form == 'safetensors' else torch.save(content, path)


@seed(20261127)
@settings(max_examples=8 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(checkpoints())
def test_all_or_nothing(tmp_path_factory, case):
    content, good, form = case
    path = tmp_path_factory.getbasetemp() / f'fuzz.{form}'
    _write(path, content, form)
    model = tiny('se')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refusal = None
    try:
        load_weights(model, path)
    except (WeightsError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        assert '\n' not in refusal.strip()
        assert str(path) in refusal
        after = model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items()), 'refused, but changed'
        return
    assert good, 'loaded, though the weights are not those of the model'
    for name in LEARNED:
        torch.testing.assert_close(model.state_dict()[name], STATE[name], rtol=1e-3, atol=1e-3)


class _Evil:
    def __reduce__(self):
        return (print, ('this must never run',))


@seed(20261127)
@settings(max_examples=4 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.binary(max_size=400) | st.builds(lambda n: pickle.dumps(_Evil())[:n], st.integers(1, 80)))
def test_other_files_are_refused(tmp_path_factory, content):
    for suffix in ('pth', 'safetensors'):
        path = tmp_path_factory.getbasetemp() / f'other.{suffix}'
        path.write_bytes(content)
        with pytest.raises((WeightsError, ValueError), match='other'):
            load_weights(MODEL, path)
