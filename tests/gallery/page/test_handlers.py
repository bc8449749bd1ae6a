"""What the page does, without a browser: uploads, boxes, searches, and what it says."""

import html.parser

import numpy as np
import pytest
from PIL import Image

from tests.support.page import CAMERAS, MINUTE, START, VIEWS, extractor
from timm_dpa.gallery.page.access import Limits
from timm_dpa.gallery.page.handlers import Wanted, read_time
from timm_dpa.gallery.page.rates import UNKNOWN, explain_rates, false_matches
from timm_dpa.gallery.page.render import picker_html, query_html, results_html, timeline_html
from timm_dpa.gallery.page.scenes import crop_scene, open_scene, parse_box, pick_frame
from timm_dpa.train.data.toy_vehicles import draw_vehicle

THRESHOLDS = {0.001: 0.8, 0.01: 0.6}


class Tags(html.parser.HTMLParser):
    """The tags and texts of HTML, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + '\n'

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def scene(tmp_path):
    """A frame with a vehicle at a known place."""
    picture = Image.new('RGB', (400, 300), '#777777')
    picture.paste(draw_vehicle(3, 9), (200, 100))
    picture.save(tmp_path / 'frame.png')
    return open_scene(tmp_path / 'frame.png', Limits())


class TestUploads:
    @pytest.mark.parametrize(
        ('name', 'content', 'message'),
        [
            ('empty.jpg', b'', 'empty.jpg: the file is empty'),
            ('text.jpg', b'no picture', 'text.jpg: not an image that Pillow can read; give a JPEG'),
            ('long.png', bytes(2000), 'long.png: 0.0 MB are more than the 0.001 MB allowed'),
            ('film.mp4', b'no film', 'film.mp4: cannot be read as a video'),
        ],
    )
    def test_bad_files_are_refused_by_name_alone(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r'^' + message) as refused:
            open_scene(tmp_path / name, Limits(upload_bytes=1000))
        assert str(tmp_path) not in str(refused.value)

    def test_too_many_pixels(self, tmp_path):
        Image.new('RGB', (101, 100)).save(tmp_path / 'large.png')
        with pytest.raises(ValueError, match=r'^large.png: .*101 x 100 pixels are more than 10,000'):
            open_scene(tmp_path / 'large.png', Limits(pixels=10_000))

    def test_a_truncated_picture(self, tmp_path):
        draw_vehicle(0, 0).save(tmp_path / 'cut.jpg')
        (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'cut.jpg').read_bytes()[:900])
        with pytest.raises(ValueError, match=r'^cut.jpg: cannot be read'):
            open_scene(tmp_path / 'cut.jpg', Limits())

    def test_frames_of_a_video(self, tmp_path):
        av = pytest.importorskip('av')
        with av.open(str(tmp_path / 'film.mp4'), 'w') as film:
            stream = film.add_stream('mpeg4', rate=5)
            stream.width = stream.height = 64
            stream.pix_fmt = 'yuv420p'
            for level in (30, 120, 220):
                pixels = np.full((64, 64, 3), level, np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
            film.mux(stream.encode(None))
        scene = open_scene(tmp_path / 'film.mp4', Limits())
        assert (scene.frames, scene.number) == (3, 1)
        assert np.asarray(scene.picture).mean() == pytest.approx(30, abs=4)
        assert np.asarray(pick_frame(scene, 3, Limits()).picture).mean() == pytest.approx(220, abs=4)
        with pytest.raises(ValueError, match=r'^film.mp4: frame must be in 1..3, not 4'):
            pick_frame(scene, 4, Limits())
        with pytest.raises(ValueError, match='larger than the 100 allowed'):
            open_scene(tmp_path / 'film.mp4', Limits(pixels=100))


class TestBoxes:
    def test_the_crop_is_what_is_in_the_box(self, scene):
        box = parse_box([200, 100, 328, 228], scene.picture.size)
        np.testing.assert_array_equal(np.asarray(crop_scene(scene, box)), np.asarray(draw_vehicle(3, 9)))

    def test_a_box_beyond_the_border_is_cut_off(self):
        assert parse_box([-50, 10, 999, 20], (100, 80)) == (0, 10, 100, 20)

    @pytest.mark.parametrize('values', [[1, 2, 3], 'abcd', [0, 0, 4, 50], [50, 50, 10, 10], [float('nan')] * 4, 7, {}])
    def test_wrong_boxes(self, values):
        with pytest.raises(ValueError, match=r'^box: must be'):
            parse_box(values, (100, 80))


class TestSearch:
    def test_ranks_are_those_of_the_products(self, page, scene):
        query = page.query_scene(scene, [200, 100, 328, 228])
        rows = list(page.gallery.rows(columns=('vector',)))
        cosines = {row.key: float(row.vector.astype(float) @ query.vector.astype(float)) for row in rows}
        results = page.search(query, Wanted(top=10))
        assert [match.row.key for match in results.matches] == sorted(cosines, key=cosines.get, reverse=True)[:10]
        assert [match.similarity for match in results.matches] == pytest.approx(
            sorted(cosines.values())[:-11:-1], abs=1e-5
        )
        assert all(match.row.thumbnail[:2] == b'\xff\xd8' for match in results.matches)
        assert results.searched == len(rows)

    def test_filters_by_camera_and_time(self, page, scene):
        query = page.query_scene(scene, None)
        results = page.search(
            query, Wanted(cameras=[CAMERAS[1]], after='2026-05-01 09:05', before='2026-05-01 11:11+02:00', top=60)
        )
        found = {(match.row.camera, match.row.time) for match in results.matches}
        assert found == {(CAMERAS[1], START + MINUTE * minute) for minute in (65, 66, 70)}
        assert results.searched == 3

    def test_tracks_come_with_their_images(self, page, scene):
        results = page.search(page.query_scene(scene, None), Wanted(by='track', top=4))
        names = [match.row.track for match in results.matches]
        assert len(set(names)) == 4
        assert set(results.tracks) == set(names)
        assert all([row.track for row in rows] == [name] * 2 for name, rows in results.tracks.items())

    def test_an_image_of_the_gallery_finds_neither_itself_nor_its_track(self, page):
        results = page.search(page.query_row('2_1.png'), Wanted(top=60))
        keys = {match.row.key for match in results.matches}
        assert len(keys) == 5 * VIEWS - 2
        assert not keys & {'2_0.png', '2_1.png'}

    @pytest.mark.parametrize(
        ('wanted', 'message'),
        [
            (Wanted(after='yesterday'), "^from: 'yesterday' is no time"),
            (Wanted(after='2026-05-02', before='2026-05-01'), '^from: must be earlier than until'),
            (Wanted(top=0), r'^matches: must be in 1..60'),
            (Wanted(top=61), r'^matches: must be in 1..60'),
        ],
    )
    def test_wrong_settings(self, page, wanted, message):
        with pytest.raises(ValueError, match=message):
            page.search(page.query_row('0_0.png'), wanted)

    def test_nothing_to_search_for(self, page):
        with pytest.raises(ValueError, match=r'^no picture yet'):
            page.query_scene(None, None)
        with pytest.raises(ValueError, match=r'^this image is no longer in the gallery'):
            page.query_row('/etc/passwd')

    def test_the_first_visit_shows_an_image_of_the_gallery(self, page):
        query = page.first_query()
        assert query.key == '0_0.png'
        np.testing.assert_allclose(query.vector, extractor()([query.picture])[0], atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'minute'),
    [('2026-05-01', -480), ('2026-05-01 08:01', 1), ('2026-05-01T08:01:00Z', 1), ('2026-05-01T10:01+02:00', 1)],
)
def test_times_are_utc_unless_they_say_otherwise(text, minute, caplog):
    assert read_time(text, 'from') == START + minute * MINUTE
    assert not caplog.records


def test_no_time():
    assert read_time(' ', 'from') is None


class TestRates:
    @pytest.mark.parametrize(
        ('cosine', 'said'),
        [
            (0.9, 'at most 0.1 %'),
            (0.8, 'at most 0.1 %'),
            (0.79, 'at most 1 %'),
            (0.59, 'more than 1 %'),
            (-1, 'more than 1 %'),
        ],
    )
    def test_a_cosine_has_the_lowest_rate_that_it_reaches(self, cosine, said):
        assert false_matches(cosine, THRESHOLDS) == f'{said} false matches'

    def test_unknown_is_said(self):
        assert false_matches(0.99, None) == UNKNOWN == false_matches(0.99, {})
        assert 'was not measured' in explain_rates(None, 10)

    def test_the_sentence_counts(self):
        text = explain_rates(THRESHOLDS, 20_000)
        assert '1 % of different vehicles reach 0.60, about 200' in text
        assert '0.1 % of different vehicles reach 0.80, about 20' in text


class TestHtml:
    def test_each_match_has_picture_cosine_rate_and_named_buttons(self, page):
        results = page.search(page.query_row('0_0.png'), Wanted(top=5))
        shown = Tags(results_html(results, {0.01: -1.0}, {results.matches[1].row.key: True}))
        assert [image['alt'][:8] for image in shown.of('img')] == [f'match {rank},' for rank in range(1, 6)]
        assert all(image['src'].startswith('data:image/jpeg;base64,') for image in shown.of('img'))
        buttons = shown.of('button')
        assert len(buttons) == 15
        assert len({button['aria-label'] for button in buttons}) == 15
        assert [b['aria-label'] for b in buttons if b.get('aria-pressed') == 'true'] == ['Right: match 2']
        assert shown.text.count('at most 1 % false matches') == 5
        assert f'{results.matches[0].similarity:.3f}' in shown.text

    def test_names_of_cameras_are_text(self, page):
        results = page.search(page.query_row('0_0.png'), Wanted(top=60, by='track'))
        text = results_html(results, None)
        shown = Tags(text)
        assert not shown.of('b')[len(results.matches) :]  # the ranks alone
        assert all(f'camera {name}\n' in shown.text for name in CAMERAS)
        assert '${' not in text
        assert '{{' not in text

    def test_the_time_line_places_images_by_time(self, page):
        results = page.search(page.query_row('0_0.png'), Wanted(top=60, by='track'))
        shown = Tags(timeline_html(results))
        assert len(shown.of('svg')) == len(results.matches)
        places = [float(circle['cx'].rstrip('%')) for circle in shown.of('circle')]
        times = [row.time for match in results.matches for row in results.tracks[match.row.track]]
        first, last = min(times), max(times)
        assert places == pytest.approx([3 + 94 * (time - first) / (last - first) for time in times], abs=0.01)

    def test_empty_parts(self, page):
        assert 'No image matches' in results_html(page.search(page.query_row('0_0.png'), Wanted(cameras=['no'])), None)
        assert picker_html(None) == query_html(None) == results_html(None, None) == ''

    def test_the_picker_knows_the_size_of_the_whole_picture(self, scene):
        (area,) = [tag for tag in Tags(picker_html(scene)).of('div') if tag['class'] == 'picker']
        assert (area['data-width'], area['data-height'], area['tabindex']) == ('400', '300', '0')
