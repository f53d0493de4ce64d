"""A meta-initialisation: what it writes, that its steps are those of the formulas, and what it refuses."""

import json
import math
from functools import partial

import pytest
import safetensors
import torch
from PIL import Image

import timfuse
from timfuse.bilevel import META_GRADIENTS, adapt
from timfuse.deploy import load
from timfuse.genotypes import load_genotype
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.meta_init.episodes import EpisodeStream
from timfuse.meta_init.meta_init_conclusion import SHOWN_STEPS
from timfuse.meta_init.meta_init_config import LEARN_RATES
from timfuse.meta_init.meta_init_setup import EPISODES
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates, plain_adaptation
from timfuse.meta_init.trials import adaptation_curve, make_trials, pair_loss
from timfuse.operators import build_network, count_parameters, load_network_folder
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.weights import load_weights

from ..tiny_runs import NOTHING
from .conftest import ONE_TASK

CPU = torch.device("cpu")
ONE_STEP = {"pretrain": 0, "steps": 1, "warmup": 0}
TRAINED = ("infrared-visible", "mri-ct", "thermal")


def files_of(run):
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {".lock", ".written"}


def state_of(run):
    return load_checkpoint(run / "checkpoint.pt")["state"]


def rows_of(config):
    return read_history(config.run / "history.jsonl")


def tasks_of(config):
    return [config.data.open_task(name, section, config.seed) for name, section in config.used_tasks.items()]


def trials_of(config, steps):
    data = config.data
    sizes = {"support": data.support, "query": data.query, "crop": data.crop}
    return make_trials(tasks_of(config), **sizes, steps=steps, episodes=EPISODES, seed=config.seed, device=CPU)


