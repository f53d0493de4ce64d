"""Finetunings from their config to the run folder, and what is told where they cannot be."""

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors
import torch
import yaml
from PIL import Image

import timfuse
from timfuse.data import make_scene
from timfuse.deploy import load
from timfuse.downstream import build_task_network, load_guiding_detectors, load_task_network
from timfuse.downstream.transformers_network import segformer_tiny
from timfuse.finetune import FinetuneConfig, Finetuning, finetune
from timfuse.finetune.finetune_recipe import _promise
from timfuse.finetune.promise import Promise
from timfuse.finetune.task_validation import rank_of, trivial_losses, validate
from timfuse.genotypes import TASKS, load_genotype, save_genotype
from timfuse.objectives import FusionLoss
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network, count_parameters
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.seeds import derive_seed
from timfuse.runtime.weights import load_into, load_weights, save_weights

from ..tiny_runs import NOTHING

CPU = torch.device("cpu")
STRATEGIES = ("frozen", "joint", "lagrangian", "learned_loss", "detfusion")
LOGGED = {
    "frozen": {"task_loss"},
    "joint": {"task_loss", "fusion_loss"},
    "lagrangian": {"task_loss", "fusion_loss", "excess", "multiplier"},
    "learned_loss": {"task_loss", "fusion_loss", "coefficient", "cosine", "fallback", "weight_of_first"},
    "detfusion": {"task_loss", "fusion_loss", "content", "guidance"},
}
SHORT = {"steps": 2, "warmup": 1, "validate_every": 2}
DETECTION = ["loss", "AP50", "AP75", "mAP"]
CLASSES = ["person", "bicycle", "car"]


@pytest.fixture(scope="module", params=STRATEGIES)
def finished(request, configured, tmp_path_factory):
    """The config and the result of a finetuning by each strategy, from a detector that finds something already."""
    config = configured(
        tmp_path_factory.mktemp(request.param) / "run",
        seed=7,
        guidance={"strategy": request.param},
        downstream={"width": 24, "init": "street", "learning_rate": 1e-5},
        data={"synthetic_pairs": 8, "crop": 48},
    )
    return config, finetune(config)


def files_of(run):
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {".lock", ".written"}


def network_of(run):
    network = build_network(load_genotype(run))
    load_into(network, run / "weights.safetensors")
    return network.eval()


def labelled_pairs(config, labels):
    return config.data.open_pairs("infrared-visible", None, config.seed, minimum_size=32, labels=labels)


def fuse_of(run):
    """Fuse as the run's network does, with the attention of its detectors where it has some."""
    network = network_of(run)
    if not (run / "detectors").is_dir():
        return network
    detectors = load_guiding_detectors(run)
    return lambda first, second: network(first, second, attention=detectors.attention(first, second))


