"""Run the tests of the installed timm version on models of this package.

timm's wheel has no tests, so that its source archive is downloaded with pip unless `--sdist` names one. Only the tests
are taken from it, the code under test is the installed timm. Arguments after `--` go to pytest.

    python tests/timm_own/run.py --models dpa_resnet18 dpa_resnet50 -- -k torchscript
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

TEST_FILES = ('test_models.py', 'test_model_input.py', 'test_input_conv.py', 'test_utils.py')


def download(folder: Path) -> Path:
    """The source archive of the installed timm, by pip."""
    # only timm as source: pip asks it for its metadata, and its build backend may come as a wheel
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps']
    subprocess.run([*command, '--no-binary', 'timm', '--dest', folder, f'timm=={version("timm")}'], check=True)
    return next(folder.glob('timm-*.tar.gz'))


def unpack_tests(sdist: Path, folder: Path) -> Path:
    """Unpack the tests and the pytest settings, and no `timm` that would hide the installed one."""
    with tarfile.open(sdist) as archive:
        root = archive.getnames()[0].split('/')[0]
        if root != f'timm-{version("timm")}':
            raise SystemExit(f'{sdist} holds {root}, installed is timm {version("timm")}')
        wanted = (f'{root}/tests/', f'{root}/pyproject.toml')
        # Python before 3.10.12 and 3.11.4 has no filter
        archive.extraction_filter = getattr(tarfile, 'data_filter', lambda member, path: member)
        archive.extractall(folder, [m for m in archive.getmembers() if m.name.startswith(wanted)])
    return folder / root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=['dpa_resnet18', 'dpa_resnet50'])
    parser.add_argument('--sdist', type=Path, help='source archive of the installed timm version')
    parser.add_argument('--pretrained', action='store_true', help='with the tests that download released weights')
    parser.add_argument('pytest_args', nargs='*', help='after --, options for pytest')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = unpack_tests(args.sdist or download(folder), folder)
        inherited = filter(None, [os.environ.get('PYTHONPATH')])
        env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).resolve().parent), *inherited])}
        env.pop('GITHUB_ACTIONS', None)  # timm leaves out tests there
        command = [sys.executable, '-m', 'pytest', '-p', 'plugin', f'--models={",".join(args.models)}', '-q']
        command += ['--pretrained'] if args.pretrained else []
        # timm's time limits need a pytest plugin that is not ours
        command += ['-p', 'no:cacheprovider', '-W', 'ignore::pytest.PytestUnknownMarkWarning', *args.pytest_args]
        files = [f'tests/{file}' for file in TEST_FILES if (tests / 'tests' / file).is_file()]
        return subprocess.run([*command, *files], cwd=tests, env=env).returncode


if __name__ == '__main__':
    raise SystemExit(main())
