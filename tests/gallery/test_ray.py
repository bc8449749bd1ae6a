"""Embedding by a Ray cluster of two workers on this machine: the rows of one process, whatever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.support.models import lively
from tests.support.ray_driver import settings
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.gallery.facts import Facts, FactsTable
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.ingest import embed_to_gallery
from timm_dpa.gallery.rows import COLUMNS

pytestmark = pytest.mark.integrations

ROOT = Path(__file__).parents[2]
COUNT = 200


@pytest.fixture(scope='module')
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_worker_niceness', '0')  # else a busy machine lets its workers wait
        yield from two_workers()


def two_workers():
    utils = pytest.importorskip('ray.cluster_utils')
    cluster = utils.Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'object_store_memory': 80_000_000})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A folder with images, weights, and the gallery of one process."""
    folder = tmp_path_factory.mktemp('ray')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{index:03d}.png')
    (folder / 'images' / 'bad.png').write_bytes(b'no image')
    torch.manual_seed(1)
    torch.save(lively(timm.create_model('dpa_resnet18')).state_dict(), folder / 'weights.pth')
    extractor = FeatureExtractor(**settings(str(folder / 'weights.pth')))
    with Gallery(folder / 'one', origin=extractor.describe(), create=True) as gallery:
        facts = FactsTable(default=Facts('north', 5, 't', 7, (1, 2, 3, 4)))
        report = embed_to_gallery(extractor, folder / 'images', gallery, facts=facts)
    assert (report.embedded, len(report.failures)) == (COUNT, 1)
    return folder


def start(cluster, work, name):
    more = [cluster.address, str(work / 'images'), str(work / name), str(work / 'weights.pth')]
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.support.ray_driver', *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_of(uri) -> int:
    try:
        return len(Gallery(uri))
    except FileNotFoundError:
        return 0


def wait_for_rows(process, uri) -> None:
    while not rows_of(uri):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


def actors(cluster) -> list[int]:
    """Processes of the actors, which are children of the nodes' raylets."""
    nodes = {node.all_processes['raylet'][0].process.pid for node in cluster.worker_nodes}
    found = []
    for entry in Path('/proc').iterdir():
        try:
            parent = int((entry / 'stat').read_text().rpartition(')')[2].split()[1]) if entry.name.isdigit() else 0
            if parent in nodes and b'MapWorker' in (entry / 'cmdline').read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has just ended
            continue
    return found


def report_of(process) -> dict:
    printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return json.loads(printed.splitlines()[-1])


def assert_same_rows(work, name) -> None:
    one, other = ({row.key: row for row in Gallery(work / uri).rows(columns=COLUMNS)} for uri in ('one', name))
    assert len(one) == COUNT
    assert one.keys() == other.keys()
    for key, row in one.items():
        np.testing.assert_allclose(other[key].vector, row.vector, rtol=0, atol=1e-5)
        assert all(getattr(row, name) == getattr(other[key], name) for name in COLUMNS if name != 'vector')


def test_killed_worker(cluster, work):
    process = start(cluster, work, 'worker')
    wait_for_rows(process, work / 'worker')
    assert rows_of(work / 'worker') < COUNT
    os.kill(actors(cluster)[0], signal.SIGKILL)
    report = report_of(process)
    assert report['embedded'] == COUNT
    assert list(report['failures']) == [str(work / 'images' / 'bad.png')]
    assert_same_rows(work, 'worker')


def test_killed_driver(cluster, work):
    """The second run embeds what the first one has not committed, and nothing else."""
    process = start(cluster, work, 'driver')
    wait_for_rows(process, work / 'driver')
    process.kill()
    process.communicate()
    while actors(cluster):  # they end with their driver
        time.sleep(0.2)
    known = rows_of(work / 'driver')
    assert 0 < known < COUNT
    report = report_of(start(cluster, work, 'driver'))
    assert (report['embedded'], report['unchanged']) == (COUNT - known, known)
    assert_same_rows(work, 'driver')
