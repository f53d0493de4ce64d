import json

import pytest
import safetensors
import torch
from PIL import Image

import timfuse
from timfuse.genotypes import CellGenotype, Genotype, load_genotype, save_genotype
from timfuse.objectives import FusionLoss
from timfuse.objectives.metrics import BASKET
from timfuse.operators import build_network, count_parameters
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.run_folder import RUN_FILES
from timfuse.runtime.schedules import warmed_cosine
from timfuse.runtime.weights import load_into, load_weights
from timfuse.training import TrainConfig, train, train_recipe
from timfuse.training.first_stage import fuse
from timfuse.training.train_validation import validate

CPU = torch.device("cpu")
SHORT = {"steps": 2, "warmup": 1}


@pytest.fixture
def finished(tiny):
    """The config and the result of one training that has run to its end."""
    config = tiny(seed=7, train={"steps": 25, "validate_every": 10})
    return config, train(config)


@pytest.fixture
def refined(tiny, genotypes, first_stage):
    """The config and the result of one training of a refine network."""
    config = tiny(genotype=str(genotypes / "refine.yaml"), first_stage=str(first_stage))
    return config, train(config)


def files_of(run):
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {".lock"}


def test_run_folder_holds_what_is_promised_and_no_leftovers(curves, finished):
    run = finished[0].run
    pictures = {f"pictures/{name}" for name in ("curves.svg", "curves.png", "examples.png")}
    events = {path.name for path in run.glob("events.out.tfevents.*")}
    weights = {"weights.safetensors", "weights-last.safetensors"}
    assert (
        files_of(run) == {"checkpoint.pt", CONFIG_FILE, "genotype.yaml", "history.jsonl"} | weights | pictures | events
    )
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
    with Image.open(run / "pictures" / "examples.png") as image:
        assert (image.mode, image.size) == ("L", (3 * 128, 128))
    with safetensors.safe_open(run / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": "small"}


def test_overwriting_knows_every_file_of_a_run(curves, refined):
    run = refined[0].run
    known = {path for pattern in RUN_FILES for path in run.glob(pattern)}
    assert {run / name for name in files_of(run)} - known == {run / CONFIG_FILE}


def test_history_has_every_step_and_the_loss_falls(finished):
    config, _ = finished
    rows = read_history(config.run / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(25))
    assert all({"loss", "gradient_norm", "learning_rate"} <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "validation" in row] == [9, 19, 24]
    assert list(rows[9]["validation"]["mean"]) == ["loss", *BASKET]
    losses = [row["loss"] for row in rows]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_best_weights_are_those_of_the_lowest_validation_loss_and_score_what_is_said(finished):
    config, training = finished
    validations = {
        row["step"]: row["validation"] for row in read_history(config.run / "history.jsonl") if "validation" in row
    }
    assert training.best_step == min(validations, key=lambda step: validations[step]["mean"]["loss"])
    assert training.scores["best"] == validations[training.best_step]
    network = build_network(training.genotype)
    load_into(network, config.run / "weights.safetensors")
    sets = config.data.open_pairs("infrared-visible", config.seed).sets
    again = validate(network.eval(), sets, FusionLoss(**config.loss.model_dump()), CPU)
    assert again.scores == training.scores["best"]
    assert list(training.scores) == ["best", "average", "maximum"]


def test_a_worse_validation_does_not_replace_the_best(tiny, monkeypatch):
    losses = iter([0.5, 0.3, 0.4])
    snapshots = []

    def scored(fuse, sets, loss, device, examples=0):
        result = validate(fuse, sets, loss, device, examples)
        result.scores["mean"]["loss"] = next(losses)
        return result

    kept = train_recipe.keep_best
    monkeypatch.setattr(train_recipe, "validate", scored)
    monkeypatch.setattr(
        train_recipe, "keep_best", lambda *arguments: (snapshots.append(arguments[4]), kept(*arguments))
    )
    config = tiny()
    assert train(config).best_step == 7
    assert snapshots == [3, 7]
    best, last = (load_weights(config.run / f"{name}.safetensors") for name in ("weights", "weights-last"))
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_last_weights_are_the_moving_average_at_the_end(finished):
    run = finished[0].run
    saved = load_checkpoint(run / "checkpoint.pt")
    last = load_weights(run / "weights-last.safetensors")
    assert all(torch.equal(tensor, saved["average"][f"module.{name}"]) for name, tensor in last.items())
    assert not all(torch.equal(tensor, saved["network"][name]) for name, tensor in last.items())


def test_the_learning_rate_rises_and_falls_to_a_hundredth(finished):
    config, _ = finished
    rates = [row["learning_rate"] for row in read_history(config.run / "history.jsonl")]
    assert rates == pytest.approx([warmed_cosine(5e-3, step, 25, 3) for step in range(25)])


def test_provenance_says_how_and_from_what(finished):
    config, training = finished
    assert load_genotype(config.run) == training.genotype
    assert load_config(TrainConfig, config.run / CONFIG_FILE) == config
    provenance = training.genotype.provenance
    assert provenance["timfuse"] == timfuse.__version__
    assert provenance["config_hash"] == config_hash(config)
    assert (provenance["seed"], provenance["steps"], provenance["best_step"]) == (7, 25, training.best_step)
    assert provenance["data"] == {"root": "synthetic pairs", "training_pairs": 3, "validation_pairs": 2}
    assert provenance["parameters"] == count_parameters(build_network(training.genotype))
    assert provenance["metrics"] == training.scores
    again = train(config.model_copy(update={"run": config.run.with_name("again"), "genotype": str(config.run)}))
    assert again.genotype.provenance["architecture"] == provenance["architecture"]


def test_the_folder_can_be_used_while_the_training_goes_on(tiny, monkeypatch):
    seen = []
    log = LedRun.log

    def look(run, step, values):
        log(run, step, values)
        if "validation" in values:
            genotype = load_genotype(config.run)
            load_into(build_network(genotype), config.run / "weights.safetensors")
            seen.append(genotype.provenance["best_step"])

    monkeypatch.setattr(LedRun, "log", look)
    config = tiny()
    train(config)
    assert seen[0] == 3


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny):
    configs = [tiny("a"), tiny("b"), tiny("c", seed=1)]
    for config in configs:
        train(config)
    same, again, other = ((config.run / "weights.safetensors").read_bytes() for config in configs)
    assert same == again
    assert same != other


