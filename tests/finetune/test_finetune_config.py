from dataclasses import replace
from pathlib import Path

import pytest

from timfuse.bilevel import ESTIMATORS
from timfuse.finetune import FinetuneConfig
from timfuse.finetune.finetune_setup import loss_of
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError


def load(*settings):
    return load_config(FinetuneConfig, None, ["downstream.kind=detection", *settings])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["guidance.stategy=joint"], "unknown key guidance.stategy (--set guidance.stategy=joint); did you mean"),
        (
            ["guidance.strategy=lagrange"],
            "guidance.strategy = \"lagrange\" must be 'fusion', 'frozen', 'joint', 'lagrangian'",
        ),
        (["guidance.weight=-1"], "guidance.weight = -1 must be greater than or equal to 0"),
        (["guidance.tolerance=-0.1"], "guidance.tolerance = -0.1 must be greater than or equal to 0"),
        (["guidance.multiplier_rate=0"], "guidance.multiplier_rate = 0 must be greater than 0"),
        (["guidance.detector_steps=0"], "guidance.detector_steps = 0 must be greater than or equal to 1"),
        (
            ["guidance.strategy=learned_loss", "guidance.estimator=first_order"],
            "must have another guidance.estimator for learned_loss",
        ),
        (
            ["guidance.strategy=learned_loss", "guidance.estimator_options={clips: 3}"],
            "guidance.estimator_options.clips: gauss_newton has no such setting; it has epsilon, clip",
        ),
        (["guidance.estimator_options={clip: -3}"], "guidance.estimator_options.clip = -3 must be a number from 0 on"),
        (["guidance.images=first"], "must be guidance.strategy=frozen to learn on first images"),
        (["guidance.strategy=fusion"], "must have a guidance.strategy for detection, such as lagrangian"),
        (["downstream.kind=depth"], "downstream.kind = \"depth\" must be 'detection' or 'segmentation'"),
        (["downstream.width=9"], "downstream.width = 9 must be a multiple of 8"),
        (
            ["downstream.kind=segmentation", "guidance.strategy=detfusion"],
            "must have downstream.kind = detection for detfusion",
        ),
        (["downstream=null", "guidance.strategy=joint"], "must have a downstream task for guidance.strategy = joint"),
        (["downstream.frozen=true"], "must have downstream.init for a frozen network: compact has random weights"),
        (
            ["downstream.frozen=true", "downstream.init=street", "guidance.strategy=learned_loss"],
            "must have guidance.strategy joint or lagrangian for downstream.frozen = true, not learned_loss",
        ),
        (
            ["guidance.robust=[noise]", "guidance.strategy=learned_loss"],
            "must have guidance.strategy joint or lagrangian for guidance.robust, not learned_loss",
        ),
        (["train.warmup=2000"], "must be longer than the warm-up: warmup 2000 >= steps 2000"),
        (["train.ema=1"], "train.ema = 1 must be less than 1"),
        (["data.crop=31"], "data.crop = 31 must be greater than or equal to 32"),
        (["data.crop=32", "data.batch_size=1"], "must have data.batch_size above 1 or data.crop above 32"),
        (["data.scale=[2, 1]"], "must have the smaller factor first: 2 > 1"),
        (["data.scale=[0, 1]"], "data.scale.0 = 0 must be greater than 0"),
        (["data.validation=1"], "data.validation = 1 must be less than 1"),
        (["loss={intensity: 0, gradient: 0, ssim: 0}"], "must have a weight above 0"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(settings, message):
    with pytest.raises(UserError) as caught:
        load(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS.keys() - {"first_order"}))
def test_learned_loss_takes_every_other_estimator(estimator):
    config = load("guidance.strategy=learned_loss", f"guidance.estimator={estimator}")
    assert config.guidance.estimator == estimator


def test_what_the_guidance_does_not_use_does_not_matter():
    assert load("guidance.strategy=joint", "guidance.estimator=first_order").guidance.strategy == "joint"


@pytest.mark.parametrize("images", ["fused", "first", "second", "average", "blend", "a/folder"])
def test_frozen_takes_any_images(images):
    assert load("guidance.strategy=frozen", f"guidance.images={images}").guidance.images == images


@pytest.mark.parametrize(
    ("settings", "network"),
    [
        ([], "compact"),
        (["downstream.kind=segmentation"], "segformer-tiny"),
        (["downstream.kind=segmentation", "downstream.network=nvidia/segformer"], "nvidia/segformer"),
    ],
)
def test_the_task_network_follows_the_kind_unless_it_is_named(settings, network):
    assert load(*settings).downstream.network == network


def test_the_strategy_follows_the_downstream_task_unless_it_is_named():
    assert load().strategy == "lagrangian"
    assert load("guidance.strategy=joint").strategy == "joint"
    assert load("downstream=null").strategy == "fusion"


def test_learned_loss_has_terms_in_which_it_learns():
    for name in ("finetune-detection", "finetune-segmentation", "finetune-demo"):
        config = load_config(FinetuneConfig, Path(name), ["guidance.strategy=learned_loss"])
        loss = loss_of(config, "infrared-visible")
        assert (loss.intensity, loss.ssim) == (1.0, 0.0)
        assert replace(loss, intensity=0.0) == loss_of(load_config(FinetuneConfig, Path(name)), "infrared-visible")
    own = load("guidance.strategy=learned_loss", "loss={intensity: 0, ssim: 2}")
    assert (loss_of(own, "infrared-visible").intensity, loss_of(own, "infrared-visible").ssim) == (0.0, 2.0)