def test_the_run_folder_holds_what_is_promised_and_no_leftovers(finished):
    config, _ = finished
    run = config.run
    events = {path.name for path in run.glob("events.out.tfevents.*")}
    wanted = {"checkpoint.pt", CONFIG_FILE, "genotype.yaml", "history.jsonl", "weights.safetensors"}
    wanted |= {
        "task/specification.yaml",
        "task/weights.safetensors",
        "pictures/examples.png",
        "pictures/curves.svg",
        "pictures/curves.png",
    }
    if config.guidance.strategy == "detfusion":
        wanted |= {"detectors/specification.yaml", "detectors/weights.safetensors"}
    assert files_of(run) == wanted | events
    assert {json.loads(line) for line in (run / ".written").read_text().splitlines()} == {
        name for name in files_of(run) if "tfevents" not in name
    }
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
    with Image.open(run / "pictures" / "examples.png") as image:
        assert image.size == (4 * 128, 128)
    with safetensors.safe_open(run / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": "small"}


def test_the_history_is_plain_and_has_every_step(finished):
    config, _ = finished
    strategy = config.guidance.strategy
    for line in (config.run / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    rows = read_history(config.run / "history.jsonl")
    before = 2 if strategy == "detfusion" else 0
    assert [row["step"] for row in rows] == list(range(before + 4))
    assert all(row.keys() == {"step", "detector_loss", "gradient_norm"} for row in rows[:before])
    assert all(LOGGED[strategy] <= row.keys() for row in rows[before:])
    trained = {"task"} | ({"network"} if strategy != "frozen" else set())
    trained |= {"own"} if strategy == "learned_loss" else set()
    assert all(row["gradient_norm"].keys() == trained for row in rows[before:])
    assert all(row["gradient_norm"].keys() == {"own"} for row in rows[:before])
    assert [row["step"] - before for row in rows if "validation" in row] == [1, 3]
    validation = rows[-1]["validation"]
    assert list(validation["mean"]) == DETECTION
    assert list(validation) == ["mean", *(f"class {name}" for name in CLASSES)]


def test_the_best_weights_are_those_of_the_highest_score_and_have_it(finished):
    config, done = finished
    assert isinstance(done, Finetuning)
    validations = {
        row["step"]: row["validation"] for row in read_history(config.run / "history.jsonl") if "validation" in row
    }
    if done.promise_kept:
        assert done.best_step == max(validations, key=lambda step: (validations[step]["mean"]["AP50"], -step))
        assert done.scores["mean"]["AP50"] > 0
    assert done.scores["mean"] == pytest.approx(validations[done.best_step]["mean"], abs=0)
    pairs = labelled_pairs(config, "boxes")
    loss = FusionLoss(**config.loss.model_dump())
    again = validate(fuse_of(config.run), load_task_network(config.run), pairs, loss, CPU)
    assert again.scores["mean"] == pytest.approx(done.scores["mean"], nan_ok=True, abs=0)


def test_the_run_fuses_as_its_network_does(finished):
    config, _ = finished
    scene = make_scene([5, 0])
    first, second = (torch.from_numpy(image)[None, None] / 255 for image in (scene.first, scene.second))
    with torch.no_grad():
        expected = fuse_of(config.run)(first, second).clamp(0, 1)
    torch.testing.assert_close(load(config.run)(first, second), expected, rtol=0, atol=1e-4)


def test_provenance_says_how_and_from_what(finished):
    config, done = finished
    assert load_genotype(config.run) == done.genotype
    assert load_config(FinetuneConfig, config.run / CONFIG_FILE) == config
    provenance = done.genotype.provenance
    guidance = config.guidance
    assert provenance["timfuse"] == timfuse.__version__
    assert provenance["config_hash"] == config_hash(config)
    assert provenance["data"] == {"root": "synthetic pairs", "training_pairs": 5, "validation_pairs": 3}
    assert provenance["downstream"] == {
        "kind": "detection",
        "network": "compact",
        "init": "street",
        "classes": CLASSES,
    }
    assert (provenance["seed"], provenance["steps"], provenance.get("init")) == (7, 4, None)
    assert provenance["strategy"] == guidance.strategy
    assert provenance.get("images") == ("fused" if guidance.strategy == "frozen" else None)
    assert provenance.get("estimator") == ("gauss_newton" if guidance.strategy == "learned_loss" else None)
    assert provenance["best_step"] == done.best_step
    assert provenance["fusion_loss_before"] == done.fusion_loss_before
    assert provenance.get("promise_kept") is (done.promise_kept if guidance.strategy == "lagrangian" else None)
    assert provenance["parameters"] == count_parameters(build_network(done.genotype))
    assert provenance["metrics"]["best"]["mean"] == done.scores["mean"]


def learnt(weights):
    """All but the statistics of normalisation."""
    return {name: tensor for name, tensor in weights.items() if "running" not in name and "num_batches" not in name}


@pytest.fixture
def started(tiny, tmp_path):
    """A folder with a trained network to start from."""
    genotype = load_genotype(tiny().genotype)
    torch.manual_seed(4)
    network = build_network(genotype)
    save_genotype(genotype, tmp_path / "init" / "genotype.yaml")
    save_weights(tmp_path / "init" / "weights.safetensors", network.state_dict(), {})
    return tmp_path / "init"


@pytest.mark.parametrize("images", ["fused", "first", "second", "average", "blend"])
def test_frozen_leaves_the_network_as_it_was_to_the_bit(tiny, started, images):
    guidance = {"strategy": "frozen", "images": images}
    config = tiny(guidance=guidance, train=SHORT, init=str(started), genotype=None)
    done = finetune(config)
    before, after = (load_weights(folder / "weights.safetensors") for folder in (started, config.run))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert done.scores["mean"]["loss"] == done.fusion_loss_before
    assert done.genotype.provenance["init"] == str(started)
    # The fusion loss is that of the images that the task network sees.
    pairs = labelled_pairs(config, "boxes")
    makes = {
        "fused": network_of(started),
        "first": lambda first, second: first,
        "second": lambda first, second: second,
    }
    make = makes.get(images, lambda first, second: (first + second) / 2)
    with torch.no_grad():
        losses = [
            FusionLoss()(make(batch.first, batch.second), batch.first, batch.second).item()
            for _, batch in pairs.sets[0].validation_pairs(CPU)
        ]
    assert done.scores["mean"]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.rounding
def test_frozen_learns_on_a_folder_of_images(tiny, scenes, tmp_path):
    shutil.copytree(scenes / "ir", tmp_path / "images")
    runs = {}
    for images in ("first", str(tmp_path / "images")):
        config = tiny(
            f"run{len(runs)}",
            guidance={"strategy": "frozen", "images": images},
            data={"root": str(scenes), "crop": 32},
            train=SHORT,
        )
        runs[images] = finetune(config).scores["mean"], (config.run / "task" / "weights.safetensors").read_bytes()
    first, folder = runs.values()
    assert folder[1] == first[1]
    assert folder[0] == pytest.approx(first[0], nan_ok=True)


@pytest.mark.rounding
def test_the_network_starts_from_init_and_learns(tiny, started):
    config = tiny(guidance={"strategy": "joint"}, train=SHORT, init=str(started), genotype=None)
    finetune(config)
    before, after = (learnt(load_weights(folder / "weights.safetensors")) for folder in (started, config.run))
    assert not all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    still = tiny(
        "still", train={**SHORT, "learning_rate": 1e-12, "weight_decay": 0.0}, init=str(started), genotype=None
    )
    finetune(still)
    after = load_weights(still.run / "weights.safetensors")
    assert all(torch.allclose(tensor, after[name], atol=1e-9) for name, tensor in before.items())


def test_the_detectors_of_detfusion_stop_learning_after_the_preparation(tiny):
    """With weight decay and momentum, too, whose traces an optimiser keeps."""
    configs = [
        tiny(name, guidance={"strategy": "detfusion", "detector_steps": 3}, train={**SHORT, "steps": steps})
        for name, steps in (("one", 2), ("two", 6))
    ]
    for config in configs:
        finetune(config)
    one, two = (load_weights(config.run / "detectors" / "weights.safetensors") for config in configs)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert one["first.stem.1.num_batches_tracked"] == 3
    networks = [load_weights(config.run / "weights.safetensors") for config in configs]
    assert not all(torch.equal(tensor, networks[1][name]) for name, tensor in learnt(networks[0]).items())


def test_overwriting_detfusion_with_another_strategy_leaves_no_detectors_behind(tiny):
    finetune(tiny(guidance={"strategy": "detfusion"}, train=SHORT))
    config = tiny(guidance={"strategy": "joint"}, train=SHORT)
    with pytest.raises(UserError, match="holds a run; go on with --resume, replace it with --overwrite"):
        finetune(config)
    finetune(config, overwrite=True)
    assert not (config.run / "detectors").exists()


@pytest.mark.parametrize("strategy", ["joint", "lagrangian", "learned_loss"])
def test_segmentation(tiny, strategy):
    pytest.importorskip("transformers")
    pytest.importorskip("torchmetrics")
    config = tiny(downstream={"kind": "segmentation"}, guidance={"strategy": strategy}, train=SHORT)
    done = finetune(config)
    classes = ["background", "person", "bicycle", "car"]
    assert list(done.scores) == ["mean", *(f"class {name}" for name in classes)]
    assert list(done.scores["mean"]) == ["loss", "mIoU"]
    downstream = {"kind": "segmentation", "network": "segformer-tiny", "init": None, "classes": classes}
    assert done.genotype.provenance["downstream"] == downstream
    pairs = labelled_pairs(config, "masks")
    again = validate(network_of(config.run), load_task_network(config.run), pairs, FusionLoss(), CPU)
    assert again.scores["mean"] == pytest.approx(done.scores["mean"], nan_ok=True, abs=0)


def test_a_network_with_fresh_weights_cannot_keep_the_promise(tiny, capsys):
    # By this loss nothing is better than the maximum.
    config = tiny(guidance={"strategy": "lagrangian"}, loss=NOTHING | {"brighter": 1.0}, train={"steps": 2})
    done = finetune(config)
    assert done.trivial == "maximum"
    assert done.promise.start == done.fusion_loss_before > done.promise.trivial
    assert not done.promise_kept
    pairs, loss = labelled_pairs(config, "boxes"), FusionLoss(**NOTHING | {"brighter": 1.0})
    losses = trivial_losses(pairs, loss, CPU)
    assert (min(losses.values()), losses[done.trivial]) == (done.promise.trivial,) * 2
    assert done.genotype.provenance["fusion_losses_without_network"] == losses
    assert f"no better than the {done.trivial} with {done.promise.trivial:.3f}" in capsys.readouterr().err
    validate_with = {name: validate(fuse, None, pairs, loss, CPU) for name, fuse in TRIVIAL.items()}
    assert done.promise.trivial == min(each.scores["mean"]["loss"] for each in validate_with.values())


def test_methods_without_a_network_that_are_equal_leave_the_excess_finite(tiny):
    state = SimpleNamespace(reference=1.0, trivial={"average": 2.0, "maximum": 2.0})
    promise = _promise(tiny(guidance={"strategy": "lagrangian"}), state)
    assert promise.spread > 0
    assert math.isfinite(promise.excess(1.5))


def test_a_broken_promise_is_told_and_the_closest_weights_are_kept(tiny, capsys):
    config = tiny(
        guidance={"strategy": "lagrangian", "tolerance": 0.0, "multiplier": 0.0, "multiplier_rate": 1e-6},
        train={"learning_rate": 1.0, "steps": 6, "weight_decay": 0.0},
    )
    done = finetune(config)
    losses = {
        row["step"]: row["validation"]["mean"]["loss"]
        for row in read_history(config.run / "history.jsonl")
        if "validation" in row
    }
    assert min(losses.values()) > done.fusion_loss_before
    assert len(set(losses.values())) == 3
    assert done.promise_kept is False
    assert done.genotype.provenance["promise_kept"] is False
    assert done.best_step == min(losses, key=losses.get)
    assert done.scores["mean"]["loss"] == losses[done.best_step]
    errors = capsys.readouterr().err
    assert f"warning: no validation kept the promise; the weights of step {done.best_step} come closest" in errors


@pytest.mark.parametrize(
    ("promise", "scores", "best", "kept"),
    [
        # The fusion loss and AP50 of four validations.
        (Promise(1.0, 2.0, 3.0, 0.05), [(1.2, 0.9), (1.04, 0.3), (1.05, 0.5), (1.06, 0.8)], 2, True),
        (Promise(1.0, 2.0, 3.0, 0.05), [(1.0, 0.5), (0.5, 0.4), (0.9, 0.5), (2.0, 1.0)], 0, True),
        (Promise(1.0, 2.0, 3.0, 0.05), [(1.3, 0.9), (1.1, 0.1), (1.2, 0.8), (1.4, 1.0)], 1, False),
        # A loss has no zero: what counts is the lead over the best method without a network.
        (Promise(-1.0, -0.8, 3.0, 0.25), [(-0.9, 0.9), (-0.96, 0.3), (-1.1, 0.2), (-0.94, 0.8)], 1, True),
        (Promise(-1.0, -0.8, 3.0, 0.25), [(-0.9, 0.9), (-0.8, 0.3), (-0.93, 0.2), (-0.5, 0.8)], 2, False),
        (None, [(1.2, 0.5), (1.0, 0.4), (9.0, 0.6), (0.9, 0.6)], 2, True),
    ],
)
def test_the_best_score_highest_among_those_that_keep_the_promise(promise, scores, best, kept):
    if promise is not None:  # 1.05 is as much as the promise allows, but for rounding
        promise = replace(promise, tolerance=promise.tolerance + 1e-9)
    ranks = [rank_of({"loss": loss, "AP50": score}, "AP50", promise) for loss, score in scores]
    assert ranks.index(max(ranks)) == best
    assert max(ranks)[0] is kept


def test_without_a_downstream_task_the_least_fusion_loss_is_best():
    assert rank_of({"loss": 0.5}, None, None) > rank_of({"loss": 0.6}, None, None)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_finetuned_for_the_fusion_alone(tiny, task):
    config = tiny(downstream=None, guidance={"strategy": None}, task=task, train=SHORT, loss=None)
    done = finetune(config)
    assert done.genotype.task == task
    assert list(done.scores) == ["mean"]
    assert list(done.scores["mean"]) == ["loss"]
    assert not (config.run / "task").exists()
    rows = read_history(config.run / "history.jsonl")
    assert all({"fusion_loss", "gradient_norm"} <= row.keys() for row in rows)
    assert load(config.run).name == "small"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny):
    configs = [tiny("a"), tiny("b", data={"workers": 1}), tiny("c", seed=1)]
    for config in configs:
        finetune(config)
    for name in ("weights.safetensors", "task/weights.safetensors"):
        same, again, other = ((config.run / name).read_bytes() for config in configs)
        assert same == again
        assert same != other


def test_weight_decay_shrinks_the_kernels_of_the_task_network_and_no_bias_or_norm(tiny):
    train = {"steps": 1, "warmup": 0, "validate_every": 1}
    weights = {}
    for decay in (0.0, 10.0):
        config = tiny(f"decay-{decay:g}", downstream={"weight_decay": decay}, train=train)
        finetune(config)
        weights[decay] = load_weights(config.run / "task" / "weights.safetensors")
    for name, plain in weights[0.0].items():
        assert torch.equal(plain, weights[10.0][name]) == (plain.ndim <= 1), name


def test_learning_rates_warm_up_and_fall_by_group(tiny, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def look(optimizer, *arguments):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    guidance = {"strategy": "learned_loss", "loss_learning_rate": 3e-4}
    finetune(tiny(guidance=guidance, train={"steps": 10, "warmup": 2, "validate_every": 10}))
    network, kernels, others, own = zip(*rates, strict=True)
    assert max(network) == pytest.approx(5e-3, rel=0.1)
    assert network[0] < network[1] <= network[2]
    assert network[-1] < 0.1 * max(network)
    assert kernels == others == network  # whose largest rate is the same here
    assert [rate / 3e-4 for rate in own] == pytest.approx([rate / 5e-3 for rate in network])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"genotype": None}, "give either init, a trained network to start from, or genotype"),
        ({"init": "ivif-fast"}, "give either init, a trained network to start from, or genotype"),
        ({"genotype": "tim_ivif"}, "tim_ivif is a refine network; finetuning is for fusion networks"),
        ({"genotype": "nothing"}, "no genotype 'nothing'"),
        ({"genotype": None, "init": "nothing"}, "no network 'nothing'"),
        ({"data": {"root": "nothing"}}, "the data folder nothing does not exist; check the path"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"downstream": {"network": "segformer-tiny"}}, "downstream.network = segformer-tiny is not for detection"),
        ({"downstream": {"init": "stret"}}, "no task network 'stret' (did you mean 'street'?): give the folder"),
        ({"downstream": {"init": "street", "width": 16}}, "set downstream.width to 24"),
        (
            {"guidance": {"strategy": "frozen", "images": "nowhere"}},
            "the folder of fused images nowhere does not exist; check the path",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_written(tiny, content, message):
    config = tiny(**content)
    with pytest.raises(UserError) as caught:
        finetune(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loss_that_is_not_finite_is_one_line(tiny, strategy):
    huge = {"learning_rate": 1e30, "clip": 1e30, "steps": 8}
    with pytest.raises(UserError) as caught:
        finetune(tiny(guidance={"strategy": strategy}, train=huge, downstream={"learning_rate": 1e30}))
    assert "is not finite: " in str(caught.value)
    assert str(caught.value).endswith(
        "; lower train.learning_rate or train.clip, or downstream.learning_rate and start anew with --overwrite"
    )
    assert "\n" not in str(caught.value)


def test_a_task_loss_that_is_not_finite_keeps_the_multiplier_before_it(tiny):
    """By the fusion loss, which is finite, the multiplier would have ascended."""
    guidance = {"strategy": "lagrangian", "tolerance": 0.0, "multiplier": 0.5, "multiplier_rate": 20.0}
    huge = {"steps": 8, "clip": 1e30, "validate_every": 8}
    config = tiny(guidance=guidance, train=huge, downstream={"learning_rate": 1e30})
    with pytest.raises(UserError, match=r"the (task loss|gradient of the task) is not finite"):
        finetune(config)
    state = load_checkpoint(config.run / "checkpoint.pt")["state"]
    rows, multiplier = read_history(config.run / "history.jsonl"), 0.5
    for row in rows:
        multiplier = max(0.0, multiplier + 20.0 * row["excess"])
    assert state["step"] == len(rows) > 0
    assert state["strategy"]["multiplier"] == pytest.approx(multiplier, rel=1e-9)


def test_validation_pairs_without_any_object_are_told(tiny, scenes, tmp_path):
    root = tmp_path / "empty"
    shutil.copytree(scenes, root)
    for name in (root / "val.txt").read_text().split():
        (root / "boxes" / f"{name}.txt").write_text("")
    with pytest.raises(UserError, match=r"the validation pairs have no labels to be scored by; give others"):
        finetune(tiny(data={"root": str(root), "crop": 32}, train=SHORT))


def test_tensorboard_shows_examples_and_scores(tiny):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny(train={"images": 2})
    finetune(config)
    events = accumulator.EventAccumulator(str(config.run))
    events.Reload()
    tags = events.Tags()
    assert len(tags["images"]) == 2
    assert all(tag.startswith("examples/synthetic/scene_") for tag in tags["images"])
    assert {"task_loss", "fusion_loss", "validation/mean/loss", "validation/mean/AP50"} <= set(tags["scalars"])


def test_one_thing_at_a_time_is_written_in_yaml_that_a_person_reads(tiny):
    config = tiny(guidance={"strategy": "lagrangian"}, train=SHORT)
    finetune(config)
    content = yaml.safe_load((config.run / CONFIG_FILE).read_text())
    assert content["guidance"]["tolerance"] == 0.1
    assert yaml.safe_load((config.run / "task" / "specification.yaml").read_text())["kind"] == "compact-detector"


def test_robust_training_sees_other_pairs_and_resumes_to_the_bit(tiny):
    """The corruptions of a step follow from the seed and the step alone."""
    guidance = {"strategy": "joint", "robust": ["noise", "missing"]}
    plain, robust = tiny("plain", guidance={"strategy": "joint"}), tiny("robust", guidance=guidance)
    finetune(plain)
    finetune(robust)
    rows, others = (read_history(config.run / "history.jsonl") for config in (plain, robust))
    assert [row["task_loss"] for row in rows] != [row["task_loss"] for row in others]
    again = tiny("again", guidance=guidance, train={"steps": 4})
    finetune(again)
    assert [row["task_loss"] for row in read_history(again.run / "history.jsonl")] == [
        row["task_loss"] for row in others
    ]


def test_a_frozen_task_network_guides_and_stays_as_it_is(tiny):
    """Only the fusion network learns; its image is in colour where the task network sees colours."""
    before = build_task_network("detection", "compact", CLASSES, width=24, init="street", channels=3).state_dict()
    downstream = {"width": 24, "init": "street", "frozen": True, "colour": True}
    config = tiny(downstream=downstream, guidance={"strategy": "joint"})
    finetune(config)
    kept = load_task_network(config.run)
    assert kept.channels == 3
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in before.items())
    torch.manual_seed(derive_seed(config.seed, "fusion network"))
    start = build_network(load_genotype(config.genotype)).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in network_of(config.run).state_dict().items())


def test_a_frozen_network_knows_the_classes(tiny, tmp_path):
    pytest.importorskip("transformers")
    segformer_tiny(["Background", "tree"]).model.save_pretrained(tmp_path / "saved")
    downstream = {"kind": "segmentation", "network": str(tmp_path / "saved"), "frozen": True}
    config = tiny(downstream=downstream, guidance={"strategy": "joint"})
    with pytest.raises(UserError, match=r"does not know the classes .*car.*; give data with its classes") as caught:
        finetune(config)
    assert "background" not in str(caught.value)
    assert not config.run.exists()
