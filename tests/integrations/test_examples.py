"""The programs of examples/ for trackers of others, run as a user runs them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.examples import program
from tests.support.traffic import Moment, numbers_of, traffic

pytestmark = pytest.mark.integrations


def written(moments: list[Moment], folder: Path) -> list[str]:
    """Frames and rows of a detector, some of which are bad; returns the options for both."""
    rows = []
    for number, moment in enumerate(moments, start=1):
        (folder / 'img1').mkdir(exist_ok=True)
        Image.fromarray(moment.frame).save(folder / 'img1' / f'{number:06d}.png')
        rows.append(f'{number},-1,20,20,0,30,0.9,-1,-1,-1')
        rows += [
            f'{number},-1,{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},0.9,-1,-1,-1' for x1, y1, x2, y2 in moment.boxes
        ]
    (folder / 'det.txt').write_text('\n'.join(rows))
    return ['--frames', str(folder / 'img1'), '--boxes', str(folder / 'det.txt')]


@pytest.mark.parametrize(
    ('name', 'package', 'swap'),
    [
        ('boxmot_tracker', 'boxmot', True),
        ('deep_sort', 'deep_sort_realtime', False),
        ('norfair_tracker', 'norfair', True),
        ('supervision_detections', 'trackers', True),
    ],
)
def test_vehicles_keep_their_numbers(tmp_path, threshold, name, package, swap):
    pytest.importorskip(package)
    moments = traffic(14, swap=swap)
    options = [*written(moments, tmp_path), '--threshold', str(threshold), '--out', 'tracks.txt']
    done = program(name, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = np.loadtxt(tmp_path / 'tracks.txt', delimiter=',', ndmin=2)
    assert rows.shape[1] == 10
    rows[:, 4:6] += rows[:, 2:4]
    first, last = (
        numbers_of(moments[number - 1], {int(row[1]): row[2:6] for row in rows if row[0] == number})
        for number in (5, len(moments))
    )
    assert len(first) == 4
    assert last == first
