"""Trainings and finetunings by several processes are, to rounding, those of one; and end together where one fails."""

import contextlib

import pytest
import torch
from torch.utils import _pytree

from timfuse.finetune import FinetuneConfig, finetune
from timfuse.genotypes import load_genotype
from timfuse.runtime import loop
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.config import config_to_yaml
from timfuse.runtime.distribution import Ranks
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.training import train

from ..processes import finish, start

PROGRAM = """
import itertools, math, os, sys
from contextlib import contextmanager
from pathlib import Path
import numpy as np
import torch
from timfuse.data import batch_stream, images, window
from timfuse.downstream import CompactDetector, TaskNetwork
from timfuse.finetune import FinetuneConfig, finetune, finetune_recipe
from timfuse.finetune.task_validation import Validation
from timfuse.objectives import FusionLoss
from timfuse.runtime import loop
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError
from timfuse.training import TrainConfig, train, train_recipe
from timfuse.training.train_validation import Validation as TrainValidation

rank = int(os.environ["RANK"])
train_recipe.validate = lambda *arguments, **options: TrainValidation({"mean": {"loss": 1.0}}, {})
finetune_recipe.validate = lambda *arguments, **options: Validation({"mean": {"loss": 1.0, "AP50": 0.5}}, {})
finetune_recipe.keep_task_network = finetune_recipe.load_task_weights = lambda *arguments: None
save = loop.Loop.save


def keep_own(run, state):
    torch.save(loop.capture(state), f"{run.path}.{rank}.pt")
    save(run, state)


loop.Loop.save = keep_own


def stop_at(step):
    @contextmanager
    def interrupted():
        steps = itertools.count(1)
        yield lambda: next(steps) == step

    loop.deferred_interrupt = interrupted


def run_all(paths):
    for path in map(Path, paths):
        run, kind = (train, TrainConfig) if path.stem.startswith("train") else (finetune, FinetuneConfig)
        try:
            run(load_config(kind, path), resume=True)
        except (UserError, SystemExit) as error:
            print(f"{type(error).__name__}: {error}")
"""
# In double precision, with a task network whose loss is a mean over the batch and which normalises nothing.
EXACT = """
torch.set_default_dtype(torch.float64)
for module in (window, batch_stream):
    module.unit_range = lambda pixels: images.unit_range(pixels).astype(np.float64)


class Plain(TaskNetwork):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.unused = torch.nn.Conv2d(1, 1, 1)

    def loss(self, images, batch):
        return (self.layer(images) - batch.second.square()).square().mean()


finetune_recipe.build_task_network = lambda *arguments: Plain()
stop_at(int(sys.argv[1]))
run_all(sys.argv[2:])
"""
ALIKE = """
stop_at(2)
run_all(sys.argv[1:3])
stop_at(-1)
run_all(sys.argv[1:3])
fusion_loss, detector_loss = FusionLoss.__call__, CompactDetector.loss
poison = math.nan if rank == 1 else 1.0
FusionLoss.__call__ = lambda loss, *arguments: fusion_loss(loss, *arguments) * poison
run_all(sys.argv[3:4])
FusionLoss.__call__ = fusion_loss
CompactDetector.loss = lambda network, *arguments: detector_loss(network, *arguments) * poison
run_all(sys.argv[4:])
"""
STRATEGIES = {
    "frozen": {"images": "blend"},
    "joint": {},
    "lagrangian": {"tolerance": 0.0, "multiplier_rate": 20.0},
    "learned_loss": {"loss_learning_rate": 0.1},
}


@pytest.fixture
def program(tmp_path):
    """A function that writes the program with one of its endings."""

    def write(ending):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM + ending)
        return str(path)

    return write


@pytest.fixture
def guided_by(tmp_path, networks):
    """A function that makes the config of a tiny finetuning by a strategy."""
    pytest.importorskip("faster_coco_eval")

    def make(run, strategy, **guidance):
        content = {
            "run": str(tmp_path / run),
            "device": "cpu",
            "init": None,
            "genotype": str(networks / "fusion.yaml"),
            "data": {"synthetic_pairs": 5, "crop": 64, "batch_size": 2, "validation": 0.4},
            "downstream": {"width": 8, "learning_rate": 5e-3},
            "guidance": {"strategy": strategy, "detector_steps": 2, **guidance},
            "train": {"steps": 4, "warmup": 1, "learning_rate": 5e-3, "ema": 0.5},
            "loss": {},
        }
        return FinetuneConfig.model_validate(content, strict=False)

    return make


def written(config):
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    return str(path)


def leaves_of(state):
    """Name and value of everything that a checkpoint holds, but for what the first process alone knows."""
    own = {name: value for name, value in state["state"].items() if name not in ("best", "best_loss", "best_step")}
    shared = {"state": own, "rng": state["rng"]}
    return {_pytree.keystr(path): leaf for path, leaf in _pytree.tree_flatten_with_path(shared)[0]}


