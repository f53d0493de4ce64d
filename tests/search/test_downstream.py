"""Searches whose architecture is scored by a task network on the fused images."""

import math

import pytest
import torch
from torch import nn

from timfuse.bilevel import ESTIMATORS
from timfuse.data import PairBatch, write_scenes
from timfuse.downstream import CompactDetector, load_task_network, start_from
from timfuse.genotypes import load_genotype
from timfuse.objectives import FusionLoss
from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.distribution import ALONE
from timfuse.runtime.errors import UserError
from timfuse.runtime.history import read_history
from timfuse.search import search
from timfuse.search.scorer import Scorer
from timfuse.search.search_setup import SearchParts, set_up
from timfuse.search.search_step import search_step

from ..equality import assert_same

CPU = torch.device("cpu")
DETECTION = {"kind": "detection", "width": 8}
SMALL = {"synthetic_pairs": 8, "crop": 32}
PARTS = SearchParts(None, FusionLoss(gradient=0.4, intensity=0.5), FusionLoss(intensity=1.0), None, ALONE)


class TinyTask(nn.Module):
    """Guesses masks; smooth, so that gradients can be compared to the last digits."""

    task = "segmentation"

    def __init__(self, classes=("background", "object"), norm=False):
        super().__init__()
        self.classes = classes
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.second = nn.Conv2d(3, 1, 1)
        self.calls = 0

    def loss(self, images, batch):
        self.calls += 1
        assert images.min() >= 0
        assert images.max() <= 1
        answer = self.second(self.norm(self.first(images)).sigmoid())
        return (answer[:, 0] - batch.masks).square().mean()


@pytest.fixture
def scored(tiny):
    """A function that makes the config and the state of a tiny search by a `TinyTask`."""

    def make(step, *, norm=False, scored=True, space=None, **sections):
        # What is not clipped to [0, 1] has gradients.
        config = tiny(downstream={"kind": "segmentation"}, space={"head": "envelope", **(space or {})}, **sections)
        torch.manual_seed(1)
        task = TinyTask(norm=norm)
        scorer = Scorer(task, learning_rate=2e-3, weight_decay=0.05) if scored else None
        torch.manual_seed(0)
        state = set_up(config, CPU, scorer)
        state.step = step
        return config, state, task

    return make


