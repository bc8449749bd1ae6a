"""Times with and without zones, and filters on rows in memory."""

import logging
from datetime import datetime, timedelta, timezone

import pytest

from timm_dpa.gallery.filters import Filter, parse_time, show_time
from timm_dpa.gallery.rows import GalleryRow

TEN = int(datetime(2026, 5, 1, 10, tzinfo=timezone.utc).timestamp() * 1000)


@pytest.mark.parametrize(
    'text',
    [
        '2026-05-01T10:00:00Z',
        '2026-05-01T12:00:00+02:00',
        '2026-05-01 12:00+02:00',
        '2026-05-01T04:30:00.000-0530',
        str(TEN),
        TEN,
        datetime(2026, 5, 1, 11, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_one_moment_in_many_zones(text, caplog):
    assert parse_time(text) == TEN
    assert not caplog.records


@pytest.mark.parametrize('text', ['2026-05-01T10:00:00', '2026-05-01 10:00', datetime(2026, 5, 1, 10)])
def test_without_a_zone_it_is_utc_and_that_is_said(text, caplog):
    with caplog.at_level(logging.WARNING):
        assert parse_time(text, '--after') == TEN
    assert '--after' in caplog.text
    assert 'taken as UTC' in caplog.text


def test_fractions():
    assert parse_time('2026-05-01T10:00:00.5Z') == TEN + 500
    assert parse_time('2026-05-01T10:00:00.123456789Z') == TEN + 123
    assert show_time(TEN) == '2026-05-01T10:00:00Z'
    assert show_time(TEN + 5) == '2026-05-01T10:00:00.005Z'
    assert parse_time(show_time(TEN + 5)) == TEN + 5


@pytest.mark.parametrize('bad', ['yesterday', '', '2026-13-01', 1.5, True, b'2026'])
def test_no_time(bad):
    with pytest.raises(ValueError, match='--before'):
        parse_time(bad, '--before')


def test_matches():
    row = GalleryRow('a', camera='north', time=TEN, track='t')
    assert Filter().matches(row)
    assert not Filter()
    assert Filter(after=TEN, before=TEN + 1).matches(row)
    assert not Filter(before=TEN).matches(row)
    assert not Filter(cameras=()).matches(row)
    assert not Filter(exclude_tracks=['t']).matches(row)
    assert Filter(exclude_tracks=['t']).matches(GalleryRow('b'))
    assert not Filter(after=0).matches(GalleryRow('b'))


def test_refused():
    with pytest.raises(TypeError, match='cameras must be several'):
        Filter(cameras='north')
    with pytest.raises(ValueError, match='not earlier'):
        Filter(after=TEN, before=TEN)
