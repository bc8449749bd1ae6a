"""What tests of other packages share: released weights, and traffic in which places do not tell who is who."""

import pytest

from tests.support.traffic import traffic
from timm_dpa.embedding.extractor import FeatureExtractor

#: cosines of one vehicle are above 0.99 in the drawn traffic, those of two below 0.4
THRESHOLD = 0.7


@pytest.fixture(scope='session')
def extractor():
    return FeatureExtractor('dpa_resnet50', precision='fp32')


@pytest.fixture(scope='session')
def moments(extractor):
    return traffic()


@pytest.fixture(scope='session')
def threshold():
    return THRESHOLD
