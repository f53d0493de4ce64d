import shutil

import numpy as np
import pytest
import torch

from timfuse.deploy import load
from timfuse.genotypes import load_genotype
from timfuse.meta_init import AdaptConfig, adapt_to_task, few_shot, meta_initialise
from timfuse.meta_init.rates import load_rates
from timfuse.operators import build_network
from timfuse.runtime.config import config_hash, load_config
from timfuse.runtime.errors import UserError
from timfuse.runtime.run_folder import RUN_FILES
from timfuse.runtime.weights import load_into, load_weights

from .conftest import NOTHING, TASKS, write_pairs

THERMAL = {"sources": ["xray", "neutron"], "colour": "second", "loss": {**NOTHING, "brighter": 1.0}}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Where the first test leaves the meta-initialisation for the others."""
    return tmp_path_factory.mktemp("once") / "run"


@pytest.fixture
def trained(tiny, once):
    """The folder of a meta-initialisation that knows a task of the user's own."""
    config = tiny("trained", tasks={**TASKS, "thermal": THERMAL}, meta={"pretrain": 6, "steps": 6})
    if not once.exists():
        meta_initialise(config)
        shutil.copytree(config.run, once)
    return shutil.copytree(once, config.run, dirs_exist_ok=True)


@pytest.fixture
def adapting(tmp_path, trained, folders):
    """A function that makes the config of an adaptation of it."""

    def make(run="adapted", task="mri-ct", **content):
        content = {"data": str(folders / task), "steps": 4, "device": "cpu", **content}
        content |= {"run": str(tmp_path / run), "init": str(trained), "task": task}
        return AdaptConfig.model_validate(content, strict=False)

    return make


def test_a_network_that_fuses_comes_out(drawn, adapting, trained, folders):
    config = adapting(steps=6, seed=3)
    done = adapt_to_task(config)
    files = {path.relative_to(config.run).as_posix() for path in config.run.rglob("*") if path.is_file()} - {".lock"}
    pictures = {"pictures/adaptation.svg", "pictures/adaptation.png"}
    assert files == {"config.yaml", "genotype.yaml", "weights.safetensors"} | pictures
    known = {path for pattern in RUN_FILES for path in config.run.glob(pattern)}
    assert {config.run / name for name in files} - known == {config.run / "config.yaml"}
    assert load_config(AdaptConfig, config.run / "config.yaml") == config
    genotype = load_genotype(config.run)
    assert genotype == done.genotype
    assert (genotype.name, genotype.task, genotype.sources) == ("adapted", "mri-ct", None)
    provenance = genotype.provenance
    assert (provenance["seed"], provenance["steps"], provenance["init"]) == (3, 6, str(trained))
    assert provenance["config_hash"] == config_hash(config)
    assert provenance["data"] == {"root": str(folders / "mri-ct"), "pairs": 8}
    assert provenance["validation_loss"] == {f"after {count}": value for count, value in done.curve.items()}
    assert provenance["initialisation"] == load_genotype(trained).provenance
    fuser = load(config.run, "cpu")
    assert fuser.task == "mri-ct"
    assert fuser(*torch.rand(2, 1, 21, 23)).shape == (1, 21, 23)


def test_weights_move_from_those_of_the_initialisation_and_the_curve_says_how(adapting, trained):
    done = adapt_to_task(adapting(steps=10))
    assert list(done.curve) == list(done.fresh) == [0, 1, 2, 3, 5, 8, 10]
    assert done.pairs == 8
    assert done.seconds > 0
    start, end = (load_weights(run / "weights.safetensors") for run in (trained, adapting().run))
    learnt = [name for name, _ in build_network(done.genotype).named_parameters()]
    assert not all(torch.equal(start[name], end[name]) for name in learnt)
    # The first score is that of the initialisation, whatever the steps; the later ones do not depend on their number.
    assert adapt_to_task(adapting("few", steps=1)).curve[0] == done.curve[0]
    assert adapt_to_task(adapting("few", steps=3), overwrite=True).curve[3] == done.curve[3]


