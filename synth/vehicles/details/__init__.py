"""Details of vehicles. Each has one home: a class in a module of this folder that samples, paints and builds it.

To add a detail, write a subclass of `Detail` in one of these modules, or in a new one: all of them are imported here.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from .base import DETAILS, PAINTERS, Detail, Layer

__all__ = ['DETAILS', 'PAINTERS', 'Detail', 'Layer']

for _module in iter_modules(__path__):
    import_module(f'{__name__}.{_module.name}')
# the order of the modules' names must not matter
_ordered = sorted(DETAILS.items(), key=lambda item: item[1].order)
DETAILS.clear()
DETAILS.update(_ordered)
