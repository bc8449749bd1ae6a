"""The programs of examples/, run as a user runs them."""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / 'examples'


PROGRAMS = sorted(path.stem for path in FOLDER.glob('[!_]*.py'))  # _mot.py is what some of them share


SIZE = (64, 96)  # sides that differ cannot be confused


def program(name: str, *arguments, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(FOLDER / f'{name}.py'), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def load(name: str):
    if name == 'transformers_pipeline':
        pytest.importorskip('transformers')
    if str(FOLDER) not in sys.path:  # where Python looks first when a user runs a program
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(result, name: str, message: str) -> None:
    status, printed, errors = result
    assert (status, printed) == (2, '')
    assert re.fullmatch(rf'{name}\.py: .*{message}.*\n', errors), errors


def read(path: Path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[list]) -> Path:
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows(rows)
    return path


def extractor_items(path: Path) -> list[Image.Image]:
    """The image as FeatureExtractor decodes it."""
    from timm_dpa.embedding.images import iter_images, load_rgb

    return [load_rgb(item) for item in iter_images(path)]
