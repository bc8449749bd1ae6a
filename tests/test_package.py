"""What a new user meets first: the import and the package's data."""

import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import timm_dpa


def python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_registers_the_models_and_loads_no_extra(tmp_path):
    code = """
import sys, timm
assert not timm.is_model('dpa_resnet50')
import timm_dpa
assert timm.is_model('dpa_resnet50')
print([name for name in ('onnx', 'onnxscript', 'onnxruntime', 'pytest', 'ruff', 'matplotlib') if name in sys.modules])
"""
    assert python(code, tmp_path).strip() == '[]'


def test_everything_that_is_offered_exists():
    for name in timm_dpa.__all__:
        assert getattr(timm_dpa, name).__doc__, name
    with pytest.raises(AttributeError, match='FeatureExtractr'):
        _ = timm_dpa.FeatureExtractr


def test_version_and_type_marker_are_installed():
    assert timm_dpa.__version__ == version('timm-dpa')
    assert files('timm_dpa').joinpath('py.typed').is_file()


def test_files_in_git_stay_small_enough_for_a_clone():
    """Weights of released models are most of them; 100 MB is what GitHub takes of a file."""
    project = Path(__file__).parents[1]
    if not (project / '.git').exists():
        pytest.skip('no checkout')
    done = subprocess.run(['git', 'ls-files', '-z'], cwd=project, capture_output=True, text=True, check=True)
    names = [project / name for name in done.stdout.split('\0')[:-1]]
    there = [path for path in names if path.is_file() and not path.is_symlink()]
    sizes = {path: path.stat().st_size for path in there}
    assert max(sizes.values()) < 95e6
    assert sum(sizes.values()) < 400e6
