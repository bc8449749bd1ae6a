"""Tables as text for a terminal, or in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ['format_table']


def format_table(rows: Sequence[Sequence[str]], numeric: Collection[int] = (), markdown: bool = False) -> str:
    """A table whose columns are padded to the same width.

    Args:
        rows: of cells, the headings first.
        numeric: columns, from 0, that are aligned to the right.
        markdown: a GitHub table instead of columns with two spaces between them.
    """
    widths = [max(3, *map(len, column)) if markdown else max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(widths[i]) if i in numeric else cell.ljust(widths[i]) for i, cell in enumerate(row)] for row in rows
    ]
    if not markdown:
        return '\n'.join('  '.join(line).rstrip() for line in lines)
    rule = ['-' * (width - 1) + ':' if i in numeric else '-' * width for i, width in enumerate(widths)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [lines[0], rule, *lines[1:]])
