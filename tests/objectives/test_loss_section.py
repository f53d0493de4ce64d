from dataclasses import asdict, fields

import pytest
from pydantic import ValidationError

from timfuse.objectives import FusionLoss
from timfuse.objectives.loss_section import LossSection
from timfuse.runtime import UserError

NAMES = [field.name for field in fields(FusionLoss)]


def test_keys_and_defaults_are_those_of_the_loss():
    assert list(LossSection.model_fields) == NAMES
    assert LossSection().model_dump() == asdict(FusionLoss())


@pytest.mark.parametrize("name", NAMES)
def test_each_key_sets_its_weight(name):
    assert getattr(FusionLoss(**LossSection(**{name: 0.125}).model_dump()), name) == 0.125


def test_a_crop_that_a_window_does_not_fit_into_is_one_line():
    section = LossSection(fidelity=1.0)
    assert section.loss(41) == FusionLoss(fidelity=1.0)
    with pytest.raises(UserError, match=r"^data.crop = 40 is too small for this loss .*; choose a larger one$"):
        section.loss(40)


@pytest.mark.parametrize(
    "weights", [{NAMES[0]: -1.0}, {NAMES[0]: float("inf")}, {"beauty": 1.0}, dict.fromkeys(NAMES, 0.0)]
)
def test_what_is_no_loss_is_refused(weights):
    with pytest.raises(ValidationError):
        LossSection(**weights)
