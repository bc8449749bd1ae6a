"""Real processes: two on gloo, and one that heeds Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def heed_ctrl_c() -> None:
    """For `preexec_fn`: a shell starts its background jobs, and so the tests in them, with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_two(worker: str, folder: Path, suffix: str = '.pt') -> list[Path]:
    """Run `tests.support.<worker>` as ranks 0 and 1, and return the file that each has written.

    The worker is called with `<rank> <world size> <rendezvous file> <out file>`.
    """
    outs = [folder / f'{rank}{suffix}' for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, '-m', f'tests.support.{worker}', str(rank), '2', str(folder / 'rendezvous'), str(out)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)
    return outs
