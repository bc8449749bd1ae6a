"""Which thresholds of the cosine weights are released with, chosen from evaluations on several data sets.

The most cautious one counts: for each false-match rate the highest cosine that one of the data sets needs, so that on
none of them more pairs of different vehicles are taken for one. Data sets of real images decide where there are any.
A data set decides only about rates at which at least ten of its pairs of different vehicles are false matches: with
fewer, chance decides. Cosines are rounded up to four decimals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ['LEAST_FALSE_MATCHES', 'choose_thresholds']

#: false matches that a rate must allow among the pairs of a data set
LEAST_FALSE_MATCHES = 10


def choose_thresholds(evaluations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The thresholds that the evaluations of one model's weights give.

    Args:
        evaluations: contents of `evaluation.json`. Those of mirrored images or of chosen queries, and those written
            before version 0.2, decide nothing.

    Returns:
        Objects as `timm_dpa.weights.thresholds` describes them, in ascending order of the rates; empty where no
        evaluation has enough pairs.
    """
    usable = [each for each in evaluations if each.get('verification') and not _is_special(each['settings'])]
    real = [each for each in usable if not each['data'].get('synthetic')]
    chosen: dict[float, dict[str, Any]] = {}
    for each in real or usable:
        found = each['verification']
        for threshold in found['thresholds']:
            rate = threshold['false_match_rate']
            if threshold['cosine'] is None or rate * found['different_pairs'] < LEAST_FALSE_MATCHES:
                continue
            if rate not in chosen or threshold['cosine'] > chosen[rate]['cosine']:
                chosen[rate] = {
                    'false_match_rate': rate,
                    'cosine': threshold['cosine'],
                    'miss_rate': round(threshold['miss_rate'], 4),
                    'data': ' '.join(each['data']['name'].split()),
                    'same_pairs': found['same_pairs'],
                    'different_pairs': found['different_pairs'],
                }
    return [{**chosen[rate], 'cosine': _rounded_up(chosen[rate]['cosine'])} for rate in sorted(chosen)]


def _is_special(settings: dict[str, Any]) -> bool:
    return bool(settings.get('flip') or settings.get('query_identities'))


def _rounded_up(cosine: float) -> float:
    return math.ceil(round(cosine * 1e5) / 10) / 1e4  # cosines are whole steps of 1e-5
