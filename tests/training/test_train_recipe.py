"""A training: what it writes, that its steps are those of the formulas, and what it refuses."""

import json

import pytest
import safetensors
import torch
from PIL import Image

import timfuse
from timfuse.genotypes import CellGenotype, Genotype, load_genotype, save_genotype
from timfuse.objectives import FusionLoss
from timfuse.objectives.metrics import BASKET
from timfuse.operators import build_network, count_parameters, load_network_folder
from timfuse.runtime.averaging import moving_average
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.schedules import warmed_cosine
from timfuse.runtime.weights import load_weights
from timfuse.training import TrainConfig, train
from timfuse.training.first_stage import FirstStage, load_first_stage, run_stages
from timfuse.training.train_validation import validate

CPU = torch.device("cpu")


def files_of(run):
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {".lock", ".written"}


def state_of(run):
    return load_checkpoint(run / "checkpoint.pt")["state"]


def pairs_of(config):
    return config.data.open_pairs("infrared-visible", None, config.seed)


def batch_of(config):
    """The batch of the first step."""
    data = config.data
    settings = {"batch_size": data.batch_size, "crop": data.crop, "seed": config.seed, "scale": data.scale}
    (batch,) = pairs_of(config).batches("train", 0, 1, **settings)
    return batch


def loss_of(config):
    return FusionLoss(**config.loss.model_dump())


def network_of(run):
    return load_network_folder(run)[1].eval()


def test_run_folder_holds_what_is_promised_and_no_leftovers(finished):
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


def test_overwriting_knows_every_file_of_a_run(refined):
    run = refined[0].run
    assert {json.loads(line) for line in (run / ".written").read_text().splitlines()} == {
        name for name in files_of(run) if "tfevents" not in name
    }


