"""What the keys of a recipe take, in words: for error messages and for the reference."""

from __future__ import annotations

import difflib
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

__all__ = ['describe_field', 'explain']

_KINDS = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    list: 'a list',
    tuple: 'a number, or a list of two',
    dict: 'keys and values',
}
#: types of pydantic's errors for an item of a list or of keys and values
_ITEMS = {
    'float_type': 'a number',
    'int_type': 'a whole number',
    'string_type': 'a text',
    'tuple_type': 'a list of two',
}
_WORDS = {'ge': 'at least', 'gt': 'above', 'le': 'at most', 'lt': 'below'}
_BOUNDS = ('greater_than', 'greater_than_equal', 'less_than', 'less_than_equal')


def describe_field(field: FieldInfo) -> str:
    """What a key takes, such as `a number in 0..1, or null`."""
    kind, nullable = _unwrap(field.annotation)
    origin = get_origin(kind) or kind
    if origin is Literal:
        text = f'one of {", ".join(get_args(kind))}'
    else:
        bounds = _describe_bounds(field.metadata)
        bounds = f'of {bounds}' if bounds.startswith('at') else bounds
        text = f'{_KINDS.get(origin, "keys and values")} {bounds}'.strip()
    return f'{text}, or null' if nullable else text


def explain(error: ValidationError, root: type[BaseModel], prefix: str = '') -> str:
    """One line that names each wrong key below `root`, and what it takes.

    Args:
        error: of a validation by `root`.
        root: the model of the values.
        prefix: put before each key.
    """
    return '; '.join(_explain_one(dict(item), root, prefix) for item in error.errors(include_url=False))


def _explain_one(item: dict[str, Any], root: type[BaseModel], prefix: str) -> str:
    parts, value = item['loc'], item['input']
    key = prefix + ''.join(f'[{part}]' if isinstance(part, int) else f'.{part}' for part in parts).removeprefix('.')
    if item['type'] == 'value_error':
        return str(item['ctx']['error'])
    owner, field, inside = _find(root, parts)
    if item['type'] == 'extra_forbidden':
        known = list(owner.model_fields)
        close = difflib.get_close_matches(str(parts[-1]), known, n=1)
        parent = key.removesuffix(str(parts[-1]))
        return f'unknown key {key}; ' + (
            f'did you mean {parent}{close[0]}?' if close else f'there are {", ".join(known)}'
        )
    if field is None:
        return f'{key or "a recipe"} must have keys and values, not {value!r}'
    if item['type'] in _BOUNDS:
        (name, bound), *_ = item['ctx'].items()
        wanted = _describe_bounds(field.metadata) or f'{_WORDS[name]} {bound}'
        none = '; null for none' if _unwrap(field.annotation)[1] else ''
        return f'{key} must be {wanted}, not {value}{none}'
    inner = _ITEMS.get(item['type']) if inside else None
    return f'{key}={value!r}: must be {inner or describe_field(field)}'


def _find(root: type[BaseModel], parts: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None, bool]:
    """The innermost model on a path of keys, its field there, and whether the path continues below that field."""
    owner, field = root, None
    for depth, part in enumerate(parts, start=1):
        if part not in owner.model_fields:
            break
        field = owner.model_fields[str(part)]
        kind, _ = _unwrap(field.annotation)
        if not isinstance(kind, type(BaseModel)):  # Python 3.10 takes list[int] for a class
            return owner, field, depth < len(parts)
        owner = kind
    return owner, field, False


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """The type without `Annotated` and `None`, and whether None was there."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    options = get_args(annotation)
    if NoneType in options and get_origin(annotation) is not Literal:
        return _unwrap(next(option for option in options if option is not NoneType))[0], True
    return annotation, False


def _describe_bounds(metadata: list[Any]) -> str:
    """Such as `in 0..1` or `above 0`; empty where there are no bounds."""
    bounds = {name: getattr(item, name) for item in metadata for name in _WORDS if hasattr(item, name)}
    if {'ge', 'le'} <= bounds.keys():
        return f'in {bounds["ge"]}..{bounds["le"]}'
    return ', '.join(f'{_WORDS[name]} {bound}' for name, bound in bounds.items())
