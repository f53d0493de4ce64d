from dataclasses import asdict, fields

import pytest
import torch
from pydantic import ValidationError

from timfuse.data.stage_config import ALWAYS_ENOUGH
from timfuse.objectives import NAMED_LOSSES, FusionLoss
from timfuse.objectives.loss_section import LossSection, fusion_loss
from timfuse.runtime.config import Section, config_to_yaml, load_config
from timfuse.runtime.errors import UserError

NAMES = [field.name for field in fields(FusionLoss)]
QUALITY = asdict(NAMED_LOSSES["quality"])


class Config(Section):
    loss: LossSection = LossSection()
    inner: LossSection | None = None


def load(path, text, *overrides):
    """Read a config from YAML text, with settings over it."""
    path.write_text(text)
    return load_config(Config, path, overrides)


def test_keys_and_defaults_are_those_of_the_loss():
    assert list(LossSection.model_fields) == NAMES
    assert LossSection().model_dump() == asdict(FusionLoss())


@pytest.mark.parametrize("name", NAMES)
def test_each_key_sets_its_weight(name):
    assert getattr(FusionLoss(**LossSection(**{name: 0.125}).model_dump()), name) == 0.125


def test_a_crop_that_a_window_does_not_fit_into_is_one_line():
    default, section = FusionLoss(fidelity=1.0), LossSection(edges=1.0, fidelity=1.0)
    assert fusion_loss(None, default, 17) == default
    assert fusion_loss(section, default, 17) == FusionLoss(edges=1.0, fidelity=1.0)
    for given in (None, section):
        with pytest.raises(UserError, match=r"^data.crop = 16 is too small for this loss .*; choose a larger one$"):
            fusion_loss(given, default, 16)


@pytest.mark.parametrize(
    "weights", [{NAMES[0]: -1.0}, {NAMES[0]: float("inf")}, {"beauty": 1.0}, dict.fromkeys(NAMES, 0.0)]
)
def test_what_is_no_loss_is_refused(weights):
    with pytest.raises(ValidationError):
        LossSection(**weights)


@pytest.mark.parametrize("name", NAMED_LOSSES)
def test_a_name_stands_for_its_weights(name, tmp_path):
    for text in (f"loss: {name}", f"loss: {{base: {name}}}"):
        assert load(tmp_path / "c.yaml", text).loss.model_dump() == asdict(NAMED_LOSSES[name])
    assert load(tmp_path / "c.yaml", f"inner: {name}").inner == LossSection(base=name)


def test_weights_override_those_of_the_base(tmp_path):
    section = load(tmp_path / "c.yaml", "loss: {base: quality, information: 2}").loss
    assert section.model_dump() == QUALITY | {"information": 2.0}


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("loss: quality", ["loss.information=2", "loss.range=1"], QUALITY | {"information": 2, "range": 1}),
        ("loss: quality", ["loss={information: 2}"], QUALITY | {"information": 2}),
        ("loss: {base: quality, edges: 1}", ["loss.information=2"], QUALITY | {"edges": 1, "information": 2}),
        ("loss: {information: 2}", ["loss=quality"], QUALITY),
        ("loss: {base: mri-ct, information: 2}", ["loss=quality"], QUALITY),
        ("loss: {base: mri-ct, information: 2}", ["loss.base=quality"], QUALITY),
        ("loss: {base: mri-ct}", ["loss.base=quality", "loss.information=2"], QUALITY | {"information": 2}),
        ("loss: {information: 2}", ["loss.edges=1"], asdict(FusionLoss(information=2, edges=1))),
    ],
)
def test_settings_go_over_a_name(tmp_path, text, overrides, expected):
    assert load(tmp_path / "c.yaml", text, *overrides).loss.model_dump() == expected


def test_a_config_changes_weights_of_the_name_in_the_one_that_it_extends(tmp_path):
    (tmp_path / "base.yaml").write_text("loss: quality")
    section = load(tmp_path / "c.yaml", "extends: base.yaml\nloss: {information: 2}", "loss.range=1").loss
    assert section.model_dump() == QUALITY | {"information": 2, "range": 1}


def test_a_resolved_config_holds_weights_and_no_name(tmp_path):
    config = load(tmp_path / "c.yaml", "loss: quality", "loss.information=2")
    resolved = config_to_yaml(config)
    assert "quality" not in resolved
    assert load(tmp_path / "resolved.yaml", resolved) == config


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("loss=qualty", f'loss = "qualty" must name one of the losses {", ".join(NAMED_LOSSES)} (did you mean'),
        ("loss.base=qualty", 'loss = {"base": "qualty"} must name one of the losses '),
        ("loss.base=[quality]", 'loss = {"base": ["quality"]} must name one of the losses '),
        ("loss=3", "loss = 3 must be the name of a loss or a mapping of weights"),
        ("loss={base: quality, edge: 3}", "unknown key loss.edge (--set loss={base: quality, edge: 3}); did you mean "),
        ("loss={base: quality, edges: -3}", "loss.edges = -3 must be greater than or equal to 0"),
        ("inner=qualty", 'inner = "qualty" must name one of the losses '),
    ],
)
def test_the_line_for_each_mistake(override, line):
    with pytest.raises(UserError) as caught:
        load_config(Config, None, [override])
    assert str(caught.value).startswith(line)


def test_every_term_is_defined_on_the_smallest_crops_that_large_ones_shrink_to():
    loss = FusionLoss(**dict.fromkeys((field.name for field in fields(FusionLoss)), 1.0))
    assert loss(*torch.rand(3, 1, 1, ALWAYS_ENOUGH, ALWAYS_ENOUGH)).isfinite()
