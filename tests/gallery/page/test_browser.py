"""The page in a real browser: what users do with it, on a desk and on a phone, with and without a pointer."""

import csv
import io
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import Visit, open_browser
from tests.support.page import CAMERAS, drawn_page
from tests.support.ports import free_port
from timm_dpa.gallery.page.access import Limits
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy_vehicles import draw_vehicle

pytestmark = pytest.mark.integrations


@pytest.fixture(scope='module')
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    pytest.importorskip('gradio', reason='needs the extra app')
    from timm_dpa.gallery.page.layout import launch

    page = drawn_page(
        tmp_path_factory.mktemp('browser'),
        explain=lambda picture: Image.new('RGB', picture.size, 'red'),
        limits=Limits(upload_bytes=300_000, pixels=1_000_000),
    )
    blocks, address = launch(page, port=free_port())
    yield address
    blocks.close(verbose=False)


@pytest.fixture
def visit(browser, address):
    visit = Visit(browser, address, viewport={'width': 1300, 'height': 950})
    yield visit
    visit.close()
    assert not visit.foreign, 'the page asked other hosts'


@pytest.fixture
def frame(tmp_path) -> Path:
    """A street with a vehicle of the gallery, seen anew, in the right half."""
    picture = Image.new('RGB', (512, 256), '#6d6d6d')
    picture.paste(draw_vehicle(4, 2), (320, 64))
    picture.save(tmp_path / 'street.png')
    return tmp_path / 'street.png'


def upload(visit: Visit, path: Path) -> None:
    visit.tab.set_input_files('#upload input[type=file]', path)


def cosines(visit: Visit) -> list[float]:
    return [float(text) for text in visit.tab.eval_on_selector_all('.cosine', 'all => all.map(one => one.innerText)')]


def searched(visit: Visit, action) -> None:
    """Do something, and wait until other results are there."""
    before = visit.tab.inner_html('#results ol')
    action()
    visit.tab.wait_for_function(
        """before => {
            const list = document.querySelector('#results ol');
            return list && list.innerHTML !== before;
        }""",
        arg=before,
    )


def shoot(visit: Visit, name: str) -> None:
    """A screenshot for people, where the variable SCREENSHOTS names a folder."""
    if folder := os.environ.get('SCREENSHOTS'):
        visit.tab.wait_for_timeout(400)
        visit.tab.screenshot(path=Path(folder, f'{name}.png'), full_page=True)


def test_the_first_visit_shows_results_and_nothing_is_wrong(visit):
    assert len(visit.cards()) == 12
    assert 'rate of false matches not known' in visit.tab.inner_text('#results')
    assert '30 images, 15 tracks, 3 cameras' in visit.tab.inner_text('#head')
    shoot(visit, 'first')
    assert not visit.errors


def test_a_box_by_pointer_finds_the_vehicle(visit, frame):
    upload(visit, frame)
    visit.wait_for('street.png: draw a box')
    visit.tab.wait_for_timeout(1000)  # the message moves the picture down
    area = visit.tab.locator('.picker').bounding_box()
    scale = area['width'] / 512
    mouse = visit.tab.mouse
    mouse.move(area['x'] + 321 * scale, area['y'] + 65 * scale)
    mouse.down()
    mouse.move(area['x'] + 447 * scale, area['y'] + 191 * scale, steps=4)
    mouse.up()
    visit.tab.wait_for_timeout(500)
    searched(visit, lambda: visit.tab.click('#search'))
    shoot(visit, 'box')
    assert cosines(visit)[0] > 0.99
    assert visit.cards()[0].get_attribute('title') == '4_2.png'
    assert 'street.png, box' in visit.tab.inner_text('#query')


def test_without_a_pointer(visit, frame):
    """Tab, arrows and Enter only."""
    upload(visit, frame)
    visit.wait_for('street.png: draw a box')
    visit.tab.focus('.picker')
    visit.tab.keyboard.press('ArrowRight')  # the box appears
    for _ in range(5):
        visit.tab.keyboard.press('ArrowRight')
        visit.tab.keyboard.press('Shift+ArrowDown')
    visit.tab.wait_for_timeout(600)
    assert visit.tab.eval_on_selector('.picker .box', 'box => box.style.left') == '35%'
    visit.tab.keyboard.press('Tab')
    while visit.tab.evaluate('document.activeElement.id') != 'search':
        visit.tab.keyboard.press('Tab')
    searched(visit, lambda: visit.tab.keyboard.press('Enter'))
    visit.tab.focus('#results button')
    visit.tab.keyboard.press('Enter')
    visit.wait_for('Marked: 1 right, 0 wrong', '#count')
    assert visit.tab.evaluate('document.activeElement.getAttribute("aria-pressed")') == 'true'


def test_a_pasted_picture(visit, frame):
    data = list(frame.read_bytes())
    visit.tab.evaluate(
        """data => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], 'pasted.png', { type: 'image/png' }));
            document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true }));
        }""",
        data,
    )
    visit.wait_for('pasted.png: draw a box')


