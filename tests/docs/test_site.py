"""The site, built as `make docs` builds it: strictly, so that a broken link or docstring is an error."""

import html
import os
import re
import subprocess
import sys

import pytest

from tests.support.pages import PROJECT
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.weights.manifest import read_manifest

pytestmark = pytest.mark.slow
#: name of the weights -> the folder of their card, which some share
CARDS = {name: release.folder for name, release in read_manifest().items()}


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('mkdocs', reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder],
        cwd=PROJECT,
        env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text(page) -> str:
    body = page.read_text(encoding='utf-8')
    article = body[body.index('<article') : body.index('</article>')]
    return ' '.join(html.unescape(re.sub(r'<[^>]+>', ' ', article)).split())


def test_every_key_of_a_recipe_has_a_row_with_a_meaning(site):
    page = (site / 'recipe_reference' / 'index.html').read_text(encoding='utf-8')
    rows = re.findall(r'<tr>\s*<td><code>([\w.]+)</code></td>(.*?)</tr>', page, flags=re.S)
    keys = [f'{section}.{key}' for section, values in Recipe().as_dict().items() for key in values]
    assert [key for key, _ in rows] == keys
    for key, cells in rows:
        assert re.sub(r'<[^>]+>', '', re.findall(r'<td>(.*?)</td>', cells, flags=re.S)[-1]).strip(), key


def test_models_page_has_all_models_and_weights(site):
    page = text(site / 'models' / 'index.html')
    for name in ('dpa_resnet18', 'nl_resnet50', *CARDS):
        assert name in page
    whole = (site / 'models' / 'index.html').read_text(encoding='utf-8')
    for name, card in CARDS.items():
        assert re.search(rf'href="{card}/"><code>{name}</code>', whole), name
        assert 'mAP' in text(site / 'models' / card / 'index.html')
        assert (site / 'models' / f'{card}.png').stat().st_size > 10_000


def test_api_has_the_public_names(site):
    page = text(site / 'api' / 'timm_dpa' / 'index.html')
    assert all(name in page for name in ('DualPoolingAttention', 'ReIDResNet', 'create_stage_attn'))
    assert 'TripletLoss' in text(site / 'api' / 'timm_dpa.train' / 'index.html')


def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob('*.html'):
        for tag in re.findall(r'<(?:script|link|img|iframe)\b[^>]*>', page.read_text(encoding='utf-8')):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f'{page}: {tag}'
