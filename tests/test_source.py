"""The source as a whole: which package imports which, and how long files and classes are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
#: folder -> the package as which it is installed
PACKAGES = {'timm_dpa': 'timm_dpa', 'train': 'timm_dpa.train', 'synth': 'timm_dpa.synth', 'hub': 'timm_dpa.hub'}
#: package -> the packages that it may import; the command line is the one place that knows all
ARROWS = {
    'timm_dpa': {'timm_dpa'},
    'timm_dpa.train': {'timm_dpa', 'timm_dpa.train'},
    'timm_dpa.synth': {'timm_dpa', 'timm_dpa.train', 'timm_dpa.synth'},
    'timm_dpa.hub': {'timm_dpa', 'timm_dpa.train', 'timm_dpa.hub'},
    # a program of its own, which nothing imports
    'timm_dpa.hub.space': {'timm_dpa', 'timm_dpa.cli'},
    'timm_dpa.cli': {'timm_dpa', 'timm_dpa.train', 'timm_dpa.synth', 'timm_dpa.hub', 'timm_dpa.cli'},
}
MAX_FILE, MAX_CLASS = 450, 300  # lines


def source_files() -> list[Path]:
    folders = (*PACKAGES, 'benchmarks', 'examples', 'docs')
    return sorted(path for folder in folders for path in (PROJECT / folder).rglob('*.py'))


def package_of(module: str) -> str:
    """The longest package of ARROWS that holds a module."""
    return max((name for name in ARROWS if f'{module}.'.startswith(f'{name}.')), key=len)


def imports(code: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of each module or object of this project that code imports, inside functions too."""
    parts = module.split('.')
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            origin = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{origin}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split('.')[0] == 'timm_dpa')


def forbidden(code: str, module: str, is_package: bool = False) -> list[str]:
    allowed = ARROWS[package_of(module)]
    return [f'{line}: {name}' for line, name in imports(code, module, is_package) if package_of(name) not in allowed]


def test_no_package_imports_one_to_its_right():
    found = []
    for folder, package in PACKAGES.items():
        for path in (PROJECT / folder).rglob('*.py'):
            parts = path.relative_to(PROJECT / folder).with_suffix('').parts
            is_package = parts[-1] == '__init__'
            module = '.'.join([package, *(parts[:-1] if is_package else parts)])
            wrong = forbidden(path.read_text(encoding='utf-8'), module, is_package)
            found += [f'{path.relative_to(PROJECT)}:{line}' for line in wrong]
    assert not found, 'design: timm_dpa <- train <- synth, timm_dpa <- train <- hub\n' + '\n'.join(found)


@pytest.mark.parametrize(
    ('module', 'statement', 'wrong'),
    [
        ('timm_dpa.attention', 'import timm_dpa.train.losses', True),
        ('timm_dpa.attention', 'from timm_dpa import hub', True),
        ('timm_dpa.embedding.files', 'from ..synth.dataset import Plan', True),
        ('timm_dpa.embedding.files', 'from ..files import atomic_file', False),
        ('timm_dpa.train.run.log', 'def late():\n    from timm_dpa.hub.card import render', True),
        ('timm_dpa.train.run.log', 'from ..losses import TripletLoss', False),
        ('timm_dpa.synth.dataset', 'from timm_dpa.hub import card', True),
        ('timm_dpa.hub.card', 'from timm_dpa.synth.dataset import Plan', True),
        ('timm_dpa.hub.card', 'from timm_dpa.cli.common import image_size', True),
        ('timm_dpa.cli.hub', 'from timm_dpa.synth.dataset import Plan', False),
    ],
)
def test_check_of_imports_knows_arrows_and_relative_names(module, statement, wrong):
    assert bool(forbidden(statement, module)) == wrong


def lengths(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines and allowed lines of a file and of its classes."""
    code, name = path.read_text(encoding='utf-8'), path.relative_to(PROJECT).as_posix()
    yield name, len(code.splitlines()), MAX_FILE
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ClassDef):
            yield f'{name}:{node.name}', node.end_lineno - node.lineno + 1, MAX_CLASS


def test_files_and_classes_stay_short():
    found = (row for path in source_files() for row in lengths(path))
    over = [f'{name}: {lines} lines, allowed are {most}' for name, lines, most in found if lines > most]
    assert not over, 'split these, one subject a file:\n' + '\n'.join(over)