def test_it_steps_at_the_learnt_rates(adapting, trained, monkeypatch):
    seen = []
    adaptation_of = few_shot.adaptation_of
    monkeypatch.setattr(few_shot, "adaptation_of", lambda *given: (seen.append(given), adaptation_of(*given))[1])
    adapt_to_task(adapting())
    ((layers, rates, _),) = seen
    assert torch.equal(rates, load_rates(trained, layers))
    assert len(set(rates.tolist())) > 1


def test_adaptation_on_many_steps_lowers_the_loss(adapting):
    done = adapt_to_task(adapting(steps=60, task="infrared-visible"))
    assert done.curve[60] < 0.8 * done.fresh[0]


def test_the_same_seed_gives_the_same_bits(adapting):
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        adapt_to_task(adapting(run, seed=seed))
    same, again, other = ((adapting(run).run / "weights.safetensors") for run in "abc")
    one, two = load_weights(same), load_weights(again)
    assert all(one[name].numpy().tobytes() == two[name].numpy().tobytes() for name in one)
    assert not all(torch.equal(one[name], tensor) for name, tensor in load_weights(other).items())


def test_so_many_pairs_spread_over_the_training_pairs(adapting, monkeypatch):
    drawn = []
    cut = few_shot.cut_crops
    monkeypatch.setattr(
        few_shot, "cut_crops", lambda source, pairs, *rest: (drawn.extend(pairs), cut(source, pairs, *rest))[1]
    )
    expected = {1: 1, 3: 3, 0: 10, 100: 10}  # ten of the twelve are training pairs
    for count, used in expected.items():
        drawn.clear()
        done = adapt_to_task(adapting("run", pairs=count, steps=30), overwrite=True)
        assert done.pairs == used
        assert len(set(drawn)) == used
        if used == 3:
            assert max(drawn) - min(drawn) >= 8


def test_a_task_of_ones_own_is_known_by_its_name(adapting, folders):
    config = adapting(task="thermal")
    genotype = adapt_to_task(config).genotype
    assert (genotype.task, genotype.sources, genotype.colour) == ("thermal", ("xray", "neutron"), "second")
    fuser = load(config.run, "cpu")
    grey = np.full((20, 22), 90, np.uint8)
    red = np.stack([grey + 60, grey, grey], 2)
    fused = fuser(grey, red)
    assert fused.shape == (20, 22, 3)
    assert fused.reshape(-1, 3).mean(0)[0] > fused.reshape(-1, 3).mean(0)[2] + 20


def test_what_the_user_says_now_goes_first(adapting, monkeypatch):
    seen = []
    score = few_shot.adapt_and_score
    monkeypatch.setattr(few_shot, "adapt_and_score", lambda *given: (seen.append(given[2]), score(*given))[1])
    genotype = adapt_to_task(adapting(task="thermal", colour="first", loss={**NOTHING, "intensity": 2.0})).genotype
    assert genotype.colour == "first"
    assert genotype.sources == ("xray", "neutron")
    assert [(loss.intensity, loss.brighter) for loss in seen] == [(2.0, 0.0)] * 2


def test_a_task_that_the_initialisation_never_saw(adapting, tmp_path):
    data = write_pairs(tmp_path / "data", ["a", "b", "c", "d"], ("radar", "optical"))
    config = adapting(task="radar-optical", data=str(data), sources=["radar", "optical"], colour="second")
    done = adapt_to_task(config)
    assert (done.genotype.task, done.pairs) == ("radar-optical", 3)
    load(config.run, "cpu")
    exposures = write_pairs(tmp_path / "exposures", ["a", "b", "c", "d"], ("under", "over"))
    done = adapt_to_task(adapting("known", task="multi-exposure", data=str(exposures)))
    assert (done.genotype.task, done.genotype.sources, done.genotype.colour_source) == ("multi-exposure", None, "both")


