"""The recipe reference of the documentation, made from the recipe itself."""

from __future__ import annotations

import json
from inspect import cleandoc

from .messages import describe_field
from .recipe import Recipe

__all__ = ['recipe_reference']


def recipe_reference() -> str:
    """Every key of a recipe in Markdown: a heading and a table for each section.

    Returns:
        Rows of key, what it takes, default, and meaning.
    """
    lines: list[str] = []
    for name, section in Recipe.model_fields.items():
        kind = section.annotation
        assert kind is not None
        lines += [f'## {name}', '', cleandoc(kind.__doc__ or ''), '']
        lines += ['| key | takes | default | meaning |', '|---|---|---|---|']
        for key, field in kind.model_fields.items():
            cells = [
                f'`{name}.{key}`',
                describe_field(field),
                f'`{json.dumps(field.default)}`'.replace('"', ''),
                ' '.join((field.description or '').split()),
            ]
            lines.append(f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |')
        lines.append('')
    return '\n'.join(lines)
