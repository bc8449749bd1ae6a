"""A network in evaluation mode beside the one that it is made of, which may be in training at the same time."""

from __future__ import annotations

import types
from collections import OrderedDict

import torch
from torch import nn

__all__ = ['evaluation_view', 'uncompiled']

#: types of attributes that a view and its module share; most are, and a view is made for every batch
_PLAIN = frozenset((bool, int, float, str, tuple, type(None), OrderedDict))


def uncompiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given; any other module as it is."""
    inner = getattr(model, '_orig_mod', None)
    return inner if isinstance(inner, nn.Module) else model


def evaluation_view(module: nn.Module) -> nn.Module:
    """A second tree of modules in evaluation mode, with the parameters, buffers and hooks of `module` itself.

    The view computes with whatever weights and statistics `module` has at this moment, however they are replaced, but
    has modes of its own: nothing of `module` is changed to compute with it, not even for a while, so that other threads
    may train `module` or make views of it. It costs microseconds per module and copies no tensor. Parts that
    `torch.compile` made are left out, as they would compute with the modes of `module`.

    Raises:
        ValueError: a part is a TorchScript module in training mode, whose mode cannot be told from its weights.
    """
    return _view(module, {})


def _view(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    module = uncompiled(module)
    if id(module) in known:  # a module that is used twice
        return known[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        if module.training:
            raise ValueError('a part of the model is a TorchScript module in training mode; call eval() on it')
        return module
    view: nn.Module = object.__new__(type(module))
    known[id(module)] = view
    state = vars(module).copy()
    for key, value in state.items():
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is types.MethodType and value.__self__ is module:
            state[key] = types.MethodType(value.__func__, view)
        elif key[0] != '_' and kind in (dict, list, set):
            state[key] = value.copy()  # a cache of what only evaluation computes, as in timm's LeViT
        elif isinstance(value, nn.Module):  # hidden from its parent, which may be one of its own parts
            state[key] = _view(value, known)
    children = state['_modules'].copy()  # one call, so that no other thread changes it meanwhile
    state['_modules'] = {name: child if child is None else _view(child, known) for name, child in children.items()}
    state['_compiled_call_impl'] = None  # of nn.Module.compile: it is bound to `module`
    state['training'] = False
    vars(view).update(state)
    return view
