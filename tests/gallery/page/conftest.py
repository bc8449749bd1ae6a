"""The page of a small gallery, which tests do not change."""

import pytest

from tests.support.page import drawn_page


@pytest.fixture(scope='session')
def page(tmp_path_factory):
    return drawn_page(tmp_path_factory.mktemp('page'))
