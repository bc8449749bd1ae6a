"""Memory that a call takes beyond its inputs, measured in a process of its own (Linux only)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# what getrusage tells of a peak may be that of the process that started this one
_PROGRAM = """
import numpy as np
import torch

def status(name):
    line = next(line for line in open('/proc/self/status') if line.startswith(name))
    return int(line.split()[1]) * 1024

torch.set_num_threads({threads})
torch.manual_seed(0)
{setup}
before = status('VmRSS')
{call}
print(status('VmHWM') - before)
"""


def extra_bytes(setup: str, call: str, threads: int = 1) -> int:
    """Peak of resident memory during the statement `call` over that after the statements `setup`."""
    program = _PROGRAM.format(setup=setup, call=call, threads=threads)
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, '-c', program], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout)
