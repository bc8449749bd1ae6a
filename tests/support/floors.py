"""The lowest versions that pyproject.toml declares, as pip requirements: what `make test-floors` installs.

python tests/support/floors.py [EXTRA ...] > floors.txt
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[2] / 'pyproject.toml'


def floors(project: dict[str, Any], extras: Iterable[str] = ()) -> list[str]:
    """`package==floor` for each dependency of a `[project]` table and of the named extras, sorted by name.

    Args:
        project: the table, as tomllib reads it.
        extras: names of optional dependencies. Extras that these name in turn (`timm-dpa[train]`) are followed.

    Raises:
        KeyError: an extra does not exist.
        ValueError: a dependency declares no lower bound, or two bounds of one package differ.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()

    def visit(lines: Iterable[str]) -> None:
        for line in lines:
            requirement = Requirement(line)
            if requirement.name == project['name']:
                for extra in sorted(requirement.extras - seen):
                    seen.add(extra)
                    visit(project['optional-dependencies'][extra])
                continue
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            bounds = [item.version for item in requirement.specifier if item.operator in ('>=', '==', '~=')]
            if len(bounds) != 1:
                raise ValueError(f'{line}: declare one lower bound, such as {requirement.name}>=1.0')
            extra_names = f'[{",".join(sorted(requirement.extras))}]' if requirement.extras else ''
            pinned = f'{requirement.name}{extra_names}=={bounds[0]}'
            if found.setdefault(requirement.name, pinned) != pinned:
                raise ValueError(f'{requirement.name}: two lower bounds, {found[requirement.name]} and {pinned}')

    visit(project['dependencies'])
    visit(f'{project["name"]}[{extra}]' for extra in extras)
    return [found[name] for name in sorted(found)]


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding='utf-8'))['project']
    print('\n'.join(floors(project, sys.argv[1:])))


if __name__ == '__main__':
    main()
