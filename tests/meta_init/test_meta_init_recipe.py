import json
import math

import pytest
import safetensors
import torch
from PIL import Image

import timfuse
from timfuse.bilevel import META_GRADIENTS, adapt
from timfuse.deploy import load
from timfuse.genotypes import load_genotype
from timfuse.meta_init import MetaInitConfig, meta_init_recipe, meta_initialise
from timfuse.meta_init.episodes import EpisodeStream
from timfuse.meta_init.meta_init_config import LEARN_RATES
from timfuse.meta_init.meta_tasks import open_tasks
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates
from timfuse.meta_init.trials import adaptation_curve, make_trials, pair_loss
from timfuse.operators import build_network, count_parameters
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.runtime.led_run import LedRun
from timfuse.runtime.run_files import CONFIG_FILE
from timfuse.runtime.run_folder import RUN_FILES
from timfuse.runtime.weights import load_into, load_weights

from .conftest import NOTHING, TASKS

CPU = torch.device("cpu")
SHORT = {"pretrain": 0, "steps": 2, "warmup": 0}
STILL = {**SHORT, "learning_rate": 1e-12, "rate_learning_rate": 1e-12}


@pytest.fixture
def finished(tiny):
    """The config and the result of one meta-initialisation that has run to its end."""
    config = tiny(seed=7, meta={"pretrain": 10, "steps": 15, "validate_every": 6})
    return config, meta_initialise(config)


def files_of(run):
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {".lock"}


def test_run_folder_holds_what_is_promised_and_no_leftovers(drawn, tiny):
    run = tiny().run
    meta_initialise(tiny())
    pictures = {f"pictures/{name}.{form}" for name in ("adaptation", "curves") for form in ("svg", "png")}
    events = {path.name for path in run.glob("events.out.tfevents.*")}
    files = {"checkpoint.pt", CONFIG_FILE, "genotype.yaml", "history.jsonl", "rates.yaml"}
    assert files_of(run) == files | {"weights.safetensors", "weights-last.safetensors"} | pictures | events
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
    with safetensors.safe_open(run / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"genotype": "small"}
    known = {path for pattern in RUN_FILES for path in run.glob(pattern)}
    assert {run / name for name in files_of(run)} - known == {run / CONFIG_FILE}


