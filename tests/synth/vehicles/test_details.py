"""The registry of details: each shows, and a new one needs one class."""

from dataclasses import replace

import numpy as np
import pytest

from timm_dpa.synth.render.shapes import box
from timm_dpa.synth.vehicles.build import build_body, build_vehicle_mesh, paint_vehicle
from timm_dpa.synth.vehicles.catalog import sample_identity, sample_model
from timm_dpa.synth.vehicles.details import DETAILS, Detail
from timm_dpa.synth.vehicles.identity import Identity
from timm_dpa.synth.vehicles.swatches import BODY, Swatches


def plain_vehicle(kind: str) -> Identity:
    """Of that kind, without details."""
    model = next(model for model in (sample_model(3, number) for number in range(2000)) if model.kind == kind)
    return replace(sample_identity(3, model.number, model, 0), details={})


def look(identity: Identity) -> bytes:
    """All colors and corners."""
    body, swatches = build_body(identity.model.kind, identity.model.shape), Swatches()
    mesh = build_vehicle_mesh(identity, body, swatches)
    texels, coordinates, _ = paint_vehicle(identity, body).finish(mesh, swatches.as_array())
    return texels.tobytes() + coordinates.tobytes() + mesh.corners.tobytes()


@pytest.mark.parametrize('name', DETAILS)
def test_every_detail_shows_on_every_kind_that_may_have_it(name):
    rng = np.random.default_rng(0)
    for kind in DETAILS[name].kinds:
        plain = plain_vehicle(kind)
        details = [DETAILS[name].sample(rng, kind, plain.paint) for _ in range(3)]
        assert any(look(replace(plain, details={name: detail})) != look(plain) for detail in details), kind


def test_a_new_detail_is_one_class():
    class Chimney(Detail):
        name, order, weight = 'chimney', 10_000, 1.0
        kinds = ('sedan',)

        def build(self, identity, body, swatches):
            return [box((0, 0, body.height), (0.1, 0.1, body.height + 1 + self.s), 0.0, BODY)]

    try:
        model = plain_vehicle('sedan').model
        found = [sample_identity(3, number, model, 0).details.get('chimney') for number in range(200)]
        found = [detail for detail in found if detail]
        assert 2 < len(found) < 60
        body = build_body(model.kind, model.shape)
        identity = replace(plain_vehicle('sedan'), details={'chimney': found[0]})
        high = build_vehicle_mesh(identity, body, Swatches()).corners[..., 2].max()
        assert high == pytest.approx(model.shape['height'] + 1 + found[0].s)
    finally:
        del DETAILS['chimney']


def test_two_details_of_one_name_or_order_are_an_error():
    before = dict(DETAILS)
    for title, place in (('sunroof', 10_000), ('chimney', DETAILS['sunroof'].order)):
        with pytest.raises(ValueError, match='sunroof has this name or order'):
            type('Chimney', (Detail,), {'name': title, 'order': place, 'kinds': ('sedan',), 'weight': 1.0})
    assert before == DETAILS
