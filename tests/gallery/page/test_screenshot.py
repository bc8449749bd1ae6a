"""The screenshot of the docs: the page as it opens without a gallery, by `timm-dpa app` with released weights.

With the variable SCREENSHOTS the test leaves it there as `app.jpg`; docs/figures/app.jpg was made so.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.gallery.page.test_browser import free_port
from tests.support.browser import Visit, open_browser

pytestmark = pytest.mark.integrations
FIGURE = Path(__file__).parents[3] / 'docs' / 'figures' / 'app.jpg'


def test_the_first_start_shows_rendered_vehicles(tmp_path):
    pytest.importorskip('gradio', reason='needs the extra app')
    words = ['app', '--port', str(free_port()), '--cache', os.environ.get('PAGE_CACHE') or str(tmp_path / 'cache')]
    with (
        open_browser() as browser,
        subprocess.Popen(
            [sys.executable, '-m', 'timm_dpa.cli', *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line.startswith('page: '), process.stderr.read()
            visit = Visit(browser, re.search(r'http://\S+', line)[0], viewport={'width': 1250, 'height': 900})
            assert 'rendered' in visit.tab.inner_text('#head')
            assert 'false matches' in visit.tab.inner_text('#results')
            visit.tab.click('#by label:has-text("Tracks")')
            visit.tab.wait_for_selector('.timeline')
            visit.tab.click('#heat input')
            visit.tab.wait_for_selector('#query figure:nth-child(2) img')
            visit.tab.click('.match:nth-child(1) button.right')
            visit.wait_for('Marked: 1 right', '#count')
            visit.tab.screenshot(path=tmp_path / 'app.png', full_page=True)
            assert not visit.foreign
        finally:
            process.kill()
    picture = Image.open(tmp_path / 'app.png').convert('RGB')
    out = Path(os.environ.get('SCREENSHOTS', tmp_path), 'app.jpg')
    picture.save(out, quality=70)
    assert out.stat().st_size < 300_000
    assert FIGURE.stat().st_size < 300_000