def assert_alike(first, second, tolerance=0.0):
    firsts, seconds = leaves_of(first), leaves_of(second)
    assert firsts.keys() == seconds.keys()
    for name, leaf in firsts.items():
        if isinstance(leaf, torch.Tensor):
            # What batch normalisation takes away again has a gradient of noise, which Adam enlarges.
            taken_away = name.endswith(("bias']", "running_mean']"))
            atol = 100 * tolerance if taken_away else tolerance
            torch.testing.assert_close(seconds[name], leaf, rtol=0, atol=atol, msg=f"{name} differs")
        elif isinstance(leaf, float):
            assert leaf == pytest.approx(seconds[name], rel=0, abs=tolerance, nan_ok=True), name
        else:
            assert leaf == seconds[name], name


@pytest.mark.slow
def test_two_processes_give_what_one_gives_who_then_goes_on(tiny, guided_by, networks, refining, program):
    def configs(name):
        # Few steps: in flat areas the loss has kinks, at which a training enlarges even its own rounding errors.
        yield tiny(f"train-{name}", train={"steps": 4})
        yield tiny(f"train-refine-{name}", **refining, train={"steps": 4})
        for strategy, guidance in STRATEGIES.items():
            yield guided_by(f"{strategy}-{name}", strategy, **guidance)

    alone, together = list(configs("alone")), list(configs("together"))
    path = program(EXACT)
    processes = [
        *start([path, "-1", *map(written, alone)], 1),
        *start([path, "2", *map(written, together)], 2),
    ]
    codes, outputs, lines = finish(processes)
    assert (codes, outputs[0]) == ([0, 0, 0], ""), lines
    assert outputs[1] == "StoppedError: stopped before step 2; go on with --resume\n" * len(together)
    assert outputs[2] == "SystemExit: 2\n" * len(together)
    codes, outputs, lines = finish(start([path, "-1", *map(written, together)], 1))
    assert (codes, outputs) == ([0], [""]), lines
    for first, second in zip(alone, together, strict=True):
        assert_alike(*(load_checkpoint(config.run / "checkpoint.pt") for config in (first, second)), 1e-10)
        histories = [read_history(config.run / "history.jsonl") for config in (first, second)]
        for row, other in zip(*histories, strict=True):
            assert _numbers(row) == pytest.approx(_numbers(other), rel=0, abs=1e-8)


def _numbers(row):
    return {_pytree.keystr(path): leaf for path, leaf in _pytree.tree_flatten_with_path(row)[0]}


@pytest.mark.slow
def test_task_networks_stay_alike_and_one_failure_ends_all(tiny, guided_by, program):
    """A detector's loss is divided by the objects of a part, so that its mean is not that of the whole batch."""
    alike = [guided_by(name, name) for name in ("lagrangian", "detfusion")]
    poisoned = [tiny("train"), *(guided_by(f"poisoned-{name}", name) for name in ("lagrangian", "learned_loss"))]
    codes, outputs, lines = finish(start([program(ALIKE), *map(written, [*alike, *poisoned])], 2))
    assert codes == [0, 0], lines
    for config in alike:
        first, second = (torch.load(f"{config.run}.{rank}.pt") for rank in range(2))
        assert first["state"]["step"] == (6 if config.guidance.strategy == "detfusion" else 4)
        assert_alike(first, second)
        assert any("running_var" in name for name in leaves_of(first))
    stopped, again, *failed = outputs[0].splitlines()
    assert stopped == again == "StoppedError: stopped before step 2; go on with --resume"
    wanted = ("the loss is not finite: nan", "the task loss is not finite: nan", "outer loss F")
    for line, reason in zip(failed, wanted, strict=True):
        assert line.startswith("UserError: step 0: ")
        assert reason in line
        assert line.endswith("start anew with --overwrite")
    assert outputs[1] == "SystemExit: 2\n" * 5


@pytest.mark.slow
def test_the_command_reports_once(tiny):
    config = tiny(train={"steps": 4, "validate_every": 2})
    codes, outputs, lines = finish(start(["-m", "timfuse", "train", "--config", written(config)], 2))
    assert codes == [0, 0], lines
    assert outputs[1] == ""
    assert outputs[0].count("weights   ") == outputs[0].count("history   ") == 1
    provenance = load_genotype(config.run).provenance
    assert f"of step {provenance['best_step']};" in outputs[0]
    rows = read_history(config.run / "history.jsonl")
    assert ["validation" in row for row in rows] == [False, True, False, True]


def test_a_batch_that_cannot_be_split_is_one_line(tiny, guided_by, monkeypatch):
    monkeypatch.setattr(loop, "open_ranks", lambda: contextlib.nullcontext(Ranks(0, 3)))
    monkeypatch.setattr(Ranks, "from_leader", lambda ranks, make: make())
    uneven = r"^data\.batch_size = 2 cannot be split evenly among 3 ranks; take 3$"
    with pytest.raises(UserError, match=uneven):
        train(tiny())
    with pytest.raises(UserError, match=uneven):
        finetune(guided_by("run", "joint"))
    config = guided_by("run", "joint")
    small = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 3, "crop": 32})})
    with pytest.raises(UserError, match=r"^data\.batch_size = 3 leaves each of 3 ranks one crop of 32 pixels, too"):
        finetune(small)
