"""kill -9 while rows are added, updated and the gallery is optimized: what was acknowledged is there."""

import random
import time

import numpy as np
import pytest

from tests.gallery.test_faults import worker
from tests.support.galleries import unit
from tests.support.gallery_worker import ROWS, hash_of
from timm_dpa.gallery.gallery import Gallery


@pytest.mark.slow
@pytest.mark.parametrize('round_number', range(20))
def test_acknowledged_rows_survive(tmp_path, round_number):
    log, moments = tmp_path / 'log', random.Random(round_number)
    log.touch()
    acknowledged: set[int] = set()
    for seed in ('first', 'first'):  # the second process updates what the first one added
        process = worker(tmp_path / 'day', seed, 1000, log)
        assert process.stdout.readline() == 'ready\n', process.stderr.read()
        time.sleep(moments.uniform(0, 2.5))
        process.kill()
        process.communicate()
        acknowledged |= {int(line) for line in log.read_text().splitlines()}
        rows = {row.key: row for row in Gallery(tmp_path / 'day').rows(columns=('vector', 'track'))}
        assert len(rows) % ROWS == 0  # a part is there as a whole, or not at all
        for number in acknowledged:
            expected = unit(ROWS, 64, seed=hash_of(seed, number))
            there = np.stack([rows[f'{seed}/{number}/{index}'].vector for index in range(ROWS)])
            np.testing.assert_array_equal(there, expected)
        found = Gallery(tmp_path / 'day').search(unit(1, 64), top=5) if rows else [[]]
        assert len(found[0]) == min(5, len(rows))
