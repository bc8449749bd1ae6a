"""The tables of `timm-dpa models`."""

import pytest

from timm_dpa.catalog import thresholds_table
from timm_dpa.weights.manifest import read_manifest


def test_table_of_thresholds_has_those_of_the_manifest():
    rows = thresholds_table('dpa_resnet50').splitlines()
    assert rows == thresholds_table('dpa_resnet50.*').splitlines()
    known = [(name, row) for name, release in read_manifest().items() for row in release.thresholds]
    shown = [row.split()[:4] for row in rows[1:]]
    assert shown == [
        [name, f'{100 * row["false_match_rate"]:g}', '%', f'{row["cosine"]:.4f}']
        for name, row in known
        if name.startswith('dpa_resnet50.')
    ]
    with pytest.raises(ValueError, match='no released weights called reid_resnet18 have thresholds'):
        thresholds_table('reid_resnet18')
