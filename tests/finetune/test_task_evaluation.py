"""Tables of what images are good for: the rows, their numbers, and what is trained for them."""

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from timfuse.data import write_scenes
from timfuse.downstream import load_guiding_detectors, load_task_network
from timfuse.finetune import (
    FinetuneConfig,
    MethodScores,
    evaluate_task,
    finetune,
    scored_pairs,
)
from timfuse.finetune.task_table import columns_of, markdown, method_name, shown
from timfuse.genotypes import load_genotype
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.weights import load_into

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SOURCES = ("infrared", "visible", "average")
TABLES = ["differences.csv", "differences.md", "scores.csv", "table.md"]
SCORES = ["AP50", "AP75", "mAP", "AP50 person", "AP50 bicycle", "AP50 car", "loss"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Five pairs, the last two for validation, large enough for a detector to find something."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 5, height=128, width=160, seed=2)
    names = [f"scene_{index:05d}" for index in range(5)]
    (root / "train.txt").write_text("\n".join(names[:3]))
    (root / "val.txt").write_text("\n".join(names[3:]))
    return root


@pytest.fixture(scope="module")
def make_run(configured, scenes, tmp_path_factory):
    """A function that finetunes a detector that finds something already, and returns the run folder."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name, seed=0, root=scenes, train=None, downstream=None, **sections):
        config = configured(
            folder / name,
            seed=seed,
            data={"root": str(root), "crop": 32},
            downstream={"learning_rate": 1e-5, **(downstream or {"width": 24, "init": "street"})},
            train={"steps": 2, "images": 0, **(train or {})},
            **sections,
        )
        finetune(config)
        return config.run

    return make


@pytest.fixture(scope="module")
def runs(make_run):
    """Two runs that differ in the seed alone, and one by another strategy and with another loss."""
    other = {"intensity": 0.0, "gradient": 1.0, "ssim": 0.0}
    return [
        make_run("joint-seed0"),
        make_run("joint-seed1", seed=1),
        make_run("guided", guidance={"strategy": "detfusion", "detector_steps": 1}, loss=other),
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def copies(scenes, tmp_path_factory):
    """The visible images as another method's, in a folder of a name that means other images in a config."""
    return Path(shutil.copytree(scenes / "vis", tmp_path_factory.mktemp("methods") / "fused"))


@pytest.fixture(scope="module")
def evaluated(runs, output, copies):
    """All of them beside the sources, their average and copies of the visible images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copies.parent)
        return evaluate_task(
            runs, None, output, fused={"copies": Path("fused")}, baselines=SOURCES, fresh=False
        ).methods


def _config(run):
    return load_config(FinetuneConfig, run / CONFIG_FILE)


def by_name(methods):
    return {method.name: method for method in methods}


def assert_same_scores(methods, others):
    assert [(method.name, method.seeds) for method in methods] == [(other.name, other.seeds) for other in others]
    for method, other in zip(methods, others, strict=True):
        for row, expected in zip(method.scores, other.scores, strict=True):
            assert row == pytest.approx(expected, nan_ok=True, abs=0, rel=0)


def test_means_and_deviations_are_those_of_a_sample():
    one = MethodScores("one", (3,), ({"AP50": 0.25, "loss": 2.0},))
    three = MethodScores("three", (0, 1, 2), tuple({"AP50": value, "loss": math.nan} for value in (0.1, 0.2, 0.6)))
    assert (one.mean("AP50"), one.deviation("AP50")) == (0.25, None)
    assert three.mean("AP50") == pytest.approx(0.3)
    assert three.deviation("AP50") == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (shown(one, "AP50"), shown(three, "AP50"), shown(three, "loss")) == ("0.250", "0.300 ± 0.265", "nan ± nan")
    assert markdown([one, three]).splitlines() == [
        "| method | seeds | AP50 | loss |",
        "| :-- | --: | --: | --: |",
        "| one | 1 | 0.250 | 2.000 |",
        "| three | 3 | 0.300 ± 0.265 | nan ± nan |",
    ]


def test_sources_come_first_and_runs_that_differ_in_the_seed_alone_are_one_method(evaluated):
    assert [(method.name, method.seeds) for method in evaluated] == [
        ("infrared", (0, 1)),
        ("visible", (0, 1)),
        ("average", (0, 1)),
        ("copies", (0, 1)),
        ("joint", (0, 1)),
        ("guided", (0,)),
    ]
    assert columns_of(evaluated) == SCORES


def test_copies_of_a_source_score_as_the_source(evaluated):
    methods = by_name(evaluated)
    for copy, visible in zip(methods["copies"].scores, methods["visible"].scores, strict=True):
        assert copy == pytest.approx(visible, nan_ok=True, abs=0, rel=0)
    assert 0 < methods["visible"].mean("AP50") != methods["infrared"].mean("AP50") > 0


def test_runs_have_the_scores_that_they_ended_with(evaluated, runs):
    rows = [*by_name(evaluated)["joint"].scores]
    for run, row in zip(runs, rows, strict=False):
        metrics = load_genotype(run).provenance["metrics"]["best"]
        assert {name: row[name] for name in metrics["mean"]} == pytest.approx(metrics["mean"], abs=0, rel=0)
        for name in ("person", "bicycle", "car"):
            value = metrics[f"class {name}"]["AP50"]
            assert row[f"AP50 {name}"] == pytest.approx(math.nan if value is None else value, nan_ok=True, abs=0, rel=0)
    assert rows[0]["loss"] != rows[1]["loss"]


@torch.no_grad()
def test_the_fusion_loss_is_that_of_the_first_run_for_all(evaluated, runs):
    pairs = _config(runs[0]).data.open_pairs("infrared-visible", None, 0, labels="boxes")
    network, detectors = build_network(load_genotype(runs[2])), load_guiding_detectors(runs[2])
    load_into(network.eval(), runs[2] / "weights.safetensors")
    makes = {
        "infrared": lambda first, second: first,
        "average": lambda first, second: (first + second) / 2,
        "guided": lambda first, second: network(first, second, attention=detectors.attention(first, second)),
    }
    for name, make in makes.items():
        losses = [
            FusionLoss()(make(batch.first, batch.second), batch.first, batch.second).item()
            for _, batch in pairs.sets[0].validation_pairs(CPU)
        ]
        assert by_name(evaluated)[name].scores[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_the_table_and_the_scores_are_files(evaluated, output):
    assert (output / "table.md").read_text() == markdown(evaluated)
    with (output / "scores.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["method", "seed", *SCORES]
    expected = [
        (method.name, seed, scores)
        for method in evaluated
        for seed, scores in zip(method.seeds, method.scores, strict=True)
    ]
    assert len(rows) == 11
    for (name, seed, *values), (method, number, scores) in zip(rows, expected, strict=True):
        assert (name, seed) == (method, str(number))
        assert [float(value) for value in values] == pytest.approx(
            [scores[column] for column in SCORES], rel=1e-5, nan_ok=True
        )


def test_what_was_trained_to_compare_is_the_same_harness_on_other_images(evaluated, output, runs, copies):
    config, first = _config(output / "average-seed1"), _config(runs[0])
    assert (config.seed, config.guidance.strategy, config.guidance.images) == (1, "frozen", "average")
    for section in ("data", "downstream", "train", "loss", "init", "genotype"):
        assert getattr(config, section) == getattr(first, section)
    assert _config(output / "copies-seed0").guidance.images == str(copies.resolve())


@pytest.fixture
def steps():
    """The optimisers that made a step, one entry for each."""
    made = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *arguments: made.append(optimizer))
    yield made
    handle.remove()


def test_a_second_evaluation_trains_nothing(evaluated, output, runs, copies, scenes, steps):
    again = evaluate_task(runs, scenes, output, fused={"copies": copies}, baselines=SOURCES, fresh=False).methods
    assert steps == []
    assert_same_scores(again, evaluated)


def test_a_training_that_was_stopped_goes_on(evaluated, output, runs, steps):
    folder = output.with_name("stopped")
    shutil.copytree(output, folder)
    for name in ("checkpoint.pt", "genotype.yaml", "history.jsonl"):
        (folder / "visible-seed1" / name).unlink()
    again = evaluate_task(runs[:2], None, folder, baselines=SOURCES, fresh=False).methods
    assert len(steps) == 2
    assert_same_scores(again, [method for method in evaluated if method.name not in ("copies", "guided")])


def test_runs_alone(runs, tmp_path, steps):
    one, two = evaluate_task([runs[2], runs[1]], None, tmp_path / "out", baselines=(), fresh=False).methods
    assert steps == []
    # A single run keeps its whole name, and the first run's loss goes for the second.
    assert [(method.name, method.seeds) for method in (one, two)] == [("guided", (0,)), ("joint-seed1", (1,))]
    metrics = load_genotype(runs[1]).provenance["metrics"]["best"]["mean"]
    assert two.scores[0]["AP50"] == metrics["AP50"]
    assert two.scores[0]["loss"] != pytest.approx(metrics["loss"], rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == TABLES


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a-seed0", "a-seed1"), "a"),
        (("b_0", "b_1"), "b"),
        (("c0", "c1"), "c"),
        (("d", "d-again"), "d"),
        (("0", "1"), "0"),
        (("x/e-seed-3",), "e-seed-3"),
    ],
)
def test_names_of_methods(names, expected):
    assert method_name([Path(name) for name in names]) == expected


@pytest.fixture
def scored(monkeypatch):
    """The names of the pairs that each scoring looks at, which then takes no time."""
    seen = []

    def look(fuse, task, pairs, *arguments, **options):
        (pair_set,) = pairs.sets
        seen.append([pair_set.source.names[index] for index in pair_set.split.validation])
        first = replace(pair_set, split=pair_set.split._replace(validation=pair_set.split.validation[:1]))
        return evaluation_validate(fuse, task, replace(pairs, sets=(first,)), *arguments, **options)

    evaluation_validate = scored_pairs.validate
    monkeypatch.setattr(scored_pairs, "validate", look)
    return seen


def test_foreign_data_is_scored_whole_unless_it_names_its_validation_or_test_pairs(runs, scored, tmp_path):
    write_scenes(tmp_path / "far", 4, height=48, width=64, seed=9)
    names = [f"scene_{index:05d}" for index in range(4)]
    evaluate_task(runs[:1], tmp_path / "far", tmp_path / "out", baselines=(), fresh=False)
    (tmp_path / "far" / "train.txt").write_text("\n".join(names[:1]))
    (tmp_path / "far" / "val.txt").write_text("\n".join(names[2:]))
    evaluate_task(runs[:1], tmp_path / "far", tmp_path / "out", baselines=(), fresh=False)
    (tmp_path / "far" / "test.txt").write_text(names[1])
    evaluate_task(runs[:1], tmp_path / "far", tmp_path / "out", baselines=(), fresh=False)
    evaluate_task(runs[:1], None, tmp_path / "out", baselines=(), fresh=False)
    assert scored == 2 * [names] + 2 * [names[2:]] + 2 * [names[1:2]] + 2 * [["scene_00003", "scene_00004"]]
    (tmp_path / "far" / "test.txt").write_text("\n".join(names[1:3]))
    with pytest.raises(UserError, match=r"test.txt names scene_00002, a pair for training or validation; take it out"):
        evaluate_task(runs[:1], tmp_path / "far", tmp_path / "out", baselines=(), fresh=False)


def test_a_folder_with_other_classes_is_refused(runs, scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("person\nbike\ncar\n")
    with pytest.raises(UserError) as caught:
        evaluate_task(runs[:1], tmp_path / "data", tmp_path / "out")
    message = str(caught.value)
    assert f"{tmp_path / 'data'} has the classes person, bike, car, and the task network of {runs[0]} knows" in message
    assert message.endswith("knows person, bicycle, car; give data with the same classes")
    assert not (tmp_path / "out" / "infrared-seed0").exists()  # nothing was trained in vain


def test_runs_of_different_harnesses_are_refused(runs, make_run, tmp_path):
    longer = make_run("longer", train={"steps": 3})
    with pytest.raises(UserError, match="the runs differ in train, so that they cannot stand"):
        evaluate_task([runs[0], longer], None, tmp_path / "out")
    (tmp_path / "out" / "infrared-seed0").mkdir(parents=True)
    shutil.copy(longer / CONFIG_FILE, tmp_path / "out" / "infrared-seed0")
    with pytest.raises(UserError, match="was trained beside runs of another config; name another folder with --output"):
        evaluate_task(runs[:1], None, tmp_path / "out")


def test_what_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="nowhere holds no run; give the folder of a `timfuse finetune` run"):
        evaluate_task([Path("nowhere")], None, tmp_path / "out")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / CONFIG_FILE).write_text("stage: finetune\n")
    with pytest.raises(UserError, match="alone was finetuned without a downstream task; give its images by --fused"):
        evaluate_task([runs[0], tmp_path / "alone"], None, tmp_path / "out")
    shutil.copytree(runs[0], tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "task")
    with pytest.raises(UserError, match=r"no task network: .*half/task/specification\.yaml is missing"):
        evaluate_task([tmp_path / "half"], None, tmp_path / "out")
    (tmp_path / "half" / CONFIG_FILE).write_text("stage: train\n")
    with pytest.raises(UserError, match="stage = \"train\" must be 'finetune'"):
        evaluate_task([tmp_path / "half"], None, tmp_path / "out")


def test_a_method_that_is_called_like_a_source_is_refused(runs, scenes, tmp_path):
    with pytest.raises(
        UserError, match="the table would have 2 rows visible; rename a run folder, or give NAME=FOLDER"
    ):
        evaluate_task(runs[:1], None, tmp_path / "out", fused={"visible": scenes / "vis"})
    with pytest.raises(UserError, match="boxes holds no image"):
        evaluate_task(runs[:1], None, tmp_path / "out", fused={"other": scenes / "boxes"})


@pytest.fixture(scope="module")
def protocol(make_run, scenes, tmp_path_factory):
    """A run in colour, judged on pairs of test.txt by fresh networks too, at two learning rates, with corruptions."""
    root = Path(shutil.copytree(scenes, tmp_path_factory.mktemp("tested") / "scenes"))
    for list_name, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3, 4)), ("test-dark", (4,))):
        (root / f"{list_name}.txt").write_text("\n".join(f"scene_{number:05d}" for number in numbers))
    run = make_run("tested", root=root, downstream={"width": 24, "init": "street", "colour": True})
    output = tmp_path_factory.mktemp("protocol")
    options = {"baselines": ("visible", "both"), "learning_rates": (1e-5, 1e-3), "steps": 1}
    return evaluate_task([run], None, output, **options, corruptions=["missing"], severities=[3]), run, output


def test_every_row_has_a_fresh_network_and_the_run_its_own_score_too(protocol):
    evaluation, _, output = protocol
    methods = by_name(evaluation.methods)
    assert list(methods) == ["visible", "both", "tested"]
    assert columns_of(evaluation.methods) == [
        *("AP50", "AP75", "mAP", "AP50 dark", "AP50 person", "AP50 bicycle", "AP50 car", "own AP50", "loss")
    ]
    assert shown(methods["visible"], "own AP50") == "\u2013"
    assert methods["tested"].mean("own AP50") > 0
    trained = {path.name for path in output.iterdir() if path.is_dir()} - {"images"}
    rates = ("1e-05", "0.001")
    assert trained == {f"{name}-seed0-rate{rate}" for name in methods for rate in rates}
    config = _config(output / "tested-seed0-rate0.001")
    assert (config.train.steps, config.downstream.learning_rate) == (1, 1e-3)
    assert config.guidance.images == str((output / "images" / "tested-seed0").resolve())
    assert len(list((output / "images" / "tested-seed0").iterdir())) == 5
    assert load_task_network(output / "both-seed0-rate0.001").channels == 4


def test_the_scores_are_of_the_test_pairs_and_their_parts(protocol):
    evaluation, _, _ = protocol
    (record,) = by_name(evaluation.methods)["tested"].records
    assert record.images == 2
    assert by_name(evaluation.methods)["tested"].mean("AP50") == pytest.approx(
        np.nanmean(record.class_scores(np.ones((1, 2), int)))
    )
    dark = np.nanmean(record.class_scores(np.array([[0, 1]])))
    assert by_name(evaluation.methods)["tested"].mean("AP50 dark") == pytest.approx(dark)


def test_differences_stand_in_the_files_with_their_intervals(protocol):
    evaluation, _, output = protocol
    assert [(each.method, each.other) for each in evaluation.differences] == [("tested", "visible"), ("tested", "both")]
    methods = by_name(evaluation.methods)
    for each in evaluation.differences:
        assert each.mean == pytest.approx(methods["tested"].mean("AP50") - methods[each.other].mean("AP50"))
        assert each.low <= each.high
    with (output / "differences.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6  # three pairs of methods, all images and the dark ones


def test_a_missing_source_is_what_the_other_source_does_not_feel(protocol):
    evaluation, _, output = protocol
    corrupted = by_name(evaluation.corrupted)
    assert list(corrupted) == ["visible", "both", "tested"]
    assert columns_of(evaluation.corrupted) == ["missing 3 of first", "missing 3 of second"]
    plain = by_name(evaluation.methods)["visible"].mean("AP50")
    assert corrupted["visible"].mean("missing 3 of first") == plain
    assert corrupted["visible"].mean("missing 3 of second") < plain / 2
    assert (output / "corrupted.csv").is_file()


def test_a_frozen_network_judges_every_row_without_a_training(make_run, scenes, tmp_path, steps):
    run = make_run("kept", downstream={"width": 24, "init": "street", "frozen": True})
    del steps[:]
    done = evaluate_task([run], None, tmp_path / "out", baselines=("infrared", "both"), fused={"mine": scenes / "vis"})
    assert steps == []
    assert [method.name for method in done.methods] == ["infrared", "mine", "kept"]
    assert done.methods[-1].mean("AP50") == load_genotype(run).provenance["metrics"]["best"]["mean"]["AP50"]


def test_rows_that_cannot_stand_in_one_table_are_refused_before_anything_is_trained(runs, scenes, copies, tmp_path):
    (tmp_path / "other").mkdir()
    twin = Path(shutil.copytree(runs[0], tmp_path / "other" / "guided"))
    for arguments, options, message in (
        ([runs[2], twin], {}, "the table would have 2 rows guided; rename a run folder"),
        ([runs[2]], {"fused": {"../out": copies}}, r"\.\./out cannot be the name of a row"),
        ([runs[2]], {"fused": {"few": scenes / "boxes"}}, "holds no image"),
        ([runs[2]], {"learning_rates": (0.0,)}, "a learning rate must be above 0"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_task(arguments, None, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_part_that_is_called_like_a_class_is_refused(protocol, scenes, tmp_path):
    root = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    (root / "test-car.txt").write_text("scene_00003")
    with pytest.raises(UserError, match=r"test-car.txt is called like a class, whose score it would hide; rename it"):
        evaluate_task([protocol[1]], root, tmp_path / "out", baselines=())


def test_a_foreign_folder_with_a_list_of_its_test_pairs_alone_is_scored_on_these(runs, tmp_path):
    write_scenes(tmp_path / "far", 4, height=48, width=64, seed=9)
    (tmp_path / "far" / "test.txt").write_text("scene_00000\nscene_00001\nscene_00002")
    done = evaluate_task(runs[:1], tmp_path / "far", tmp_path / "out", baselines=(), fresh=False)
    assert (done.methods[0].records[0].images, done.notes) == (3, [])
    assert any(
        "validation pairs" in note
        for note in evaluate_task(runs[:1], None, tmp_path / "out", baselines=(), fresh=False).notes
    )
