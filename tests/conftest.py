"""One thread a process: small tensors gain nothing from more, and sums come out the same on every machine.

The cores are used by running the files side by side (pytest-xdist).
"""

import os

import torch

os.environ['OMP_NUM_THREADS'] = '1'  # of processes that tests start
torch.set_num_threads(1)
