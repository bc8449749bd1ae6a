"""The thresholds that several evaluations give: the most cautious of the sets that have pairs enough."""

import pytest

from timm_dpa.train.evaluation.thresholds import choose_thresholds
from timm_dpa.weights.thresholds import are_thresholds, as_mapping

RATES = (0.001, 0.01, 0.05)


def evaluation(name, cosines, different, *, same=50, misses=(0.5, 0.25, 0.123456), settings=None, **about):
    rows = [
        {'false_match_rate': rate, 'cosine': cosine, 'miss_rate': None if cosine is None else miss}
        for rate, cosine, miss in zip(RATES, cosines, misses, strict=True)
    ]
    counts = {'same_pairs': same, 'different_pairs': different}
    verification = {**counts, 'equal_error_rate': 0.1, 'equal_error_cosine': 0.4, 'thresholds': rows}
    return {'data': {'name': name, **about}, 'settings': settings or {}, 'verification': verification}


def test_the_highest_cosine_of_those_with_ten_false_matches():
    small = evaluation('small', (0.99, 0.9, 0.3), 900)
    large = evaluation('large', (0.71234, 0.61001, 0.5), 10_000, same=70)
    largest = evaluation('largest', (0.8, 0.6, 0.2), 9_999)
    rows = choose_thresholds([small, large, largest])
    assert are_thresholds(rows)
    # 0.1 % of 9,999 are not ten, nor are 1 % of 900; 5 % of 900 are
    assert as_mapping(rows) == {0.001: 0.7124, 0.01: 0.6101, 0.05: 0.5}
    assert {row['data'] for row in rows} == {'large'}
    assert rows[2] == {
        'false_match_rate': 0.05,
        'cosine': 0.5,
        'miss_rate': 0.1235,
        'data': 'large',
        'same_pairs': 70,
        'different_pairs': 10_000,
    }
    assert as_mapping(choose_thresholds([small])) == {0.05: 0.3}


def test_real_images_decide_before_rendered_ones():
    rendered = evaluation('rendered', (0.9, 0.9, 0.9), 20_000, synthetic=True)
    real = evaluation('real', (None, 0.5, 0.4), 5_000)
    assert as_mapping(choose_thresholds([rendered, real])) == {0.01: 0.5, 0.05: 0.4}
    assert as_mapping(choose_thresholds([rendered])) == dict.fromkeys(RATES, 0.9)


@pytest.mark.parametrize('settings', [{'flip': True}, {'query_identities': ['a']}])
def test_special_and_older_evaluations_decide_nothing(settings):
    special = evaluation('special', (0.9, 0.9, 0.9), 20_000, settings=settings)
    older = {'data': {'name': 'older'}, 'settings': {}}
    alike = {**older, 'verification': None}
    assert choose_thresholds([special, older, alike]) == []
    assert as_mapping([]) is None


def test_what_files_may_hold():
    row = choose_thresholds([evaluation('large', (0.7, 0.6, 0.5), 10_000)])[0]
    assert are_thresholds([row])
    assert are_thresholds([])
    for wrong in ({'cosine': None}, {'cosine': '0.5'}, {'data': 3}, {'different_pairs': 1.5}, {'false_match_rate': 2}):
        assert not are_thresholds([{**row, **wrong}])
    assert not are_thresholds([3])
    assert not are_thresholds({})
