"""A run folder, crops and an exported model for the programs of examples/."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.examples import SIZE, load
from tests.support.models import TINY, tiny
from timm_dpa.embedding.export import export_model
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    """What `timm-dpa train` leaves behind, as far as a model goes."""
    folder = tmp_path_factory.mktemp('runs') / 'dpa'
    folder.mkdir()
    recipe = ModelRecipe(name='dpa_resnet18', args={key: list(value) for key, value in TINY.items()})
    save_model_folder(recipe, SIZE, tiny('dpa').state_dict(), folder / 'model')
    return folder


@pytest.fixture(scope='module')
def extractor(run_folder):
    return FeatureExtractor(f'local-dir:{run_folder / "model"}', device='cpu', precision='fp32')


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    """Drawn vehicles of several sizes, among them a gray one, a palette, and one that its EXIF data turn."""
    folder = tmp_path_factory.mktemp('data') / 'crops'
    folder.mkdir()
    for k in range(5):
        draw_vehicle(k, k).resize((60 + 30 * k, 150 - 20 * k)).save(folder / f'{k}.png')
    draw_vehicle(5, 0).convert('L').save(folder / 'gray.png')
    draw_vehicle(6, 0).quantize(64).save(folder / 'palette.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    draw_vehicle(7, 0).resize((150, 70)).save(folder / 'turned.jpg', exif=exif)
    return folder


@pytest.fixture(scope='module')
def onnx_file(extractor, tmp_path_factory):
    path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    export_model(extractor.model, path)
    return path


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """Environment of a process in which only onnxruntime, Pillow and numpy are to be had."""
    folder = tmp_path_factory.mktemp('bare')
    code = "import sys\nfor name in ('torch', 'torchvision', 'timm', 'timm_dpa'):\n    sys.modules[name] = None\n"
    (folder / 'sitecustomize.py').write_text(code)
    environment = {'PYTHONPATH': str(folder)}
    for name in ('torch', 'timm_dpa'):
        done = subprocess.run(
            [sys.executable, '-c', f'import {name}'],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 'ModuleNotFoundError' in done.stderr
    return environment


@pytest.fixture
def call(monkeypatch, capsys):
    """The same in this process, which has timm loaded: (status, stdout, stderr)."""

    def call(name, *arguments, module=None):
        module = module or load(name)
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        capsys.readouterr()
        return module.main(), *capsys.readouterr()

    return call
