"""Code blocks of Markdown pages, and which of them tests run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / 'README.md', PROJECT / 'CONTRIBUTING.md', *sorted((PROJECT / 'docs').glob('*.md'))]
#: before a block that needs the internet, hours, or what only a user has; the reason follows
_MARK = '<!-- not run by the tests: '


class Block(NamedTuple):
    """A fenced block: its language, its text, and the reason for which tests do not run it."""

    language: str
    code: str
    reason: str | None


def blocks(page: Path, language: str) -> list[Block]:
    """Blocks of one language, in the order of the page."""
    found = re.findall(
        r'(?:^<!-- not run by the tests: (.+?) -->\n)?^```(\w+)\n(.*?)^```$',
        page.read_text(encoding='utf-8'),
        flags=re.S | re.M,
    )
    return [Block(name, code, reason or None) for reason, name, code in found if name == language]


def marks(page: Path) -> int:
    """How many marks a page has; each has to stand before a block."""
    return page.read_text(encoding='utf-8').count(_MARK)


def commands(code: str) -> Iterator[list[str]]:
    """Words of each command of a shell block, without comments."""
    for line in code.replace('\\\n', ' ').splitlines():
        if words := shlex.split(line, comments=True):
            yield words