def test_history_has_every_step_and_the_loss_falls(finished):
    config, _ = finished
    rows = read_history(config.run / "history.jsonl")
    assert [row["step"] for row in rows] == list(range(25))
    for row in rows:
        assert {"loss", "query", "support", "gradient_norm", "rate", "learning_rate"} <= row.keys()
        assert set(row["query"]) == set(row["support"]) == {"infrared-visible", "mri-ct"}
        weighted = (row["query"]["infrared-visible"] + 0.5 * row["query"]["mri-ct"]) / 1.5
        assert row["loss"] == pytest.approx(weighted, rel=1e-5)
        # In the plain part there is no support batch.
        assert all((value is None) == (row["step"] < 10) for value in row["support"].values())
    assert [row["step"] for row in rows if "validation" in row] == [9, 15, 21, 24]
    assert sum(row["loss"] for row in rows[-5:]) < 0.9 * sum(row["loss"] for row in rows[:5])
    for line in (config.run / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_learning_rates_rise_and_fall_in_each_part(finished):
    config, _ = finished
    rates = [row["learning_rate"] for row in read_history(config.run / "history.jsonl")]
    for part in (rates[:10], rates[10:]):
        assert part[0] == part[1] == config.meta.learning_rate  # a warm-up of one step
        assert part[1:] == sorted(part[1:], reverse=True)
        assert part[-1] == pytest.approx(config.meta.learning_rate / 100)


def test_validations_are_the_adaptation_curves_of_all_tasks(finished):
    config, done = finished
    validations = {
        row["step"]: row["validation"] for row in read_history(config.run / "history.jsonl") if "validation" in row
    }
    for scores in validations.values():
        assert set(scores) == {"mean", *config.used_tasks}
        assert all(list(scores[name]) == ["after 0", "after 1", "after 2"] for name in config.used_tasks)
        ends = {name: (scores[name]["after 1"] + scores[name]["after 2"]) / 2 for name in config.used_tasks}
        mean = (ends["infrared-visible"] + 0.5 * ends["mri-ct"]) / 1.5
        assert scores["mean"]["loss"] == pytest.approx(mean, rel=1e-6)
    assert done.best_step == min(validations, key=lambda step: validations[step]["mean"]["loss"])
    # From what the folder holds, the same curves come again.
    network = build_network(done.genotype)
    load_into(network, config.run / "weights.safetensors")
    layers = adapting_layers(network, config)
    adaptation = adaptation_of(layers, load_rates(config.run, layers), config.inner)
    tasks = open_tasks(config.data, config.used_tasks, config.seed)
    trials = make_trials(tasks, config.data, steps=2, episodes=1, seed=config.seed, device=CPU)
    for trial in trials:
        expected = validations[done.best_step][trial.task.name]
        again = {f"after {n}": value for n, value in adaptation_curve(network, adaptation, trial, (0, 1, 2)).items()}
        assert again == expected
        assert {f"after {n}": value for n, value in done.curves[trial.task.name].items()} == expected


def test_last_weights_are_those_of_the_end_and_best_ones_those_of_the_best_step(tiny, monkeypatch):
    kept = []
    keep = meta_init_recipe.keep_best
    monkeypatch.setattr(
        meta_init_recipe, "keep_best", lambda *arguments: (kept.append(arguments[-1]), keep(*arguments))
    )
    scores = iter([0.5, 0.3, 0.4])

    def curve(*arguments):
        return dict.fromkeys((0, 1, 2), value[0])

    value = [0.0]
    validate = meta_init_recipe._validate

    def validated(*arguments):
        value[0] = next(scores)
        return validate(*arguments)

    monkeypatch.setattr(meta_init_recipe, "adaptation_curve", curve)
    monkeypatch.setattr(meta_init_recipe, "_validate", validated)
    config = tiny(meta={"validate_every": 2})
    assert meta_initialise(config).best_step == 3
    assert kept == [1, 3]
    best, last = (load_weights(config.run / f"{name}.safetensors") for name in ("weights", "weights-last"))
    assert not all(torch.equal(best[name], last[name]) for name in best)
    saved = load_checkpoint(config.run / "checkpoint.pt")
    assert all(torch.equal(tensor, saved["network"][name]) for name, tensor in last.items())


def test_provenance_says_how_and_from_what(finished, folders):
    config, done = finished
    assert load_genotype(config.run) == done.genotype
    assert load_config(MetaInitConfig, config.run / CONFIG_FILE) == config
    provenance = done.genotype.provenance
    assert provenance["timfuse"] == timfuse.__version__
    assert provenance["config_hash"] == config_hash(config)
    assert (provenance["seed"], provenance["algorithm"], provenance["best_step"]) == (7, "fomaml", done.best_step)
    counts = {"infrared-visible": 8, "mri-ct": 10}  # of training pairs, for what is trained on
    assert provenance["data"] == {"root": str(folders), **counts}
    assert provenance["parameters"] == count_parameters(build_network(done.genotype))
    assert provenance["adaptation"]["mri-ct"]["after 2"] == done.curves["mri-ct"][2]


def test_what_comes_out_fuses_and_can_be_started_from(tiny, finished):
    config, done = finished
    fused = load(config.run, "cpu")(*torch.rand(2, 1, 21, 23))
    assert fused.shape == (1, 21, 23)
    again = tiny("again", genotype=str(config.run), init=str(config.run), meta=STILL)
    provenance = meta_initialise(again).genotype.provenance
    assert provenance["architecture"] == done.genotype.provenance["architecture"]
    start, end = load_weights(config.run / "weights.safetensors"), load_weights(again.run / "weights-last.safetensors")
    learnt = [name for name, _ in build_network(done.genotype).named_parameters()]
    assert all(torch.allclose(end[name], start[name], atol=1e-9) for name in learnt)


def test_the_folder_can_be_used_while_the_training_goes_on(tiny, monkeypatch):
    seen = []
    log = LedRun.log

    def look(run, step, values):
        log(run, step, values)
        if "validation" in values:
            network = build_network(load_genotype(config.run))
            load_into(network, config.run / "weights.safetensors")
            seen.append(len(load_rates(config.run, adapting_layers(network, config))))

    monkeypatch.setattr(LedRun, "log", look)
    config = tiny()
    meta_initialise(config)
    assert len(seen) == 2
    assert min(seen) > 0


def test_the_same_seed_gives_the_same_and_another_seed_other_weights(tiny):
    configs = [tiny("a"), tiny("b", data={"workers": 2}), tiny("c", seed=1)]
    for config in configs:
        meta_initialise(config)
    for name in ("weights-last.safetensors", "rates.yaml"):
        same, again, other = ((config.run / name).read_bytes() for config in configs)
        assert same == again
        assert same != other


@pytest.mark.parametrize("algorithm", META_GRADIENTS)
def test_every_algorithm_learns_to_adapt(tiny, algorithm):
    meta = {
        "algorithm": algorithm,
        "pretrain": 0,
        "steps": 20,
        "warmup": 2,
        "validate_every": 4,
        "learning_rate": 1e-2,
    }
    # The best of several validations: the last one alone hangs on rounding in imaml. Over three seeds and weights that
    # differ in their last bits the sums are at most 0.76 and the single losses 0.68 of those from random weights.
    done = meta_initialise(tiny(meta=meta))
    learnt, random = (sum(curves[task][2] for task in ("infrared-visible", "mri-ct")) for curves in done[2:])
    assert learnt < 0.9 * random
    assert done.curves["infrared-visible"][2] < 0.85 * done.fresh["infrared-visible"][2]


@pytest.mark.parametrize("algorithm", META_GRADIENTS)
@pytest.mark.parametrize("learn_rates", [True, False])
def test_rates_are_learnt_in_episodes_where_that_is_known_and_asked_for(tiny, algorithm, learn_rates):
    config = tiny(
        meta={"algorithm": algorithm, "pretrain": 1, "steps": 2, "warmup": 0, "validate_every": 1},
        inner={"learn_rates": learn_rates},
        tasks={"mri-ct": TASKS["mri-ct"]},
    )
    meta_initialise(config)
    rates = [row["rate"] for row in read_history(config.run / "history.jsonl")]
    start = config.inner.learning_rate
    assert rates[0] == pytest.approx(start)
    log_rates = load_checkpoint(config.run / "checkpoint.pt")["log_rates"]
    still = torch.full_like(log_rates, math.log(start))
    if learn_rates and algorithm in LEARN_RATES:
        # But for a bias before batch normalisation, which has no gradient.
        assert torch.isclose(log_rates, still, atol=1e-6).sum() < len(still) / 2
        assert len(set(log_rates.tolist())) > 1
    else:
        assert torch.equal(log_rates, still)


def step_once(config, monkeypatch, **changes):
    """Run the first step of a config, and return the network before, the state after and what the tasks gave."""
    estimates = {}
    compute = meta_init_recipe._meta_gradient

    def look(config, state, task, *rest):
        estimates[task.name] = compute(config, state, task, *rest)
        return estimates[task.name]

    monkeypatch.setattr(meta_init_recipe, "_meta_gradient", look)
    seen = []
    step = meta_init_recipe._step

    def once(config, state, *rest):
        seen.append(({name: tensor.clone() for name, tensor in state.network.state_dict().items()}, state))
        step(config, state, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(meta_init_recipe, "_step", once)
    with pytest.raises(KeyboardInterrupt):
        meta_initialise(config)
    return *seen[0], estimates


def test_gradients_and_statistics_are_the_weighted_means_over_the_tasks(tiny, monkeypatch):
    config = tiny(meta={**SHORT, "clip": 1e9})
    before, state, estimates = step_once(config, monkeypatch)
    assert set(estimates) == {"infrared-visible", "mri-ct"}

    def mean(one, other):
        return (one + 0.5 * other) / 1.5

    first, second = estimates["infrared-visible"], estimates["mri-ct"]
    for parameter, *gradients in zip(state.network.parameters(), first.initial, second.initial, strict=True):
        assert torch.allclose(parameter.grad, mean(*gradients), atol=1e-7)
    assert torch.allclose(state.log_rates.grad, mean(first.rates, second.rates) * config.inner.learning_rate, atol=1e-7)
    moved = 0
    for (name, buffer), *ends in zip(state.network.named_buffers(), first.buffers, second.buffers, strict=True):
        if buffer.is_floating_point():
            assert torch.allclose(buffer, mean(*ends), atol=1e-6)
            assert not torch.equal(buffer, before[name])
            moved += 1
        else:
            assert torch.equal(buffer, before[name])
    assert moved >= 2


def test_statistics_of_an_episode_are_those_of_its_support_batches(tiny, monkeypatch):
    config = tiny(meta=SHORT, tasks={"mri-ct": TASKS["mri-ct"]})
    before, state, _ = step_once(config, monkeypatch)
    (task,) = open_tasks(config.data, config.used_tasks, config.seed)
    stream = EpisodeStream([task], support=2, query=2, steps=2, crop=20, seed=config.seed)
    network = build_network(load_genotype(config.genotype))
    network.load_state_dict(before)
    layers = adapting_layers(network, config)
    adaptation = adaptation_of(layers, torch.full((len(layers),), config.inner.learning_rate), config.inner)
    support = stream[0][0].support
    adapt(
        network.train(),
        lambda module, batch: pair_loss(task.loss, module, batch),
        support,
        adaptation.build_optimizer(),
    )
    for own, expected in zip(state.network.buffers(), network.buffers(), strict=True):
        if own.is_floating_point():
            assert torch.allclose(own, expected, atol=1e-6)


def test_plain_training_gives_batch_normalisation_its_statistics(tiny, monkeypatch):
    before, state, _ = step_once(tiny(), monkeypatch)
    moved = [
        not torch.equal(buffer, before[name])
        for name, buffer in state.network.named_buffers()
        if buffer.is_floating_point()
    ]
    assert moved
    assert all(moved)


@pytest.mark.parametrize("algorithm", META_GRADIENTS)
def test_without_inner_steps_all_is_plain_training(tiny, algorithm):
    plain = tiny("plain", inner={"steps": 0}, meta={"pretrain": 0, "steps": 6, "algorithm": algorithm})
    episodes = tiny("episodes", meta={"pretrain": 6, "steps": 2})
    for config in (plain, episodes):
        meta_initialise(config)
    rows, others = (read_history(config.run / "history.jsonl") for config in (plain, episodes))
    assert [row["query"] for row in rows] == [row["query"] for row in others[:6]]
    assert len(set(load_checkpoint(plain.run / "checkpoint.pt")["log_rates"].tolist())) == 1


def test_a_task_of_weight_zero_is_validated_and_never_trained_on(tiny):
    given = {name: TASKS[name] for name in ("infrared-visible", "mri-ct")}
    held_out, without = tiny("a", seed=1), tiny("b", seed=1, tasks={**given, "multi-focus": None})
    curves = [meta_initialise(config).curves for config in (held_out, without)]
    assert [set(found) for found in curves] == [set(TASKS), set(given)]
    assert (held_out.run / "weights-last.safetensors").read_bytes() == (
        without.run / "weights-last.safetensors"
    ).read_bytes()
    assert (held_out.run / "rates.yaml").read_bytes() == (without.run / "rates.yaml").read_bytes()
    rows, others = (read_history(config.run / "history.jsonl") for config in (held_out, without))
    assert [row["query"] for row in rows] == [row["query"] for row in others]


def test_weights_are_relative_and_shift_the_gradient(tiny):
    def run(name, *weights):
        tasks = {
            task: {**TASKS[task], "weight": weight}
            for task, weight in zip(("infrared-visible", "mri-ct"), weights, strict=True)
        }
        config = tiny(name, tasks=tasks, meta=SHORT)
        meta_initialise(config)
        return load_weights(config.run / "weights-last.safetensors")

    one, same, other = run("one", 1.0, 3.0), run("same", 2.0, 6.0), run("other", 3.0, 1.0)
    learnt = [name for name in one if one[name].is_floating_point()]
    assert all(torch.equal(one[name], same[name]) for name in learnt)
    assert not all(torch.allclose(one[name], other[name]) for name in learnt)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"genotype": "tim_ivif"}, "tim_ivif is a refine network; a meta-initialisation is for fusion networks"),
        ({"genotype": "nothing"}, "no genotype 'nothing'"),
        ({"init": "nothing.safetensors"}, "no weights file nothing.safetensors; check the path"),
        ({"data": {"root": "nothing"}}, "does not exist; check the path"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"data": {"support": 5, "query": 4}}, "has 8 training pairs, fewer than data.support + data.query = 9; lower"),
        ({"data": {"crop": 40}}, "is 28x28, the minimum is 40x40; remove the pair or choose a smaller crop"),
        ({"meta": {"algorithm": "anil"}, "inner": {"layers": "tail"}}, "inner.layers = 'tail' must name a part of"),
        (
            {"inner": {"optimizer": "sgd", "learning_rate": 1e30}, "meta": {"pretrain": 0}},
            "the loss or its gradient is not finite; lower inner.learning_rate or meta.learning_rate and start anew",
        ),
        (
            {"meta": {"pretrain": 0, "learning_rate": 1e30}},
            "the loss or its gradient is not finite; lower inner.learning_rate or meta.learning_rate and start anew",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tiny, content, message):
    with pytest.raises(UserError) as caught:
        meta_initialise(tiny(**content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_validation_that_is_not_finite_is_one_line(tiny, monkeypatch):
    monkeypatch.setattr(meta_init_recipe, "adaptation_curve", lambda *arguments: dict.fromkeys((0, 1, 2), math.nan))
    with pytest.raises(UserError, match=r"^step 1: the validation loss is not finite; lower inner\.learning_rate"):
        meta_initialise(tiny())


def test_weights_of_another_network_are_refused_before_anything_is_written(tiny, finished):
    config = tiny("other", genotype="tim_light", init=str(finished[0].run))
    with pytest.raises(UserError, match="these weights belong to another architecture"):
        meta_initialise(config)
    assert not config.run.exists()


def test_a_run_is_not_overwritten_by_accident(tiny):
    meta_initialise(tiny(meta=SHORT))
    with pytest.raises(UserError, match="holds a run; go on with --resume, replace it with --overwrite"):
        meta_initialise(tiny(meta=SHORT))
    meta_initialise(tiny(meta={**SHORT, "steps": 3}), overwrite=True)
    assert len(read_history(tiny().run / "history.jsonl")) == 3


def test_only_the_loss_of_the_config_is_trained(tiny):
    losses = []
    for weight in (1.0, 2.0):
        task = {"loss": {**NOTHING, "intensity": weight}}
        config = tiny(f"run{weight}", tasks={"mri-ct": task}, meta={**SHORT, "pretrain": 1})
        meta_initialise(config)
        losses.append(read_history(config.run / "history.jsonl")[0]["loss"])
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


def test_the_rates_begin_to_be_learnt_as_if_there_had_been_no_pretraining(tiny):
    """Adam's averages of gradients that were all zero would make its first steps several times as long."""
    config = tiny(meta={"pretrain": 30, "steps": 1, "warmup": 0, "rate_learning_rate": 1e-3}, inner={"steps": 1})
    meta_initialise(config)
    moved = load_checkpoint(config.run / "checkpoint.pt")["log_rates"] - math.log(config.inner.learning_rate)
    assert 0 < moved.abs().max() <= 1.001e-3
