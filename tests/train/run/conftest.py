"""Data that the runs of these tests train on."""

import pytest

from tests.support.vehicles import write_vehicles


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_vehicles(tmp_path_factory.mktemp('data') / 'vehicles', identities=18, images=6)