def test_history_has_every_step_and_the_loss_falls(finished):
    config, _ = finished
    rows = read_history(config.run / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(25))
    assert all({"loss", "gradient_norm", "learning_rate"} <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "validation" in row] == [9, 19, 24]
    assert list(rows[9]["validation"]["mean"]) == ["loss", *BASKET]
    losses = [row["loss"] for row in rows]
    # 0.41 to 0.86 over five seeds, whose crops differ.
    assert sum(losses[-8:]) < 0.95 * sum(losses[:8])
    for line in (config.run / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_best_weights_are_those_of_the_lowest_validation_loss_and_score_what_is_said(finished):
    config, training = finished
    validations = {
        row["step"]: row["validation"] for row in read_history(config.run / "history.jsonl") if "validation" in row
    }
    assert training.best_step == min(validations, key=lambda step: validations[step]["mean"]["loss"])
    assert training.scores["best"] == validations[training.best_step]
    again = validate(network_of(config.run), pairs_of(config).sets, loss_of(config), CPU)
    assert again.scores == training.scores["best"]
    assert list(training.scores) == ["best", "average", "maximum", "laplacian"]


def test_a_worse_validation_does_not_replace_the_best(tiny, finished):
    # Decay that takes a fiftieth of every weight in each step spoils a network that has been trained.
    spoilt = {"warmup": 0, "learning_rate": 1e-4, "weight_decay": 200.0, "ema": 0.0, "validate_every": 1, "steps": 6}
    config = tiny(init=str(finished[0].run), train=spoilt)
    training = train(config)
    rows = read_history(config.run / "history.jsonl")
    losses = [row["validation"]["mean"]["loss"] for row in rows]
    assert losses[-1] > min(losses)
    assert training.best_step == losses.index(min(losses)) < 5
    best, last = (load_weights(config.run / f"{name}.safetensors") for name in ("weights", "weights-last"))
    assert not all(torch.equal(best[name], last[name]) for name in best)
    assert training.scores["best"] == rows[training.best_step]["validation"]
    assert load_genotype(config.run).provenance["metrics"]["best"] == training.scores["best"]


def test_last_weights_are_the_moving_average_at_the_end(finished):
    run = finished[0].run
    state, last = state_of(run), load_weights(run / "weights-last.safetensors")
    assert all(torch.equal(tensor, state["average"][f"module.{name}"]) for name, tensor in last.items())
    assert not all(torch.equal(tensor, state["network"][name]) for name, tensor in last.items())


def test_the_learning_rate_rises_and_falls_to_a_hundredth(finished):
    config, _ = finished
    rates = [row["learning_rate"] for row in read_history(config.run / "history.jsonl")]
    assert rates == pytest.approx([warmed_cosine(5e-3, step, 25, 3) for step in range(25)])
    (group,) = state_of(config.run)["optimizer"]["param_groups"]
    assert group["lr"] == rates[-1]


def test_provenance_says_how_and_from_what(finished, refined):
    config, training = finished
    assert load_genotype(config.run) == training.genotype
    assert load_config(TrainConfig, config.run / CONFIG_FILE) == config
    provenance = training.genotype.provenance
    assert (provenance["timfuse"], provenance["stage"]) == (timfuse.__version__, "train")
    assert provenance["config_hash"] == config_hash(config)
    assert (provenance["seed"], provenance["steps"], provenance["best_step"]) == (7, 25, training.best_step)
    assert provenance["data"] == {"root": "synthetic pairs", "training_pairs": 3, "validation_pairs": 2}
    assert provenance["parameters"] == count_parameters(build_network(training.genotype))
    assert provenance["metrics"] == training.scores
    assert refined[1].genotype.provenance["first_stage"] == str(config.run)


def test_a_step_is_that_of_the_formulas(tiny, finished):
    """The loss and its gradient, which is clipped; the first step of AdamW; the moving average after it."""
    clip, rate, decay = 1e-3, 5e-3, 0.1
    config = tiny(
        genotype=str(finished[0].run),
        init=str(finished[0].run),
        train={"steps": 1, "warmup": 0, "clip": clip, "weight_decay": decay, "learning_rate": rate},
        loss={"intensity": 2.0, "gradient": 0.3},
    )
    trained = train(config).genotype
    assert trained.provenance["init"] == str(finished[0].run)
    assert trained.provenance["architecture"] == finished[1].genotype.provenance["architecture"]
    network, batch = network_of(finished[0].run).train(), batch_of(config)
    average = moving_average(network, config.train.ema)
    loss = loss_of(config)(network(batch.first, batch.second), batch.first, batch.second)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    (row,) = read_history(config.run / "history.jsonl")
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert norm > 10 * clip

    state = state_of(config.run)
    averages = [state["optimizer"]["state"][place]["exp_avg"] for place in range(len(gradients))]
    assert torch.stack([each.norm() for each in averages]).norm().item() == pytest.approx(0.1 * clip, rel=1e-3)
    for gradient, each in zip(gradients, averages, strict=True):
        torch.testing.assert_close(each, 0.1 * gradient * clip / norm, rtol=1e-3, atol=1e-8)
    with torch.no_grad():
        for parameter, each in zip(network.parameters(), averages, strict=True):
            parameter.mul_(1 - rate * decay).sub_(rate * 10 * each / (10 * each.abs() + 1e-8))
    average.update_parameters(network)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(state["network"][name], tensor, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(state["average"][f"module.{name}"], average.module.state_dict()[name])


def test_the_side_images_of_a_refine_network_count_with_their_weight(tiny, refining, refined):
    config = tiny(**refining, init=str(refined[0].run), train={"steps": 1, "warmup": 0, "side_weight": 3.0})
    train(config)
    network, batch = network_of(refined[0].run).train(), batch_of(config)
    first_stage = load_first_stage(refined[0].run / "first_stage")
    fused, first, second = run_stages(network, first_stage, batch.first, batch.second)
    sides = (first - batch.first).abs().mean() + (second - batch.second).abs().mean()
    loss = loss_of(config)(fused, batch.first, batch.second) + 3.0 * sides
    (row,) = read_history(config.run / "history.jsonl")
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_zoomed_pairs_are_trained_on(tiny, finished):
    start = {"init": str(finished[0].run), "genotype": str(finished[0].run), "train": {"steps": 1, "warmup": 0}}
    config = tiny(**start, data={"scale": (0.4, 0.5)}, loss={"intensity": 1.0})
    train(config)
    network, batch = network_of(finished[0].run).train(), batch_of(config)
    assert not torch.equal(batch.first, batch_of(finished[0]).first)
    loss = loss_of(config)(network(batch.first, batch.second), batch.first, batch.second)
    (row,) = read_history(config.run / "history.jsonl")
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_another_seed_gives_other_weights_and_batches(tiny, finished):
    config = tiny(seed=8, train={"steps": 1, "warmup": 0})
    train(config)
    losses = [read_history(run / "history.jsonl")[0]["loss"] for run in (config.run, finished[0].run)]
    assert losses[0] != losses[1]
    assert not torch.equal(batch_of(config).first, batch_of(finished[0]).first)


def test_a_refine_network_trains_behind_a_frozen_first_stage(refined, finished):
    config, training = refined
    copy = config.run / "first_stage"
    assert load_genotype(copy) == load_genotype(finished[0].run)
    assert (copy / "weights.safetensors").read_bytes() == (finished[0].run / "weights.safetensors").read_bytes()
    first, network = network_of(copy), network_of(config.run)
    sets = pairs_of(config).sets
    scores = validate(lambda a, b: network(a, b, first(a, b))[2], sets, loss_of(config), CPU).scores
    assert scores == training.scores["best"]


def test_no_gradient_reaches_the_first_stage(networks):
    genotypes = [load_genotype(networks / f"{name}.yaml") for name in ("fusion", "refine")]
    first, network = (build_network(genotype) for genotype in genotypes)
    fused, *sides = run_stages(network, FirstStage(genotypes[0], first), *torch.rand(2, 1, 1, 16, 20))
    assert [image.shape for image in (fused, *sides)] == [(1, 1, 16, 20)] * 3
    sum(image.sum() for image in (fused, *sides)).backward()
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_mixed_precision_keeps_the_loss_and_the_weights_in_float32(tiny):
    losses = {}
    for precision in ("float32", "auto"):
        config = tiny(precision, device="cuda", train={"steps": 2, "warmup": 1, "precision": precision})
        train(config)
        losses[precision] = read_history(config.run / "history.jsonl")[0]["loss"]
        weights = load_weights(config.run / "weights.safetensors")
        assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}
    assert losses["auto"] != losses["float32"]
    assert losses["auto"] == pytest.approx(losses["float32"], rel=0.05)


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
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_written(tiny, content, message):
    config = tiny(**content)
    with pytest.raises(UserError) as caught:
        train(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


def test_a_loss_that_is_not_finite_is_one_line(tiny):
    config = tiny(train={"steps": 3, "warmup": 0, "learning_rate": 1e30, "clip": 1e30, "validate_every": 9})
    with pytest.raises(UserError, match=r"^step \d: .* is not finite: .*; lower train\.learning_rate or train\.clip"):
        train(config)
    assert state_of(config.run)["step"] == len(read_history(config.run / "history.jsonl"))


def test_a_first_stage_must_be_a_trained_fusion_network(tiny, networks, refining, refined, tmp_path):
    with pytest.raises(UserError, match="holds a refine network; name a fusion network"):
        train(tiny(**refining | {"first_stage": str(refined[0].run)}))
    bare = tmp_path / "bare"
    save_genotype(load_genotype(networks / "fusion.yaml"), bare / "genotype.yaml")
    with pytest.raises(UserError, match=r"no weights file .*bare/weights\.safetensors; check the path"):
        train(tiny(**refining | {"first_stage": str(bare)}))


def test_weights_of_another_network_are_refused_before_anything_is_written(tiny, finished, tmp_path):
    cell = CellGenotype("successive", ("residual_k3_d1",))
    save_genotype(Genotype("other", "infrared-visible", "fusion", 4, (cell,)), tmp_path / "other.yaml")
    for init in (finished[0].run, finished[0].run / "weights.safetensors"):
        config = tiny(genotype=str(tmp_path / "other.yaml"), init=str(init))
        with pytest.raises(UserError, match="these weights belong to another architecture"):
            train(config)
        assert not config.run.exists()


def test_tensorboard_shows_examples_and_metrics(finished):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(finished[0].run))
    events.Reload()
    tags = events.Tags()
    (example,) = tags["images"]
    assert example.startswith("examples/synthetic/scene_")
    assert [event.step for event in events.Images(example)] == [9, 19, 24]
    assert {"loss", "validation/mean/loss", "validation/mean/VIF"} <= set(tags["scalars"])


@pytest.mark.parametrize(("genotype", "told"), [("ivif-fast", 1), ("tim_light", 0)])
def test_a_network_that_sees_beyond_its_crops_is_told_once(tiny, capsys, genotype, told):
    train(tiny(genotype=genotype, train={"steps": 1, "warmup": 0}))
    assert capsys.readouterr().err.count(f"warning: {genotype} sees") == told
