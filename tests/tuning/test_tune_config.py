"""The config of a study: what can vary, and one line for what cannot."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from timfuse.objectives.loss_section import LossSection
from timfuse.objectives.named_losses import training_loss
from timfuse.runtime.config import config_to_yaml, load_config
from timfuse.runtime.errors import UserError
from timfuse.search import SearchConfig
from timfuse.training import TrainConfig
from timfuse.tuning import TuneConfig
from timfuse.tuning.tune_config import Range


def test_keys_to_vary_are_dotted_or_nested_and_null_takes_one_out(tiny):
    config = tiny("vary.search.space.cells=[[successive], [multi_scale, successive]]", "vary.search.space.stem=null")
    assert config.vary == {
        "search.space.channels": (2, 4),
        "search.space.cells": (["successive"], ["multi_scale", "successive"]),
        "train.loss.gradient": Range(low=1, high=5.0),
    }
    text = "search: {space: {preset: tim}}\nvary: {search.space.channels: [2, 4]}"
    Path("dotted.yaml").write_text(text, encoding="utf-8")
    assert load_config(TuneConfig, Path("dotted.yaml")).vary == {"search.space.channels": (2, 4)}
    assert not load_config(TuneConfig, Path("dotted.yaml"), ["vary.train.loss.ssim=[1, 2]"]).vary.keys() ^ {
        "search.space.channels",
        "train.loss.ssim",
    }


def test_a_resolved_config_comes_back(tiny):
    config = tiny()
    Path("copy.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(TuneConfig, Path("copy.yaml")) == config


def test_both_stages_get_what_is_given_once_and_what_the_trial_tries(tiny):
    config = tiny("seed=3", "data.root=pairs", "data.validation=0.2")
    settings = {"search.space.channels": 4, "train.loss.gradient": 2.5}
    search, train = config.stages(settings, Path("trial"))
    assert isinstance(search, SearchConfig)
    assert isinstance(train, TrainConfig)
    assert {search.seed, train.seed} == {3}
    assert {search.data.root, train.data.root} == {Path("pairs")}
    assert {search.data.validation, train.data.validation} == {0.2}
    assert search.run == Path(train.genotype) == Path("trial/search")
    assert train.run == Path("trial/train")
    assert (search.space.channels, train.loss.gradient) == (4, 2.5)
    assert (search.space.search_space.stem, search.data.crop, train.train.steps) == ("full", 24, 2)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "vary.search.space.channels=[2, 3]",
            "vary.search.space.channels: space.channels = 3 must be an even number from 2 on",
        ),
        ("vary.search.space.chanels=[2, 4]", "vary.search.space.chanels: unknown key space.chanels; did you mean"),
        ("vary.space.channels=[2, 4]", "vary.space.channels: space.channels is of neither stage; keys to vary begin"),
        ("vary.search.space.steps={low: 0, high: 2}", "vary.search.space.steps: space.steps = 0 must be"),
        ("vary.search.space.channels={low: 2, high: 8}", "vary.search.space.channels: space.channels = 3 must be"),
        ("vary.train.loss.gradient={low: 5, high: 2}", "vary.train.loss.gradient: must have low below high: 5 and 2"),
        ("vary.train.loss.gradient={low: 0, high: 2, log: true}", "vary.train.loss.gradient: must have low above 0"),
        ("vary.train.loss.gradient={low: 1, hi: 2}", "vary.train.loss.gradient: unknown key hi; did you mean high?"),
        ("vary.train.loss.gradient=2", "vary.train.loss.gradient = 2 must be a list of two or more choices, or {low"),
        ("vary.train.loss.gradient=[2]", "vary.train.loss.gradient = [2] must be a list of two or more choices"),
        ("vary.search.search.steps=[1, 4]", "vary.search.search.steps: search = "),
        ("vary.train.seed=[1, 2]", "vary.train.seed must be left out: give seed"),
        ("search.run=there", "search.run must be left out: a trial sets it"),
        ("train.genotype=tim", "train.genotype must be left out: a trial sets it"),
        ("search.data.root=there", "search.data.root must be left out: give data.root"),
        ("vary=7", "vary = 7 must be a mapping of keys to values"),
        ("quality=[VIF, smear]", "quality: unknown metric smear; known here: VIF, Qabf, SCD, SSIM, MEF-SSIM"),
        ("cost=seconds", "cost = \"seconds\" must be 'milliseconds', 'GFLOPs' or 'parameters'"),
        ("search.space.channels=5", "search.space.channels = 5 must be an even number from 2 on"),
    ],
)
def test_what_cannot_be_is_one_line(tiny, setting, line):
    with pytest.raises(UserError) as error:
        tiny(setting)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_study_of_nothing_is_refused():
    Path("nothing.yaml").write_text("vary: {}", encoding="utf-8")
    with pytest.raises(UserError, match="vary must name a key for trials to try"):
        load_config(TuneConfig, Path("nothing.yaml"))
    Path("missing.yaml").write_text("seed: 1", encoding="utf-8")
    with pytest.raises(UserError, match="vary is missing"):
        load_config(TuneConfig, Path("missing.yaml"))


def test_trials_can_be_compared_whatever_the_machine(tiny):
    same = ["run=there", "device=auto", "data.root=pairs", "data.workers=2", "train.train.checkpoint_every=7"]
    assert tiny(*same).comparable() == tiny().comparable()
    for setting in ("seed=1", "cost=null", "train.train.steps=3", "vary.search.space.channels=[2, 6]", "quality=[VIF]"):
        assert tiny(setting).comparable() != tiny().comparable()


def test_a_refine_network_is_trained_behind_the_first_stage_of_its_search():
    given = {"space": {"preset": "tim-refine"}, "first_stage": Path("runs/first")}
    steps = {"search.search.steps": [400, 500]}
    search, train = TuneConfig(search=SearchConfig(**given), vary=steps).stages({}, Path("trial"))
    assert search.first_stage == train.first_stage == Path("runs/first")
    assert TuneConfig(vary=steps).stages({}, Path("trial"))[1].first_stage is None


def test_a_varied_weight_changes_the_loss_of_the_task():
    keys = {"search.search.outer_loss.structure": [0.2, 0.4], "train.loss.gradient": [1, 2]}
    config = load_config(TuneConfig, None, ["task=mri-ct", f"vary={json.dumps(keys)}"])
    search, train = config.stages({key: values[1] for key, values in keys.items()}, Path("trial"))
    task = training_loss("mri-ct")
    assert train.loss == LossSection(**asdict(replace(task, gradient=2)))
    assert search.search.outer_loss == LossSection(**asdict(replace(task, structure=0.4)))
    assert search.search.inner_loss is None