def test_pairs_of_several_folders(adapting, folders, tmp_path):
    more = write_pairs(tmp_path / "more", ["1001", "1002", "2001", "2002"], ("mri", "ct"))
    roots = [str(folders / "mri-ct"), str(more)]
    done = adapt_to_task(adapting(data=roots, pairs=0))
    assert done.genotype.provenance["data"] == {"root": roots, "pairs": 10 + 3}


def test_synthetic_pairs_without_a_folder(adapting):
    done = adapt_to_task(adapting(task="mri-pet", data=None, steps=1))
    assert done.genotype.provenance["data"] == {"root": "synthetic pairs", "pairs": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": "mri-tc"}, "unknown task 'mri-tc' (did you mean 'mri-ct'?): use "),
        ({"task": "radar"}, "unknown task 'radar': use infrared-visible, "),
        ({"data": "nowhere"}, "the data folder nowhere does not exist; check the path"),
        ({"task": "radar", "data": None, "sources": ["a", "b"]}, "give its folder"),
        ({"device": "tpu"}, "unknown device tpu"),
        ({"steps": 3, "loss": {"fidelity": 1}}, "data.crop = 20 is too small for this loss"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(adapting, folders, content, message):
    config = adapting(**{"data": str(folders / "mri-ct"), **content})
    with pytest.raises(UserError) as caught:
        adapt_to_task(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


def test_a_folder_that_is_no_meta_initialisation(adapting, trained, tmp_path):
    for folder, message in (
        (tmp_path / "nowhere", "no meta-initialisation '.*nowhere': give the folder of a `timfuse meta-init` run"),
        (tmp_path, "holds no meta-initialisation"),
    ):
        config = adapting().model_copy(update={"init": str(folder)})
        with pytest.raises(UserError, match=message):
            adapt_to_task(config)
    adapt_to_task(adapting())
    with pytest.raises(UserError, match="adapted holds no meta-initialisation"):
        adapt_to_task(adapting("again").model_copy(update={"init": str(adapting().run)}))


def test_files_of_an_initialisation_that_do_not_belong_together(adapting, trained):
    rates = (trained / "rates.yaml").read_text()
    (trained / "rates.yaml").write_text(rates.replace("head", "heat"))
    with pytest.raises(UserError, match="does not name the layers of the network beside it; get both from one run"):
        adapt_to_task(adapting())
    (trained / "rates.yaml").write_text(rates)
    genotype = (trained / "genotype.yaml").read_text()
    (trained / "genotype.yaml").write_text(genotype.replace("channels: 4", "channels: 6"))
    with pytest.raises(UserError, match="these weights belong to another architecture"):
        adapt_to_task(adapting("again"))


def test_a_network_is_not_overwritten_by_accident(adapting):
    adapt_to_task(adapting(steps=1))
    with pytest.raises(UserError, match=r"holds a run; .*replace it with --overwrite"):
        adapt_to_task(adapting(steps=2))
    assert list(adapt_to_task(adapting(steps=2), overwrite=True).curve) == [0, 1, 2]


def test_a_loss_that_becomes_infinite(adapting, trained):
    path = trained / "rates.yaml"
    lines = [line.partition(":")[0] + ": 1.0e+30" for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"^the validation loss is not finite after \d steps; give fewer with --steps$"):
        adapt_to_task(adapting())


def test_the_network_is_as_validated(adapting):
    config = adapting()
    done = adapt_to_task(config)
    network = build_network(done.genotype).eval()
    load_into(network, config.run / "weights.safetensors")
    first, second = torch.rand(2, 1, 1, 20, 20)
    with torch.no_grad():
        plain = network(first, second)
    assert torch.allclose(load(config.run, "cpu")(first, second), plain.clamp(0, 1), atol=1e-4)
