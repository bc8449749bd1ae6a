"""Names of identities and cameras as people and programs write them."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ['is_junk', 'is_missing', 'padded_twins', 'plain_name']

_INTEGER = re.compile(r'[+-]?[0-9]+', re.ASCII)
_WHOLE = re.compile(r'([+-]?[0-9]+)\.0*', re.ASCII)
_MISSING = ('', 'nan', 'none', 'null', '<na>', 'nat')  # as pandas, R and databases write it


def plain_name(text: str) -> str:
    """The name of an identity or a camera; integral numbers are equal however they are written.

    pandas makes a column of integers with a gap a column of floats: `7.0` is `7`, `-1.0` is `-1`. Leading zeros stay:
    `0007` and `7` are different names, see `padded_twins`. So does what may be a hexadecimal number, such as `1e3`.
    """
    match = _WHOLE.fullmatch(text)
    text = match[1] if match else text
    if not _INTEGER.fullmatch(text):
        return text
    return '0' if text == '-0' else text.removeprefix('+')


def is_missing(text: str) -> bool:
    """Whether a cell of a table is empty, or says that there is no value."""
    return text.lower() in _MISSING


def is_junk(name: str) -> bool:
    """Whether this is -1, the identity that Market-1501 and its followers give to images without one."""
    return re.fullmatch(r'-0*1', name) is not None


def padded_twins(names: Iterable[str]) -> list[str]:
    """Pairs of names that are the same number with and without leading zeros, such as `0007 and 7`."""
    first: dict[str, str] = {}
    twins = []
    for name in sorted(set(names)):
        if re.fullmatch('[0-9]+', name) and (other := first.setdefault(name.lstrip('0'), name)) != name:
            twins.append(f'{other} and {name}')
    return twins
