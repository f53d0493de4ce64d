"""What a study shows: the points that no other beats, as front_pictures, a page, a table and genotypes to train."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from PIL import Image

from timfuse import cli
from timfuse.genotypes import CellGenotype, Genotype, load_genotype, save_genotype
from timfuse.runtime.errors import UserError
from timfuse.tuning import Point, front_pictures, print_front, show, worker
from timfuse.tuning.points import short_names, written
from timfuse.tuning.storage import connected, parse_url
from timfuse.tuning.study import open_study

OPERATORS = ("residual_k3_d1", "spatial_attention_k3")


def add(config, values, channels=2, gradient=2.0):
    """Add finished trials with these objectives to the study of a config, as workers would."""
    genotype = Genotype("found", "infrared-visible", "fusion", 2, (CellGenotype("successive", OPERATORS),))
    save_genotype(replace(genotype, channels=channels), Path("genotype.yaml"))
    distributions: dict[str, BaseDistribution] = {
        "search.space.channels": CategoricalDistribution(["2", "4"]),
        "search.space.cells": CategoricalDistribution(['["successive"]', '["successive", "successive"]']),
        "train.loss.gradient": FloatDistribution(1, 5),
    }
    with connected(parse_url(None, config.run)) as storage:
        study = open_study(config, storage)
        for row in values:
            study.add_trial(
                optuna.create_trial(
                    values=row,
                    params={
                        "search.space.channels": json.dumps(channels),
                        "search.space.cells": json.dumps(["successive"]),
                        "train.loss.gradient": gradient,
                    },
                    distributions=distributions,
                    user_attrs={worker.GENOTYPE: Path("genotype.yaml").read_text(encoding="utf-8")},
                )
            )
        study.add_trial(optuna.create_trial(state=TrialState.RUNNING))


@pytest.fixture
def shown(capsys):
    """A function that prints a front; returns the lines."""

    def lines(front):
        capsys.readouterr()
        print_front(front)
        return capsys.readouterr().out.splitlines()

    return lines


def test_the_front_holds_what_no_other_beats_and_follows_the_study(tiny, shown):
    config = tiny("vary.search.space.stem=null")
    add(config, [(0.5, 10.0), (0.4, 12.0), (0.7, 30.0), (0.2, 3.0), (0.7, 31.0)], channels=4, gradient=1.23456)
    front = show(config)
    assert [point.number for point in front.best] == [3, 0, 2]
    assert [point.number for point in front.points] == [0, 1, 2, 3, 4]
    names = ["00-genotype.yaml", "02-genotype.yaml", "03-genotype.yaml"]
    assert sorted(path.name for path in Path("run/front").glob("*.yaml")) == names
    assert {"front.png", "front.html"} <= {path.name for path in front.files}
    assert all(path.is_file() for path in front.files)
    assert shown(front)[0].split() == ["trial", "channels", "cells", "gradient", "quality", "milliseconds"]
    assert shown(front)[1].split() == ["3", "4", "[successive]", "1.235", "0.2000", "3"]
    assert load_genotype(Path("run/front/03-genotype.yaml")).cells[0].operators == OPERATORS
    add(config, [(0.8, 3.0)])
    front = show(config)
    assert [point.number for point in front.best] == [6]  # 5 is running
    assert [path.name for path in Path("run/front").glob("*.yaml")] == ["06-genotype.yaml"]


def test_a_study_of_quality_alone_shows_its_best(tiny, shown):
    config = tiny("cost=null", "vary.search.space.stem=null")
    add(config, [(0.1 * number % 0.7,) for number in range(14)])
    front = show(config)
    assert [path.name for path in Path("run/front").glob("*.yaml")] == [f"{front.best[0].number:02d}-genotype.yaml"]
    assert len(shown(front)) == 11
    qualities = [point.quality for point in front.best]
    assert qualities == sorted(qualities, reverse=True)
    across, up = front_pictures._edge(front)
    assert across == [*range(14)]
    assert up == sorted(up)
    assert up[-1] == qualities[0]


def test_the_pictures_show_every_trial(tiny):
    pytest.importorskip("plotly")
    config = tiny("study=a<b", "vary.search.space.stem=null")
    add(config, [(0.5, 10.0), (0.4, 12.0)])
    show(config)
    with Image.open("run/front/front.png") as picture:
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(2**24)) > 20
    page = Path("run/front/front.html").read_text(encoding="utf-8")
    assert "<title>Study a&lt;b</title>" in page
    assert "residual_k3_d1, spatial_attention_k3" in page
    assert "gradient 2" in page
    assert "trial 1" in page
    head, script = page.split("<script", 1)
    assert "http" not in head
    assert 'src="http' not in script  # it is whole in one file


def test_without_plotly_the_rest_is_there(tiny, monkeypatch):
    monkeypatch.setattr(front_pictures, "find_spec", lambda name: None)
    config = tiny("vary.search.space.stem=null")
    add(config, [(0.5, 10.0)])
    front = show(config)
    assert front.note == "no interactive page: install what draws it with `pip install timfuse[tune]`"
    assert Path("run/front/front.png").is_file()
    assert not Path("run/front/front.html").exists()


def test_a_study_without_a_finished_trial_has_nothing_to_show(tiny):
    config = tiny("vary.search.space.stem=null")
    add(config, [])
    with pytest.raises(UserError, match="no trial of the study tune has come to its end yet; look again later"):
        show(config)


def test_how_settings_are_written():
    keys = ["search.cost.weight", "search.search.outer_loss.edges", "train.loss.edges", "train.loss.ssim"]
    assert list(short_names(keys).values()) == ["weight", "outer_loss.edges", "loss.edges", "ssim"]
    assert list(short_names(["train.a", "search.train.a"]).values()) == ["train.a", "search.train.a"]
    assert [written(value) for value in (3, 0.0012345, "half", ["a", "b"], True)] == [
        *("3", "0.001234", "half", "[a, b]", "True")
    ]


def test_a_point_says_what_it_is():
    genotype = "cells: [{operators: [a, b]}, {operators: [c]}]"
    point = Point(7, 0.25, 12.345, {"train.loss.edges": 2.5}, genotype)
    assert point.lines("GFLOPs") == [
        *("trial 7", "quality 0.2500", "12.35 GFLOPs", "edges 2.5", "cell 1: a, b", "cell 2: c")
    ]


def test_the_command_shows_a_study_and_runs_nothing(tiny, capsys):
    add(tiny("vary.search.space.stem=null"), [(0.5, 10.0), (0.6, 12.0)])
    with pytest.raises(SystemExit) as ended:
        cli.main(["tune", "--config", "tiny.yaml", "--set", "vary.search.space.stem=null", "--show"])
    assert ended.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["trial", "0", "1"]
    assert {"run/front/front.png", "run/front/00-genotype.yaml", "run/front/01-genotype.yaml"} <= set(lines)
