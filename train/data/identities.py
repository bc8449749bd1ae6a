"""Names of identities and cameras as people and programs write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

__all__ = ['is_junk', 'is_missing', 'padded_twins', 'plain_name']

_INTEGER = re.compile(r'[+-]?[0-9]+', re.ASCII)
_NUMBER = re.compile(r'[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?', re.ASCII)
_MISSING = ('', 'nan', 'none', 'null', '<na>', 'nat')  # as pandas, R and databases write it


def plain_name(text: str) -> str:
    """The name of an identity or a camera; integral numbers are equal however they are written.

    pandas makes a column of integers with a gap a column of floats: `7.0` is `7`, `-1.0` is `-1`, `1e3` is `1000`.
    Integers stay as they are: `0007` and `7` are different names, see `padded_twins`.
    """
    if not _NUMBER.fullmatch(text) or _INTEGER.fullmatch(text):
        return text.removeprefix('+') if text != '-0' else '0'
    whole, _, rest = text.partition('.')
    if rest and not rest.strip('0'):
        return plain_name(whole)  # leading zeros stay
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return str(int(number)) if number == number.to_integral_value() else text


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
