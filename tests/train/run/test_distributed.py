"""Processes of a run: one that was forked where torch had used several threads."""

import subprocess
import sys

SCRIPT = """
import logging, os, torch
from timm_dpa.train.run.distributed import joined_processes
logging.basicConfig()
torch.set_num_threads(2)

def work():
    with joined_processes('cpu'):
        return float(torch.ones(3_000_000).exp().sum())

before = work()
child = os.fork()
if child == 0:
    os._exit(0 if work() == before and torch.get_num_threads() == 1 else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


def test_a_forked_process_does_not_wait_for_threads_that_it_has_not():
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ['0', '2'], done.stderr
    assert done.stderr.count('was forked from one that had used torch with several threads') == 1
