"""Adaptations of an initialisation: the network that comes out, how it got there, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from timfuse.data import read_pixels
from timfuse.deploy import load
from timfuse.genotypes import load_genotype
from timfuse.meta_init import AdaptConfig, adapt_to_task, shipped_initialisations
from timfuse.meta_init.episodes import validation_query
from timfuse.meta_init.meta_init_config import TaskSection
from timfuse.meta_init.rates import adapting_layers, load_rates, save_rates
from timfuse.meta_init.trials import pair_loss
from timfuse.objectives import FusionLoss
from timfuse.operators import build_network, load_network_folder
from timfuse.operators.network_folders import shipped_names
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_weights

from ..equality import assert_same
from ..tiny_runs import NOTHING
from .conftest import write_pairs


@pytest.fixture
def adapting(tmp_path, finished, folders):
    """A function that makes the config of an adaptation of a finished run."""

    def make(run="adapted", task="mri-ct", *, init=None, root=True, pairs=8, **content):
        root = str(folders / task) if root is True else root
        content = {"steps": 4, "device": "cpu", "data": {"root": root, "pairs": pairs}, **content}
        content |= {"run": str(tmp_path / run), "init": str(init or finished[0].run), "task": task}
        return AdaptConfig.model_validate(content, strict=False)

    return make


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(finished[0].run, tmp_path / "copy", ignore=shutil.ignore_patterns("pictures"))


def test_a_network_that_fuses_comes_out(adapting, finished, folders):
    trained = finished[0].run
    config = adapting(steps=6, seed=3)
    done = adapt_to_task(config)
    files = {path.relative_to(config.run).as_posix() for path in config.run.rglob("*") if path.is_file()} - {
        ".lock",
        ".written",
    }
    pictures = {"pictures/adaptation.svg", "pictures/adaptation.png", "pictures/examples.png"}
    assert files == {"config.yaml", "genotype.yaml", "weights.safetensors"} | pictures
    assert {json.loads(line) for line in (config.run / ".written").read_text().splitlines()} == files
    assert load_config(AdaptConfig, config.run / "config.yaml") == config
    genotype = load_genotype(config.run)
    assert genotype == done.genotype
    assert (genotype.name, genotype.task, genotype.sources) == ("adapted", "mri-ct", None)
    provenance = genotype.provenance
    assert (provenance["seed"], provenance["steps"], provenance["init"]) == (3, 6, str(trained))
    assert (provenance["stage"], provenance["config_hash"]) == ("adapt", config_hash(config))
    assert provenance["data"] == {"root": [str(folders / "mri-ct")], "training_pairs": 8}
    curve = {f"after {count}": value for count, value in done.curve.items()}
    assert provenance["metrics"] == {"adapted": {"mri-ct": curve}}
    assert provenance["initialisation"] == load_genotype(trained).provenance
    # What is loaded is the network as it was validated.
    fuser = load(config.run, "cpu")
    assert fuser.task == "mri-ct"
    first, second = torch.rand(2, 1, 1, 21, 23)
    with torch.no_grad():
        plain = load_network_folder(config.run)[1].eval()(first, second)
    assert torch.allclose(fuser(first, second), plain.clamp(0, 1), atol=1e-4)


def test_weights_move_from_those_of_the_initialisation_and_the_curve_says_how(adapting, finished):
    done = adapt_to_task(adapting(steps=10))
    assert list(done.curve) == list(done.fresh) == [0, 1, 2, 3, 5, 8, 10]
    assert done.pairs == 8
    assert done.seconds > 0
    start, end = (load_weights(run / "weights.safetensors") for run in (finished[0].run, adapting().run))
    learnt = [name for name, _ in build_network(done.genotype).named_parameters()]
    assert not all(torch.equal(start[name], end[name]) for name in learnt)
    # The first score is that of the initialisation, whatever the steps; the later ones do not depend on their number.
    again = adapt_to_task(adapting("few", steps=3))
    assert [again.curve[count] for count in range(4)] == [done.curve[count] for count in range(4)]


def test_the_weights_that_validate_best_are_kept(adapting, copied, finished):
    trained, network = finished[0], load_network_folder(copied)[1]
    layers = adapting_layers(network, None)
    save_rates(copied, layers, torch.full((len(layers),), 0.5))  # so high that steps do harm
    config = adapting(init=copied)
    done = adapt_to_task(config)
    assert done.kept == min(done.curve, key=done.curve.get) == done.genotype.provenance["kept_after"] == 0
    assert_same(*(load_weights(run / "weights.safetensors") for run in (config.run, trained.run)))
    better = adapting("better", steps=30)
    done = adapt_to_task(better)
    assert done.kept > 0
    query = validation_query(
        trained.data.open_task("mri-ct", TaskSection(), 0, [better.data.roots[0]]), trained.data.crop, 0
    )
    network, loss = load_network_folder(better.run)[1].eval(), trained.tasks["mri-ct"].loss
    with torch.no_grad():
        value = pair_loss(FusionLoss(**loss.model_dump()), network, query).item()
    assert value == pytest.approx(done.curve[done.kept], abs=1e-6)


def test_the_examples_have_both_sources_and_the_images_before_and_after(adapting, folders):
    config = adapting(task="thermal", sources=["xray", "neutron"], root=str(folders / "thermal"))
    adapt_to_task(config)
    sheet = read_pixels(config.run / "pictures" / "examples.png")
    assert sheet.ndim == 3  # the second sources are in colour
    assert sheet.shape[1] > 4 * 300


def test_it_steps_at_the_learnt_rates(adapting, copied):
    _, network = load_network_folder(copied)
    layers = adapting_layers(network, None)
    rates = torch.full((len(layers),), 1e-30)
    place = list(layers).index("stem.0")
    rates[place] = load_rates(copied, layers)[place]
    save_rates(copied, layers, rates)
    config = adapting(init=copied, task="infrared-visible", steps=60)  # until it is better than the start
    adapt_to_task(config)
    after = load_weights(config.run / "weights.safetensors")
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, after[name])}
    assert moved
    assert all(name.startswith("stem.0.") for name in moved)


def test_adaptation_on_many_steps_lowers_the_loss(adapting):
    done = adapt_to_task(adapting(steps=60, task="infrared-visible"))
    assert done.curve[60] < 0.8 * done.fresh[0]


def test_the_same_seed_gives_the_same_bits(adapting):
    curves = [adapt_to_task(adapting(run, seed=seed)).curve for run, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert curves[0] == curves[1] != curves[2]
    assert_same(*(load_weights(adapting(run).run / "weights.safetensors") for run in "ab"))


@pytest.mark.parametrize(("count", "used"), [(1, 1), (3, 3), (0, 10), (100, 10)])
def test_so_many_pairs_of_the_training_pairs(adapting, count, used):
    assert adapt_to_task(adapting(pairs=count, steps=1)).pairs == used  # ten of the twelve are training pairs


def test_colour_and_loss_of_a_task_of_ones_own_are_those_of_the_initialisation(adapting):
    config = adapting(task="thermal", sources=["xray", "neutron"])
    genotype = adapt_to_task(config).genotype
    assert (genotype.task, genotype.sources, genotype.colour) == ("thermal", ("xray", "neutron"), "second")
    fuser = load(config.run, "cpu")
    grey = np.full((20, 22), 90, np.uint8)
    red = np.stack([grey + 60, grey, grey], 2)
    fused = fuser(grey, red)
    assert fused.shape == (20, 22, 3)
    assert fused.reshape(-1, 3).mean(0)[0] > fused.reshape(-1, 3).mean(0)[2] + 20


def test_what_the_user_says_now_goes_first(adapting, finished):
    sources = ["xray", "neutron"]
    done = adapt_to_task(adapting(task="thermal", sources=sources, colour="first", loss=NOTHING | {"intensity": 2.0}))
    assert done.genotype.colour == "first"
    # The loss, too: the curve starts at that of the initialisation by it.
    data, section = finished[0].data, TaskSection(sources=("xray", "neutron"))
    query = validation_query(data.open_task("thermal", section, 0), data.crop, 0)
    _, network = load_network_folder(finished[0].run)
    with torch.no_grad():
        value = pair_loss(FusionLoss(**NOTHING | {"intensity": 2.0}), network.eval(), query).item()
    assert done.curve[0] == pytest.approx(value, abs=1e-6)


def test_a_task_that_the_initialisation_never_saw(adapting, tmp_path):
    root = write_pairs(tmp_path / "data", ["a", "b", "c", "d"], ("radar", "optical"))
    config = adapting(task="radar-optical", root=str(root), sources=["radar", "optical"], colour="second")
    done = adapt_to_task(config)
    assert (done.genotype.task, done.pairs) == ("radar-optical", 3)
    load(config.run, "cpu")
    root = write_pairs(tmp_path / "exposures", ["a", "b", "c", "d"], ("under", "over"))
    done = adapt_to_task(adapting("known", task="multi-exposure", root=str(root)))
    assert (done.genotype.task, done.genotype.sources, done.genotype.colour_source) == ("multi-exposure", None, "both")


def test_any_trained_network_is_a_start(adapting, copied):
    (copied / "rates.yaml").unlink()
    config = adapting(init=copied, steps=1, root=None)
    done = adapt_to_task(config)
    assert done.start == str(copied)
    learnt = [name for name, _ in build_network(done.genotype).named_parameters()]
    start, end = (load_weights(run / "weights.safetensors") for run in (copied, config.run))
    # The first step of Adam is as long as its rate.
    assert max((end[name] - start[name]).abs().max().item() for name in learnt) == pytest.approx(1e-3, rel=1e-2)


def test_without_a_start_it_is_the_shipped_one_with_the_least_loss(adapting):
    config = adapting(steps=1, pairs=1, root=None).model_copy(update={"init": None})
    done = adapt_to_task(config)
    others = [
        adapt_to_task(adapting(name, init=name, steps=1, pairs=1, root=None)).curve[0]
        for name in ("ivif-nano", "multi-focus")
    ]
    assert done.start in (*shipped_initialisations(), *shipped_names())
    assert done.curve[0] < min(others)
    assert done.genotype.provenance["start"] == done.start


def test_every_pass_over_the_batches_of_an_adaptation_is_the_same(adapting):
    """The curve of random weights is on the crops of the other one, whatever it does with the random numbers."""
    one, other = (adapt_to_task(adapting(run, steps=steps)).fresh for run, steps in (("a", 3), ("b", 8)))
    assert [one[count] for count in range(4)] == [other[count] for count in range(4)]


def test_synthetic_pairs_without_a_folder(adapting):
    done = adapt_to_task(adapting(task="mri-pet", root=None, steps=1))
    assert done.genotype.provenance["data"] == {"root": "synthetic pairs", "training_pairs": 6}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"root": "nowhere"}, "the data folder nowhere does not exist; check the path"),
        ({"task": "infrared-visible"}, "holds no infrared-visible pairs"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"init": "nowhere"}, "no network 'nowhere': give the folder of a run, or one of all-tasks, ivif, "),
        ({"init": "FOLDERS"}, "holds no trained network: there is no genotype.yaml; give the folder of a finished run"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(adapting, folders, content, message):
    if content.get("init") == "FOLDERS":
        content = {"init": folders}
    config = adapting(**{"root": str(folders / "mri-ct"), **content})
    with pytest.raises(UserError) as caught:
        adapt_to_task(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


def test_files_of_an_initialisation_that_do_not_belong_together(adapting, copied):
    rates = (copied / "rates.yaml").read_text()
    (copied / "rates.yaml").write_text(rates.replace("head", "heat"))
    with pytest.raises(UserError, match="does not name the layers of the network beside it; get both from one run"):
        adapt_to_task(adapting(init=copied))
    (copied / "rates.yaml").write_text(rates)
    genotype = (copied / "genotype.yaml").read_text()
    (copied / "genotype.yaml").write_text(genotype.replace("channels: 4", "channels: 6"))
    with pytest.raises(UserError, match="these weights belong to another architecture"):
        adapt_to_task(adapting(init=copied))


def test_a_network_is_not_overwritten_by_accident(adapting):
    adapt_to_task(adapting(steps=1))
    with pytest.raises(UserError, match=r"holds a run; .*replace it with --overwrite"):
        adapt_to_task(adapting(steps=2))
    assert list(adapt_to_task(adapting(steps=2), overwrite=True).curve) == [0, 1, 2]


def test_a_loss_that_becomes_infinite(adapting, copied):
    path = copied / "rates.yaml"
    lines = [line.partition(":")[0] + ": 1.0e+30" for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"^the validation loss is not finite after \d steps; give fewer with --steps$"):
        adapt_to_task(adapting(init=copied))
