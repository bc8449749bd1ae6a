"""Thresholds of the cosine that were measured with weights: as files keep them, and as models give them.

A manifest, `release.json` and `config.json` have a list `thresholds` of objects, one for each false-match rate:
`false_match_rate` and `miss_rate` in 0..1, `cosine`, the name `data` of the data set that decided, and its numbers of
`same_pairs` and `different_pairs`; see `timm_dpa.train.evaluation.thresholds`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ['are_thresholds', 'as_mapping', 'stored_thresholds']

_NUMBERS = ('false_match_rate', 'cosine', 'miss_rate')


def are_thresholds(rows: Any) -> bool:
    """Whether it is a list that files keep thresholds in; may be empty."""
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(isinstance(row.get(key), (int, float)) and -1 <= row[key] <= 1 for key in _NUMBERS)
        and isinstance(row.get('data'), str)
        and all(isinstance(row.get(key), int) for key in ('same_pairs', 'different_pairs'))
        for row in rows
    )


def as_mapping(rows: list[dict[str, Any]]) -> dict[float, float] | None:
    """False-match rate -> cosine, in ascending order of the rates; None where there is none."""
    return {row['false_match_rate']: row['cosine'] for row in sorted(rows, key=lambda r: r['false_match_rate'])} or None


def stored_thresholds(folder: Path) -> dict[float, float] | None:
    """Those in the `config.json` of a model's folder; None where it has none that are understood."""
    try:
        rows = json.loads((folder / 'config.json').read_text(encoding='utf-8')).get('thresholds', [])
    except (OSError, ValueError, AttributeError):  # what is wrong with it, its reader says
        return None
    return as_mapping(rows) if are_thresholds(rows) else None