def test_training_starts_from_the_weights_of_init(tiny, finished):
    start = load_weights(finished[0].run / "weights.safetensors")
    still = {**SHORT, "learning_rate": 1e-12, "weight_decay": 0.0}
    for name, init in (("folder", finished[0].run), ("file", finished[0].run / "weights.safetensors")):
        config = tiny(name, train=still, init=str(init))
        train(config)
        weights = load_weights(config.run / "weights-last.safetensors")
        learnt = [key for key in weights if not key.rpartition(".")[2].startswith(("running", "num"))]
        assert all(torch.allclose(weights[key], start[key], atol=1e-9) for key in learnt)


def test_only_the_loss_of_the_config_is_trained(tiny):
    rows = {}
    for name, weight in (("one", 1.0), ("two", 2.0)):
        config = tiny(
            name, train=SHORT, loss=dict.fromkeys(FusionLoss().__dataclass_fields__, 0.0) | {"intensity": weight}
        )
        train(config)
        rows[name] = read_history(config.run / "history.jsonl")[0]["loss"]
    assert rows["two"] == pytest.approx(2 * rows["one"], rel=1e-5)


def test_a_refine_network_trains_behind_a_frozen_first_stage(refined, first_stage):
    config, training = refined
    copy = config.run / "first_stage"
    assert load_genotype(copy) == load_genotype(first_stage)
    assert (copy / "weights.safetensors").read_bytes() == (first_stage / "weights.safetensors").read_bytes()
    first = build_network(load_genotype(copy)).eval()
    load_into(first, copy / "weights.safetensors")
    network = build_network(training.genotype).eval()
    load_into(network, config.run / "weights.safetensors")
    sets = config.data.open_pairs("infrared-visible", config.seed).sets
    loss = FusionLoss(**config.loss.model_dump())
    scores = validate(lambda a, b: network(a, b, first(a, b))[2], sets, loss, CPU).scores
    assert scores == training.scores["best"]
    assert training.genotype.provenance["first_stage"] == str(first_stage)


def test_side_images_count_with_their_weight(tiny, genotypes, first_stage):
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        config = tiny(
            f"run{weight}",
            genotype=str(genotypes / "refine.yaml"),
            first_stage=str(first_stage),
            train={**SHORT, "side_weight": weight},
        )
        train(config)
        losses[weight] = read_history(config.run / "history.jsonl")[0]["loss"]
    assert losses[1.0] > losses[0.0]
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * (losses[1.0] - losses[0.0]), rel=1e-4)


