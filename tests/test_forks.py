"""Processes that are forked where torch had used several threads, which hang without a word when left alone."""

import subprocess
import sys

import pytest

USES = {
    'a run': (
        'from timm_dpa.train.run.distributed import joined_processes',
        """
    with joined_processes('cpu'):
        return float(torch.ones(3_000_000).exp().sum())
""",
    ),
    'an extractor': (
        """from timm_dpa import FeatureExtractor
import numpy as np
extractor = FeatureExtractor('reid_resnet18', False, 'cpu', 'fp32', image_size=64)""",
        """
    return float(extractor(np.full((64, 64, 3), 99, np.uint8))[0, 0])
""",
    ),
}
SCRIPT = """
import logging, os, torch
{setup}
logging.basicConfig()
torch.set_num_threads(2)

def work():{work}
before = work()
child = os.fork()
if child == 0:
    os._exit(0 if abs(work() - before) <= 1e-5 * abs(before) and torch.get_num_threads() == 1 else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""


@pytest.mark.parametrize('use', USES)
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(use):
    setup, work = USES[use]
    script = SCRIPT.format(setup=setup, work=work)
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ['0', '2'], done.stderr
    assert done.stderr.count('was forked from one that had used torch with several threads') == 1
