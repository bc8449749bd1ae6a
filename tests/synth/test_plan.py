"""The plan of a rendered data set."""

import subprocess
import sys
from pathlib import Path

import timm_dpa.synth


def test_defaults_and_limits_need_nothing_but_python():
    """The help of the command shows them."""
    code = f"""import importlib.util, sys
spec = importlib.util.spec_from_file_location('plan', {str(Path(timm_dpa.synth.__file__).parent / 'plan.py')!r})
sys.modules['plan'] = module = importlib.util.module_from_spec(spec)
before = {{name.split('.')[0] for name in sys.modules}}
spec.loader.exec_module(module)
module.Plan(8)
print(*sorted({{name.split('.')[0] for name in sys.modules}} - before - set(sys.stdlib_module_names)))"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''
