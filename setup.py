"""What pyproject.toml cannot say: which of the released models in hub/models a distribution carries.

All of them, so `pip install .` in a checkout leaves none out; with TIMM_DPA_WHEEL=slim, as `make wheel` sets it for an
upload, only the first tag of each of `_SLIM`.
"""

import json
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

_SLIM = ('dpa_resnet50', 'dpa_resnet18')
_MODELS = Path('hub', 'models')


def _left_out(file):
    """Whether a file of the checkout belongs to a model that is not carried, or is a link, which would be a copy."""
    parts = Path(os.path.relpath(file)).parts
    if parts[:2] == _MODELS.parts and parts[-1] == 'weights.safetensors':
        return True
    return parts[:2] == _MODELS.parts and _carried is not None and parts[2] not in _carried


def _read_carried():
    """Names `architecture.tag`; None for all."""
    which = os.environ.get('TIMM_DPA_WHEEL') or 'full'
    if which not in ('full', 'slim'):
        raise SystemExit(f'TIMM_DPA_WHEEL={which}: is full (the default) or slim')
    if which == 'full':
        return None
    first = {}
    for entry in json.loads(Path('timm_dpa', 'weights', 'manifest.json').read_text(encoding='utf-8'))['weights']:
        first.setdefault(entry['architecture'], f'{entry["architecture"]}.{entry["tag"]}')
    return [first[architecture] for architecture in _SLIM if architecture in first]


class BuildPy(build_py):
    def run(self):
        if not self.editable_mode:  # of an earlier build
            shutil.rmtree(Path(self.build_lib, 'timm_dpa', *_MODELS.parts), ignore_errors=True)
        super().run()

    def find_data_files(self, package, src_dir):
        return [file for file in super().find_data_files(package, src_dir) if not _left_out(file)]


class Sdist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [file for file in files if not _left_out(file)])


_carried = _read_carried()
setup(cmdclass={'build_py': BuildPy, 'sdist': Sdist})
