"""The blocks of docs/applications.md that need other packages, run after the blocks that do not."""

import re

import pytest

from tests.docs.test_pages import run_python
from tests.support.pages import PROJECT, blocks
from timm_dpa.train.data.toy_vehicles import draw_vehicle

pytestmark = pytest.mark.integrations
PAGE = PROJECT / 'docs' / 'applications.md'
BLOCKS = {
    found[1]: block.code
    for block in blocks(PAGE, 'python')
    if block.reason and (found := re.fullmatch(r'needs (\w+)', block.reason))
}


def test_all_packages_have_a_block():
    assert {'boxmot', 'datasets', 'deep_sort_realtime', 'norfair', 'pandas', 'supervision'} <= set(BLOCKS)


@pytest.mark.parametrize('package', BLOCKS)
def test_it_runs(tmp_path, package):
    pytest.importorskip(package)
    for index, name in enumerate('abc'):
        draw_vehicle(index, 0).save(tmp_path / f'{name}.jpg')
    before = [block.code for block in blocks(PAGE, 'python') if not block.reason]
    run_python('\n'.join([*before, BLOCKS[package]]), tmp_path)
