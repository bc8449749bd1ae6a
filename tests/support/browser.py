"""Chromium of the system, by Playwright, without the internet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PLACES = ('chromium', 'chromium-browser', 'google-chrome')


def chromium_path() -> str:
    """Where the browser is; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, PLACES)), None)
    if found is None:
        pytest.skip('no Chromium is installed; on Debian: apt-get install chromium')
    return found


@contextmanager
def open_browser() -> Iterator[Any]:
    playwright = pytest.importorskip('playwright.sync_api', reason='needs the extra test-integrations')
    path = chromium_path()
    with playwright.sync_playwright() as started:
        # root has no sandbox in a container
        browser = started.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu'])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A tab; what it asked other hosts for is in `foreign`, and what went wrong in it in `errors`."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(accept_downloads=True, **options)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.tab.on('request', lambda request: self._note(request.url, address))
        self.tab.on('pageerror', lambda error: self.errors.append(str(error)))
        self.tab.on('console', lambda m: self.errors.append(m.text) if m.type == 'error' else None)
        self.tab.goto(address)
        self.tab.wait_for_selector('#results .match')

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, 'data:', 'blob:')):
            self.foreign.append(url)

    def cards(self) -> list[Any]:
        return self.tab.query_selector_all('#results .match')

    def message(self) -> str:
        return self.tab.inner_text('#message')

    def wait_for(self, text: str, place: str = '#message') -> None:
        self.tab.wait_for_function(
            '([place, text]) => document.querySelector(place).innerText.includes(text)', arg=[place, text]
        )

    def close(self) -> None:
        self.context.close()