def test_filters_and_the_time_line(visit):
    def filter_by_camera():
        visit.tab.click('#cameras input')
        visit.tab.click(f'[role=option]:has-text("{CAMERAS[0]}")')

    searched(visit, filter_by_camera)
    assert set(visit.tab.eval_on_selector_all('.facts span:first-child', 'all => all.map(s => s.title)')) == {
        f'camera {CAMERAS[0]}'
    }
    visit.tab.keyboard.press('Escape')
    visit.tab.fill('#after textarea, #after input', '2026-05-01 08:12')
    searched(visit, lambda: visit.tab.press('#after textarea, #after input', 'Enter'))
    assert len(visit.cards()) == 4
    searched(visit, lambda: visit.tab.click('#by label:has-text("Tracks")'))
    assert len(visit.tab.query_selector_all('.timeline .lane')) == len(visit.cards()) == 2
    shoot(visit, 'tracks')
    visit.tab.fill('#after textarea, #after input', 'noon')
    visit.tab.press('#after textarea, #after input', 'Enter')
    visit.wait_for("from: 'noon' is no time")


def test_marks_become_training_data(visit, tmp_path):
    titles = [card.get_attribute('title') for card in visit.cards()]
    other = next(place for place, title in enumerate(titles, 1) if title[0] not in ('0', titles[0][0]))
    third = next(place for place in range(2, 13) if place != other)
    for place, word in ((1, 'right'), (other, 'wrong'), (third, 'right')):
        visit.tab.click(f'.match:nth-child({place}) button.{word}')
    visit.wait_for('Marked: 2 right, 1 wrong', '#count')
    visit.tab.click(f'.match:nth-child({third}) button.right')  # taken back
    visit.wait_for('Marked: 1 right, 1 wrong', '#count')
    visit.tab.click('#export')
    visit.tab.wait_for_selector('#download')
    with visit.tab.expect_download() as download:
        visit.tab.click('#download')
    shoot(visit, 'marked')
    with zipfile.ZipFile(download.value.path()) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read('feedback.csv').decode())))
        archive.extractall(tmp_path / 'data')
    assert [list(row) for row in rows[:1]] == [['path', 'pid', 'camid', 'split']]
    assert len(load_data(tmp_path / 'data' / 'feedback.csv').train.paths) == len(rows) == 3


def test_a_match_becomes_the_query_and_has_a_heat_map(visit):
    name = visit.cards()[2].get_attribute('title')
    searched(visit, lambda: visit.tab.click('.match:nth-child(3) button.more'))
    visit.wait_for(name, '#query')
    visit.tab.click('#heat input')
    visit.tab.wait_for_selector('#query figure:nth-child(2) img')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('empty.jpg', b'', 'empty.jpg: the file is empty'),
        ('notes.txt', b'no picture at all', 'notes.txt: not an image that Pillow can read'),
        ('<img src=x>.png', b'\x89PNG\r\n\x1a\n' + bytes(50), 'not an image that Pillow can read'),
    ],
)
def test_bad_files_are_refused_on_the_page(visit, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    upload(visit, tmp_path / name)
    if name == 'empty.jpg':  # the browser's part refuses it, or ours
        visit.tab.wait_for_function('document.body.innerText.toLowerCase().includes("empty")')
    else:
        visit.wait_for(message)
        assert visit.tab.query_selector('#message [role=alert]')
        assert not visit.tab.query_selector('#message img')
    assert len(visit.cards()) == 12


def test_too_many_pixels_and_bytes(visit, tmp_path):
    Image.new('RGB', (1001, 1000)).save(tmp_path / 'wide.png')
    upload(visit, tmp_path / 'wide.png')
    visit.wait_for('1001 x 1000 pixels are more than 1,000,000')
    shoot(visit, 'refused')
    (tmp_path / 'heavy.jpg').write_bytes(bytes(400_000))
    upload(visit, tmp_path / 'heavy.jpg')
    visit.tab.wait_for_function('/maximum|exceeds|too large|size/i.test(document.body.innerText)')


def test_on_a_phone(browser, address, frame):
    visit = Visit(browser, address, viewport={'width': 375, 'height': 740}, has_touch=True, is_mobile=True)
    assert visit.tab.evaluate('document.documentElement.scrollWidth') <= 375
    upload(visit, frame)
    visit.wait_for('street.png: draw a box')
    assert visit.tab.locator('.picker').bounding_box()['width'] <= 375
    searched(visit, lambda: visit.tab.tap('#search'))
    visit.tab.tap('.match:nth-child(1) button.right')
    visit.wait_for('Marked: 1 right', '#count')
    shoot(visit, 'phone')
    edges = visit.tab.eval_on_selector_all('.match', 'all => all.map(one => one.getBoundingClientRect().right)')
    assert max(edges) <= 375
    assert visit.tab.evaluate('document.documentElement.scrollWidth') <= 375
    visit.close()
    assert not visit.foreign