def test_run_folder_holds_what_is_promised_and_no_leftovers(finished):
    run = finished[0].run
    pictures = {f"pictures/{name}.{form}" for name in ("adaptation", "curves") for form in ("svg", "png")}
    events = {path.name for path in run.glob("events.out.tfevents.*")}
    files = {"checkpoint.pt", CONFIG_FILE, "genotype.yaml", "history.jsonl", "rates.yaml"}
    assert files_of(run) == files | {"weights.safetensors", "weights-last.safetensors"} | pictures | events
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
    with safetensors.safe_open(run / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": "small"}
    assert {json.loads(line) for line in (run / ".written").read_text().splitlines()} == {
        name for name in files_of(run) if "tfevents" not in name
    }


def test_history_has_every_step_and_the_loss_falls(finished):
    config, _ = finished
    rows = rows_of(config)
    assert [row["step"] for row in rows] == list(range(25))
    for row in rows:
        assert {"loss", "query", "support", "gradient_norm", "rate", "learning_rate"} <= row.keys()
        # The task of weight zero is not trained on, and weights are relative.
        assert tuple(row["query"]) == tuple(row["support"]) == TRAINED
        weighted = sum(weight * row["query"][name] for name, weight in zip(TRAINED, (1, 0.5, 1), strict=True)) / 2.5
        assert row["loss"] == pytest.approx(weighted, rel=1e-5)
        # In the plain part there is no support batch.
        assert all((value is None) == (row["step"] < 10) for value in row["support"].values())
    assert [row["step"] for row in rows if "validation" in row] == [9, 15, 21, 24]
    assert sum(row["loss"] for row in rows[-5:]) < 0.9 * sum(row["loss"] for row in rows[:5])
    for line in (config.run / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_learning_rates_rise_and_fall_in_each_part(finished):
    config, _ = finished
    rates = [row["learning_rate"] for row in rows_of(config)]
    for part in (rates[:10], rates[10:]):
        assert part[0] == part[1] == config.meta.learning_rate  # a warm-up of one step
        assert part[1:] == sorted(part[1:], reverse=True)
        assert part[-1] == pytest.approx(config.meta.learning_rate / 100)


def test_the_rates_begin_to_be_learnt_as_if_there_had_been_no_pretraining(finished):
    config, done = finished
    state = state_of(config.run)
    *weights, rates = state["optimizer"]["state"].values()
    assert {each["step"].item() for each in weights} == {25}
    assert rates["step"] == 15
    assert len({row["rate"] for row in rows_of(config)[:10]}) == 1
    log_rates = state["log_rates"]
    assert len(set(log_rates.tolist())) > 1
    layers = adapting_layers(build_network(done.genotype), None)
    assert len(layers) == len(log_rates)


def test_validations_are_the_adaptation_curves_of_all_tasks(finished):
    config, done = finished
    validations = {row["step"]: row["validation"] for row in rows_of(config) if "validation" in row}
    for scores in validations.values():
        assert list(scores) == ["mean", *config.used_tasks]
        assert all(list(scores[name]) == ["after 0", "after 1", "after 2"] for name in config.used_tasks)
        ends = {name: (scores[name]["after 1"] + scores[name]["after 2"]) / 2 for name in TRAINED}
        mean = (ends["infrared-visible"] + 0.5 * ends["mri-ct"] + ends["thermal"]) / 2.5
        assert scores["mean"]["loss"] == pytest.approx(mean, rel=1e-6)
    assert done.best_step == min(validations, key=lambda step: validations[step]["mean"]["loss"])
    # From what the folder holds, the same curves come again.
    _, network = load_network_folder(config.run)
    layers = adapting_layers(network, None)
    adaptation = adaptation_of(layers, load_rates(config.run, layers), config.inner.optimizer)
    for trial in trials_of(config, 2):
        expected = validations[done.best_step][trial.task.name]
        again = {f"after {n}": value for n, value in adaptation_curve(network, adaptation, trial, (0, 1, 2)).items()}
        assert again == expected


def test_the_end_compares_with_random_weights_that_adapt_plainly(finished):
    config, done = finished
    torch.manual_seed(config.seed)
    network = build_network(load_genotype(config.genotype))
    for trial in trials_of(config, SHOWN_STEPS[-1])[:1]:
        curve = adaptation_curve(network, plain_adaptation(network), trial, SHOWN_STEPS)
        assert done.fresh[trial.task.name] == curve
        assert list(done.curves[trial.task.name]) == list(SHOWN_STEPS)


@pytest.fixture(scope="module")
def spoilt(configured, tmp_path_factory):
    """The config and the result of a run whose episodes spoil what its plain part has learnt."""
    meta = {"pretrain": 12, "steps": 2, "warmup": 1, "learning_rate": 1.0, "validate_every": 2}
    run = tmp_path_factory.mktemp("runs") / "spoilt"
    config = configured(run, tasks=ONE_TASK, meta=meta, inner={"learn_rates": False})
    return config, meta_initialise(config)


def test_a_worse_validation_does_not_replace_the_best(spoilt):
    config, done = spoilt
    losses = {row["step"]: row["validation"]["mean"]["loss"] for row in rows_of(config) if "validation" in row}
    assert list(losses) == [11, 13]
    assert losses[13] > 1.2 * losses[11]
    assert done.best_step == 11
    best, last = (load_weights(config.run / f"{name}.safetensors") for name in ("weights", "weights-last"))
    assert not all(torch.equal(best[name], last[name]) for name in best)
    saved = state_of(config.run)["network"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in last.items())


def test_provenance_says_how_and_from_what(finished, folders):
    config, done = finished
    assert load_genotype(config.run) == done.genotype
    assert load_config(MetaInitConfig, config.run / CONFIG_FILE) == config
    provenance = done.genotype.provenance
    assert (provenance["timfuse"], provenance["stage"]) == (timfuse.__version__, "meta-init")
    assert provenance["config_hash"] == config_hash(config)
    assert (provenance["seed"], provenance["algorithm"], provenance["best_step"]) == (7, "fomaml", done.best_step)
    # Of training pairs, for what is trained on.
    assert provenance["data"] == {"root": [str(folders)], "infrared-visible": 8, "mri-ct": 10, "thermal": 6}
    assert provenance["parameters"] == count_parameters(build_network(done.genotype))
    assert provenance["metrics"]["best"]["mri-ct"]["after 2"] == done.curves["mri-ct"][2]


def test_what_comes_out_fuses_and_can_be_started_from(tiny, finished):
    config, done = finished
    fused = load(config.run, "cpu")(*torch.rand(2, 1, 21, 23))
    assert fused.shape == (1, 21, 23)
    still = {**ONE_STEP, "learning_rate": 1e-12, "rate_learning_rate": 1e-12}
    again = tiny(genotype=str(config.run), init=str(config.run), tasks=ONE_TASK, meta=still)
    provenance = meta_initialise(again).genotype.provenance
    assert provenance["architecture"] == done.genotype.provenance["architecture"]
    start, end = load_weights(config.run / "weights.safetensors"), load_weights(again.run / "weights-last.safetensors")
    learnt = [name for name, _ in build_network(done.genotype).named_parameters()]
    assert all(torch.allclose(end[name], start[name], atol=1e-9) for name in learnt)


@pytest.mark.rounding
@pytest.mark.parametrize("algorithm", META_GRADIENTS)
def test_every_algorithm_learns_to_adapt_and_its_rates_where_their_gradient_is_known(tiny, algorithm):
    # The best of several validations, since the last one alone hangs on rounding in imaml.
    meta = {"pretrain": 0, "steps": 20, "warmup": 2, "validate_every": 4, "learning_rate": 1e-2}
    config = tiny(tasks=ONE_TASK, meta={**meta, "algorithm": algorithm, "rate_learning_rate": 0.01})
    done = meta_initialise(config)
    assert done.curves["infrared-visible"][2] < 0.85 * done.fresh["infrared-visible"][2]
    log_rates, start = state_of(config.run)["log_rates"], math.log(config.inner.learning_rate)
    # But for a bias before batch normalisation, which has no gradient.
    moved = (log_rates - start).abs() > 1e-4
    if algorithm in LEARN_RATES:
        assert moved.sum() > len(moved) / 2
    else:
        assert not moved.any()


@pytest.fixture
def first_step(tiny, finished):
    """A function that makes the first step from the finished run; returns config, its start, episodes and state."""

    def make(meta, **sections):
        config = tiny(init=str(finished[0].run), meta={**ONE_STEP, **meta}, **sections)
        meta_initialise(config)
        tasks, data = tasks_of(config), config.data
        sizes = {"support": data.support, "query": data.query, "crop": data.crop, "steps": config.episode_steps}
        stream = EpisodeStream(tasks, **sizes, seed=config.seed)
        network = load_network_folder(finished[0].run)[1]
        return config, network, list(zip(tasks, stream[0], strict=True)), state_of(config.run)

    return make


def assert_means(config, state, gradients, statistics):
    """Compare with the weighted means over the tasks of what the state holds after the first step."""

    def mean(one, other):
        return (one + 0.5 * other) / 1.5

    averages = state["optimizer"]["state"]
    for place, pair in enumerate(zip(*gradients, strict=True)):
        torch.testing.assert_close(10 * averages[place]["exp_avg"], mean(*pair), rtol=1e-4, atol=1e-7)
    found = [tensor for name, tensor in state["network"].items() if "running" in name]
    for tensor, pair in zip(found, zip(*statistics, strict=True), strict=True):
        torch.testing.assert_close(tensor, mean(*pair), rtol=1e-5, atol=1e-7)
    return averages


def test_gradients_and_statistics_are_the_weighted_means_over_the_tasks(first_step):
    """By FOMAML: the gradient of the query loss at the adapted weights, and the statistics of the support batches."""
    config, start, episodes, state = first_step({"clip": 1e9})
    gradients, statistics, queries = [], [], []
    for task, episode in episodes:
        network = build_network(load_genotype(config.genotype))
        network.load_state_dict(start.state_dict())
        layers = adapting_layers(network, None)
        rates = torch.full((len(layers),), config.inner.learning_rate)
        optimizer = adaptation_of(layers, rates, config.inner.optimizer).build_optimizer()
        adapt(network.train(), partial(pair_loss, task.loss), episode.support, optimizer)
        statistics.append([buffer.clone() for name, buffer in network.named_buffers() if "running" in name])
        query = pair_loss(task.loss, network, episode.query)
        gradients.append(torch.autograd.grad(query, list(network.parameters())))
        queries.append(query.item())
    averages = assert_means(config, state, gradients, statistics)
    assert averages[len(gradients[0])]["step"] == 1  # that of the rates
    (row,) = rows_of(config)
    assert list(row["query"].values()) == pytest.approx(queries, rel=1e-5)
    norm = torch.stack([10 * averages[place]["exp_avg"].norm() for place in range(len(gradients[0]))]).norm().item()
    assert row["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_pooled_is_plain_training_by_clipped_gradients(first_step):
    clip = 1e-3
    config, start, episodes, state = first_step({"algorithm": "pooled", "clip": clip})
    gradients, statistics = [], []
    for task, episode in episodes:
        network = build_network(load_genotype(config.genotype))
        network.load_state_dict(start.state_dict())
        gradients.append(
            torch.autograd.grad(pair_loss(task.loss, network.train(), episode.query), list(network.parameters()))
        )
        statistics.append([buffer.clone() for name, buffer in network.named_buffers() if "running" in name])
    (row,) = rows_of(config)
    assert row["gradient_norm"] > clip
    clipped = [[gradient * clip / row["gradient_norm"] for gradient in each] for each in gradients]
    assert_means(config, state, clipped, statistics)
    assert len(set(state["log_rates"].tolist())) == 1


def test_rates_stay_where_they_are_not_to_be_learnt(spoilt):
    config, log_rates = spoilt[0], state_of(spoilt[0].run)["log_rates"]
    assert torch.equal(log_rates, torch.full_like(log_rates, math.log(config.inner.learning_rate)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"genotype": "tim_ivif"}, "tim_ivif is a refine network; a meta-initialisation is for fusion and pyramid"),
        ({"genotype": "nothing"}, "no genotype 'nothing'"),
        ({"init": "nothing.safetensors"}, "no weights file nothing.safetensors; check the path"),
        ({"genotype": "tim_light", "init": "FINISHED"}, "these weights belong to another architecture"),
        ({"data": {"root": "nothing"}}, "does not exist; check the path"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"data": {"support": 5, "query": 4}}, "has 8 training pairs, fewer than data.support + data.query = 9; lower"),
        ({"data": {"crop": 40}}, "is 28x28, the minimum is 40x40; remove the pair or choose a smaller crop"),
        ({"meta": {"algorithm": "anil"}, "inner": {"layers": "tail"}}, "inner.layers = 'tail' must name a part of"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_written(tiny, finished, content, message):
    if content.get("init") == "FINISHED":
        content = {**content, "init": str(finished[0].run)}
    config = tiny(**content)
    with pytest.raises(UserError) as caught:
        meta_initialise(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"inner": {"optimizer": "sgd", "learning_rate": 1e30}, "meta": {"pretrain": 0}}, "step 0: the loss of .* or"),
        ({"meta": {"pretrain": 0, "learning_rate": 1e30}}, "step 1: the loss of .* or its gradient"),
        ({"inner": {"optimizer": "sgd", "learning_rate": 1e30}}, "step 2: the validation loss"),
        ({"tasks": {"mri-ct": {"loss": {**NOTHING, "intensity": 1e39}}}}, "step 0: the loss of mri-ct or its gradient"),
    ],
)
def test_a_loss_that_is_not_finite_is_one_line(tiny, content, message):
    remedy = r"lower inner\.learning_rate or meta\.learning_rate and start anew with --overwrite$"
    with pytest.raises(UserError, match=f"^{message} .*is not finite: .*; {remedy}"):
        meta_initialise(tiny(**content))