def batches(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(4, 2, 1, 16, 16, generator=generator, dtype=dtype)
    masks = torch.randint(0, 2, (2, 2, 16, 16), generator=generator)
    return [PairBatch(*images[2 * i : 2 * i + 2], masks=masks[i]) for i in range(2)]


def test_gradients_are_those_of_the_formulas(scored):
    settings = {"steps": 20, "temperature": (0.8, 0.4), "weight_clip": 1e9}
    config, state, task = scored(9, space={"channels": 4}, search=settings)
    state.supernet.double()
    task.double()
    logits = torch.randn(state.logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    state.logits = logits.clone().requires_grad_()
    state.architecture_optimizer = torch.optim.Adam([state.logits])
    weight_batch, architecture_batch = batches(torch.float64)

    a, w = logits.clone().requires_grad_(), list(state.supernet.parameters())

    def fused(batch):
        return state.supernet(batch.first, batch.second, (a / (0.8 * 0.5 ** (9 / 19))).softmax(-1))

    image = fused(architecture_batch).clamp(0, 1)
    F_a, *rest = torch.autograd.grad(task.loss(image, architecture_batch), [a, *w, *task.parameters()])
    F_w, F_task = rest[: len(w)], rest[len(w) :]
    f = PARTS.inner(fused(weight_batch), weight_batch.first, weight_batch.second)
    f_a, *f_w = torch.autograd.grad(f, [a, *w])
    dot = sum((x * y).sum() for x, y in zip(F_w, f_w, strict=True))
    F_square, f_square = (sum(x.square().sum() for x in gradients) for gradients in (F_w, f_w))
    c = dot / (f_square + 1e-8 * (F_square * f_square).sqrt())
    G = F_a - c * f_a

    outer_loss = task.loss(image, architecture_batch).item()
    row = search_step(config, state, PARTS, weight_batch, architecture_batch)
    exact = {"rtol": 1e-9, "atol": 1e-14}
    torch.testing.assert_close(state.logits.grad, G, **exact)
    for parameter, gradient in zip(task.parameters(), F_task, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, **exact)
    for parameter, gradient in zip(w, f_w, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, **exact)
    assert row["coefficient"] == pytest.approx(c.item(), rel=1e-9)
    # Of the logits alone, although the task network's parameters are outer variables too.
    assert row["ratio"] == pytest.approx((G.norm() / F_a.norm()).item(), rel=1e-9)
    assert row["outer_loss"] == pytest.approx(outer_loss, rel=1e-9)


def test_in_the_warm_up_the_task_network_learns_and_the_rest_goes_its_way(scored):
    weight_batch, architecture_batch = batches()
    config, state, task = scored(0)
    _, alone, _ = scored(0, scored=False)
    with torch.no_grad():
        probabilities = torch.full_like(state.logits, 1 / 3)
        image = state.supernet(architecture_batch.first, architecture_batch.second, probabilities).clamp(0, 1)
    expected = torch.autograd.grad(task.loss(image, architecture_batch), list(task.parameters()))
    before = [parameter.detach().clone() for parameter in task.parameters()]
    for state.step in range(3):
        row = search_step(config, state, PARTS, weight_batch, architecture_batch)
        alone.step = state.step
        expected_row = search_step(config, alone, PARTS, weight_batch, None)
        if state.step == 0:
            for parameter, gradient in zip(task.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
        assert math.isfinite(row["outer_loss"])
        assert "ratio" not in row
        assert {key: row[key] for key in expected_row} == expected_row
    assert_same(list(state.supernet.parameters()), list(alone.supernet.parameters()))
    assert not state.logits.detach().any()
    assert not any(torch.equal(*pair) for pair in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize("mixture", ["softmax", "gumbel"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_pass_of_the_task_network_makes_all_its_gradients(scored, estimator, mixture):
    config, state, task = scored(5, norm=True, search={"estimator": estimator, "mixture": mixture})
    weight_batch, architecture_batch = batches()
    before = [parameter.detach().clone() for parameter in task.parameters()]
    row = search_step(config, state, PARTS, weight_batch, architecture_batch)
    assert task.calls == 1
    assert task.norm.num_batches_tracked == 1
    assert task.norm.running_mean.abs().sum() > 0
    assert row["ratio"] > 0
    assert state.logits.detach().any()
    assert not any(torch.equal(*pair) for pair in zip(before, task.parameters(), strict=True))


def test_the_gradients_of_the_task_network_are_clipped(scored):
    config, state, task = scored(5, norm=True, search={"weight_clip": 1e-3})
    search_step(config, state, PARTS, *batches())
    norms = torch.stack([parameter.grad.norm() for parameter in task.parameters()])
    assert norms.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_weight_decay_shrinks_the_kernels_of_the_task_network_and_no_bias_or_norm():
    task = TinyTask(norm=True)
    scorer = Scorer(task, learning_rate=0.1, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    scorer.step(1.0)
    for name, parameter in task.named_parameters():
        kernel = name in ("first.weight", "second.weight")
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if kernel else 1), msg=name)


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(tiny):
    """With the running statistics of the task network, which the pass that failed has moved."""
    config = tiny(
        data=SMALL,
        search={"weight_clip": 1e30, "checkpoint_every": 1, "validate_every": 1},
        downstream={**DETECTION, "learning_rate": 1e30},
    )
    states = []

    def keep(step, losses):
        states.append(load_checkpoint(config.run / "checkpoint.pt"))

    words = r"^step (\d+): .* is not finite: .*search\.weight_clip, or downstream\.learning_rate and start anew"
    with pytest.raises(UserError, match=words):
        search(config, on_validation=keep)
    assert_same(load_checkpoint(config.run / "checkpoint.pt"), states[-1])
    assert any("running_mean" in name for name in states[-1]["state"]["scorer"]["network"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of labelled scenes."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 8, height=48, width=64, seed=0)
    return root


def test_a_search_by_detection_from_pairs_to_a_network_and_its_detector(tiny, scenes):
    config = tiny(
        "found",
        data={"root": str(scenes), "crop": 32},
        space={"head": "envelope"},
        search={"validate_every": 8},
        downstream=DETECTION,
    )
    genotype = search(config).genotype
    assert load_genotype(config.run) == genotype
    assert genotype.provenance["downstream"] == {
        "kind": "detection",
        "network": "compact",
        "init": None,
        "classes": ["person", "bicycle", "car"],
    }
    assert sum(genotype.provenance["data"][f"{part}_pairs"] for part in ("training", "architecture", "validation")) == 8
    rows = read_history(config.run / "history.jsonl")
    assert all(math.isfinite(row["outer_loss"]) and math.isfinite(row["task_gradient_norm"]) for row in rows)
    assert [row["entropy"] == 1 for row in rows] == [True] * 4 + [False] * 8
    assert [("ratio" in row, "validation" in row) for row in rows] == [
        (step >= 4, step in (7, 11)) for step in range(12)
    ]
    metrics = genotype.provenance["metrics"]
    assert metrics["supernet"]["mean"] == pytest.approx(rows[-1]["validation"]["mean"])
    assert math.isfinite(metrics["derived"]["mean"]["outer_loss"])

    detector = load_task_network(config.run)
    assert detector.classes == ("person", "bicycle", "car")
    state = load_checkpoint(config.run / "checkpoint.pt")["state"]
    assert_same(dict(detector.state_dict()), dict(state["scorer"]["network"]))
    other = CompactDetector(detector.classes, 8)
    start_from(other, str(config.run))
    assert_same(dict(other.state_dict()), dict(detector.state_dict()))


@pytest.mark.slow
def test_a_search_by_segmentation(tiny):
    config = tiny(data=SMALL, downstream={"kind": "segmentation"}, search={"steps": 3, "warmup": 1})
    genotype = search(config).genotype
    assert genotype.provenance["downstream"]["network"] == "segformer-tiny"
    assert load_task_network(config.run).task == "segmentation"


def test_pairs_without_labels_are_one_line_and_nothing_is_written(tiny, tmp_path):
    write_scenes(tmp_path / "pairs", 4, height=48, width=64, seed=0)
    for path in (tmp_path / "pairs" / "boxes").iterdir():
        path.unlink()
    config = tiny(data={"root": str(tmp_path / "pairs")}, downstream=DETECTION)
    with pytest.raises(UserError, match="has no labels for detection") as caught:
        search(config)
    assert "\n" not in str(caught.value)
    assert not config.run.exists()


def test_a_detector_that_is_not_there_is_one_line_and_nothing_is_written(tiny):
    config = tiny(downstream={**DETECTION, "init": "nowhere"})
    with pytest.raises(UserError, match="no task network 'nowhere'"):
        search(config)
    assert not config.run.exists()
