"""Fixtures of the renderer."""

import pytest

from timm_dpa.synth.world.flights import sample_flight


@pytest.fixture(scope='module')
def flights() -> list:
    return [sample_flight(2, number) for number in range(1, 121)]