def test_no_gradient_reaches_the_first_stage(genotypes):
    first, network = (build_network(load_genotype(genotypes / f"{name}.yaml")) for name in ("fusion", "refine"))
    fused, *sides = fuse(network, first, *torch.rand(2, 1, 1, 16, 20))
    assert [image.shape for image in (fused, *sides)] == [(1, 1, 16, 20)] * 3
    sum(image.sum() for image in (fused, *sides)).backward()
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_mixed_precision_keeps_the_loss_and_the_weights_in_float32(tiny, genotypes, monkeypatch):
    assert train_recipe._mixed_precision(CPU) is None
    monkeypatch.setattr(train_recipe, "_mixed_precision", lambda device: torch.bfloat16)
    seen = set()
    call = FusionLoss.__call__

    def look(loss, *images):
        seen.update(image.dtype for image in images)
        return call(loss, *images)

    monkeypatch.setattr(FusionLoss, "__call__", look)
    # Operators without a convolution that is special to the CPU, which knows float32 alone.
    cell = CellGenotype("successive", ("channel_attention_k3", "identity"))
    save_genotype(Genotype("plain", "infrared-visible", "fusion", 4, (cell,)), genotypes / "plain.yaml")
    config = tiny(genotype=str(genotypes / "plain.yaml"), train=SHORT)
    train(config)
    assert seen == {torch.float32}
    weights = load_weights(config.run / "weights.safetensors")
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"genotype": "tim_ivif"}, "tim_ivif is a refine network: give first_stage, the run folder of the trained"),
        ({"first_stage": "x"}, "small is no refine network, and so has no first_stage; leave that out"),
        ({"genotype": "nothing"}, "no genotype 'nothing'"),
        ({"init": "nothing.safetensors"}, "no weights file nothing.safetensors; check the path"),
        ({"data": {"root": "nothing"}}, "the data folder nothing does not exist; check the path"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"loss": {"fidelity": 1.0}}, "data.crop = 16 is too small for this loss (a window of"),
        (
            {"train": {**SHORT, "learning_rate": 1e30, "clip": 1e30}},
            "is not finite: nan; lower train.learning_rate or train.clip and start anew with --overwrite",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tiny, content, message):
    with pytest.raises(UserError) as caught:
        train(tiny(**content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_first_stage_must_be_a_trained_fusion_network(tiny, genotypes, refined):
    refine = str(genotypes / "refine.yaml")
    with pytest.raises(UserError, match="holds a refine network; name a fusion network"):
        train(tiny("other", genotype=refine, first_stage=str(refined[0].run)))
    (genotypes / "bare").mkdir()
    (genotypes / "fusion.yaml").rename(genotypes / "bare" / "genotype.yaml")
    with pytest.raises(UserError, match=r"no weights file .*bare/weights\.safetensors; check the path"):
        train(tiny("other", genotype=refine, first_stage=str(genotypes / "bare")))


def test_weights_of_another_network_are_refused_before_anything_is_written(tiny, finished):
    config = tiny("other", genotype="tim_light", init=str(finished[0].run))
    with pytest.raises(UserError, match="these weights belong to another architecture"):
        train(config)
    assert not config.run.exists()


def test_a_run_is_not_overwritten_by_accident(tiny, finished):
    with pytest.raises(UserError, match="holds a run; go on with --resume, replace it with --overwrite"):
        train(tiny())
    train(tiny(train=SHORT), overwrite=True)
    assert len(read_history(finished[0].run / "history.jsonl")) == 2


def test_tensorboard_shows_examples_and_metrics(tiny):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny(train={"images": 2})
    train(config)
    events = accumulator.EventAccumulator(str(config.run))
    events.Reload()
    tags = events.Tags()
    assert len(tags["images"]) == 2
    assert all(tag.startswith("examples/synthetic/scene_") for tag in tags["images"])
    assert [event.step for event in events.Images(tags["images"][0])] == [3, 7, 11]
    assert {"loss", "validation/mean/loss", "validation/mean/VIF"} <= set(tags["scalars"])


def test_the_history_is_plain_json(finished):
    for line in (finished[0].run / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
