"""Each strategy's gradients are those that plain autograd, or a closed form, gives in double precision."""

import copy

import pytest
import torch

from timfuse.data import Objects, PairBatch
from timfuse.downstream import CompactDetector, GuidingDetectors
from timfuse.finetune.promise import Promise
from timfuse.finetune.strategies import DetFusion, Frozen, Joint, Lagrangian, LearnedLoss, smooth
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.objectives import FusionLoss
from timfuse.objectives.content import object_content_loss
from timfuse.operators import build_network

CLASSES = ("person", "car")
LOSS = FusionLoss()
RATE = 1e-3


@pytest.fixture
def network():
    """A small fusion network, as it is while it is finetuned."""
    torch.manual_seed(0)
    cell = CellGenotype("successive", ("residual_k3_d1",))
    return build_network(Genotype("small", "infrared-visible", "fusion", 2, (cell,))).double().eval()


@pytest.fixture
def task():
    torch.manual_seed(1)
    return CompactDetector(CLASSES, 8).double().train()


@pytest.fixture
def detectors():
    torch.manual_seed(2)
    return GuidingDetectors(CLASSES, 8).double()


def batch_of(seed=0):
    """Two pairs, the second without objects, that leave the fused image partly outside of [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, 2, 1, 64, 64, generator=generator, dtype=torch.float64)
    boxes = torch.tensor([[8.0, 10.0, 30.0, 40.0], [40.0, 4.0, 60.0, 50.0]])
    none = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return PairBatch(first, second, (Objects(boxes, torch.tensor([0, 1])), none))


def told(image):
    """The image, with the gradient G of a loss by it replaced by M G M^T, a blur with replicated borders."""
    size = image.shape[-1]
    line = torch.zeros(size, size, dtype=image.dtype)
    for row in range(size):
        for tap, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            line[row, min(max(row + tap, 0), size - 1)] += weight
    change = image - image.detach()
    return image.detach() + line.T @ change @ line


def losses(network, task, batch, weights=None):
    """L_F and L_T; the weights are those of `LearnedLoss`, whose fusion network L_T does not train."""
    fused = network(batch.first, batch.second)
    image = fused.clamp(0, 1)
    return LOSS(fused, batch.first, batch.second, weights), task.loss(told(image) if weights is None else image, batch)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


def assert_gradients(module, expected, rtol=1e-9):
    got = [parameter.grad for parameter in module.parameters()]
    assert sum(gradient.abs().sum() for gradient in expected) > 0
    torch.testing.assert_close(got, list(expected), rtol=rtol, atol=1e-12)


def has_no_gradients(module):
    return all(parameter.grad is None for parameter in module.parameters())


def shaken(network, by=0.05):
    """The same network elsewhere."""
    other = copy.deepcopy(network)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return other


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def snapshot(module):
    return copy.deepcopy(module.state_dict())


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.5])
def test_joint_weighs_the_task_for_the_fusion_network_alone(network, task, weight):
    batch = batch_of()
    row = Joint(network, task, LOSS, weight).backward(0, RATE, batch, batch)
    fusion_loss, task_loss = losses(network, task, batch)
    assert row == pytest.approx({"fusion_loss": fusion_loss.item(), "task_loss": task_loss.item()})
    assert_gradients(network, gradients(fusion_loss + weight * task_loss, network))
    assert_gradients(task, gradients(task_loss, task))


@pytest.mark.parametrize("strategy", ["joint", "lagrangian"])
def test_what_is_fused_may_be_corrupted_and_is_compared_with_what_is_not(network, task, strategy):
    clean, seen = batch_of(), batch_of(1)._replace(objects=batch_of().objects)
    made = Joint(network, task, LOSS, 1.0) if strategy == "joint" else lagrangian(network, task, shaken(network))
    row = made.backward(0, RATE, seen, clean)
    fused = network(seen.first, seen.second)
    assert row["fusion_loss"] == pytest.approx(LOSS(fused, clean.first, clean.second).item())
    assert row["task_loss"] == pytest.approx(task.loss(fused.clamp(0, 1), seen).item())


def test_nothing_is_asked_for_that_changes_from_pixel_to_pixel(network, task):
    """The gradient of the task's loss by the fused image has no part at the frequency of pixel pairs."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    for pattern in (rows, columns, rows + columns):
        dots = ((-1.0) ** pattern).double()[None, None]
        assert (smooth(dots)[..., 1:-1, 1:-1] == 0).all()
    gradient = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    assert smooth(gradient).mean() == pytest.approx(gradient.mean().item(), abs=1e-3)


def test_a_frozen_task_network_with_weight_0_is_not_asked(network, task):
    """It may have no loss; the fusion network is trained by the fusion loss alone."""
    task.requires_grad_(False)
    task.loss = None
    batch = batch_of()
    row = Joint(network, task, LOSS, 0.0).backward(0, RATE, batch, batch)
    fusion_loss = LOSS(network(batch.first, batch.second), batch.first, batch.second)
    assert row == {"fusion_loss": pytest.approx(fusion_loss.item())}
    assert_gradients(network, gradients(fusion_loss, network))


PROMISE = Promise(start=1.0, trivial=1.5, spread=0.5, tolerance=0.05)


def lagrangian(network, task, reference, promise=PROMISE, rate=0.5, multiplier=0.7):
    strategy = Lagrangian(network, task, LOSS, reference=reference, rate=rate, multiplier=multiplier)
    strategy.promise = promise
    return strategy


def test_lagrangian_descends_along_the_priced_sum_divided_by_the_price(network, task):
    reference = shaken(network).requires_grad_(False)
    batch = batch_of()
    row = lagrangian(network, task, reference).backward(0, RATE, batch, batch)
    fusion_loss, task_loss = losses(network, task, batch)
    before = losses(reference, task, batch)[0].item()
    part = (fusion_loss - before) / 0.5
    assert abs(part.item()) > 1e-3
    assert_gradients(network, gradients((task_loss + 0.7 * part) / 1.7, network))
    assert_gradients(task, gradients(task_loss, task))
    expected = {"fusion_loss": fusion_loss.item(), "task_loss": task_loss.item(), "excess": part.item() - 0.05}
    assert row == pytest.approx({**expected, "multiplier": 0.7})


def test_lagrangian_with_a_loss_below_zero_still_charges_for_more_of_it(network, task, monkeypatch):
    monkeypatch.setitem(globals(), "LOSS", lambda *arguments: FusionLoss()(*arguments) - 10)
    batch, reference = batch_of(), shaken(network).requires_grad_(False)
    row = lagrangian(network, task, reference).backward(0, RATE, batch, batch)
    before = losses(reference, task, batch)[0].item()
    assert before < 0
    fusion_loss, task_loss = losses(network, task, batch)
    assert row["excess"] == pytest.approx((fusion_loss.item() - before) / 0.5 - 0.05)
    assert_gradients(network, gradients((task_loss + 0.7 * fusion_loss / 0.5) / 1.7, network))


def test_the_multiplier_ascends_by_the_excess_over_the_tolerance(network, task):
    reference = shaken(network).requires_grad_(False)
    frozen = snapshot(reference)
    promise = Promise(start=1.0, trivial=2.0, spread=4.0, tolerance=0.01)
    strategy = lagrangian(network, task, reference, promise, rate=3.0, multiplier=0.2)
    optimizer = torch.optim.AdamW([*network.parameters(), *task.parameters()], lr=1e-2)
    price = 0.2
    for step in range(4):
        optimizer.zero_grad()
        row = strategy.backward(step, RATE, batch_of(step), batch_of(step))
        assert row["multiplier"] == pytest.approx(price)
        price = max(0.0, price + 3.0 * row["excess"])
        assert strategy.state_dict()["multiplier"] == pytest.approx(price)
        optimizer.step()
    assert same(reference.state_dict(), frozen)
    assert has_no_gradients(reference)


def test_a_promise_kept_by_far_costs_nothing_in_the_end(network, task):
    strategy = lagrangian(
        network, task, copy.deepcopy(network).requires_grad_(False), Promise(0.0, 1.0, 1.0, 1.0), rate=5.0
    )
    batch = batch_of()
    strategy.backward(0, RATE, batch, batch)
    network.zero_grad()
    assert strategy.backward(1, RATE, batch, batch)["multiplier"] == 0
    assert_gradients(network, gradients(losses(network, task, batch)[1], network))


def test_the_state_of_lagrangian_comes_back(network, task):
    strategy = lagrangian(network, task, shaken(network).requires_grad_(False), multiplier=0.4)
    state = copy.deepcopy(strategy.state_dict())
    other = lagrangian(network, task, shaken(network, 0.3).requires_grad_(False), multiplier=9.0)
    other.load_state_dict(state)
    batch = batch_of()
    assert other.backward(0, RATE, batch, batch) == strategy.backward(0, RATE, batch, batch)
    assert same(other.state_dict()["reference"], state["reference"])


def learned(network, task, estimator="gauss_newton", options=None, dtype=torch.float64):
    """The strategy with weights of the sources that have learnt something."""
    strategy = LearnedLoss(network, task, LOSS, estimator, options or {})
    torch.manual_seed(3)
    for parameter in strategy.own.outer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    strategy.own.to(dtype)
    return strategy


@pytest.mark.parametrize("clip", [1e6, 0.01])
def test_learned_loss_by_gauss_newton_is_the_closed_form(network, task, clip):
    outer_batch, inner_batch = batch_of(), batch_of(1)
    strategy = learned(network, task, options={"clip": clip, "epsilon": 0.0})
    row = strategy.backward(0, RATE, outer_batch, inner_batch)
    task_loss, fusion_loss = (
        losses(network, task, batch, strategy.own(batch.first, batch.second))[place]
        for batch, place in ((outer_batch, 1), (inner_batch, 0))
    )
    outer, inner = (
        torch.cat([each.flatten() for each in gradients(loss, network)]) for loss in (task_loss, fusion_loss)
    )
    exact = (outer @ inner / (inner @ inner)).item()
    assert 0.01 < abs(exact) < 1e6
    coefficient = max(-clip, min(clip, exact))
    by_own = gradients(fusion_loss, strategy.own)
    assert_gradients(strategy.own, [-coefficient * gradient for gradient in by_own])
    assert_gradients(task, gradients(task_loss, task))
    assert_gradients(network, gradients(fusion_loss, network))
    assert row["fusion_loss"] == pytest.approx(fusion_loss.item())
    assert row["task_loss"] == pytest.approx(task_loss.item())
    assert row["coefficient"] == pytest.approx(coefficient)
    share = strategy.own(outer_batch.first, outer_batch.second)[0].mean().item()
    assert row["weight_of_first"] == pytest.approx(share)


def test_learned_loss_begins_with_the_weights_of_the_fusion_loss(network, task):
    strategy = LearnedLoss(network, task, LOSS, "gauss_newton", {})
    strategy.own.double()
    batch = batch_of()
    row = strategy.backward(0, RATE, batch, batch)
    assert row["fusion_loss"] == pytest.approx(losses(network, task, batch)[0].item(), rel=1e-12)
    assert strategy.own.outer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        ("finite_difference", {}),
        ("unrolled", {}),
        ("neumann", {}),
        ("conjugate_gradient", {"damping": 100.0}),  # which stops at once where the curvature is negative
    ],
)
def test_learned_loss_with_the_other_estimators(network, task, estimator, options):
    network.float()
    task.float()
    outer_batch, inner_batch = (
        batch._replace(first=batch.first.float(), second=batch.second.float()) for batch in (batch_of(), batch_of(1))
    )
    strategy = learned(network, task, estimator, options, torch.float32)
    before = snapshot(network)
    row = strategy.backward(0, RATE, outer_batch, inner_batch)
    assert all(torch.tensor(value).isfinite() for value in row.values())
    fusion_loss = losses(network, task, inner_batch, strategy.own(inner_batch.first, inner_batch.second))[0]
    inner = [parameter.grad for parameter in network.parameters()]
    torch.testing.assert_close(inner, list(gradients(fusion_loss, network)), rtol=1e-3, atol=1e-5)
    for module in (strategy.own, task):
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
        assert sum(parameter.grad.abs().sum() for parameter in module.parameters()) > 0
    assert same(network.state_dict(), before)


@pytest.mark.parametrize(
    ("images", "make"),
    [
        ("fused", None),
        ("first", lambda first, second: first),
        ("second", lambda first, second: second),
        ("average", lambda first, second: (first + second) / 2),
    ],
)
def test_frozen_trains_the_task_network_alone(network, task, images, make):
    batch, before = batch_of(), snapshot(network)
    strategy = Frozen(network, task, LOSS, images)
    row = strategy.backward(0, RATE, batch, batch_of(1))
    with torch.no_grad():
        expected = (make or network)(batch.first, batch.second)
    assert torch.equal(strategy.fuse(network, batch.first, batch.second), expected)
    task_loss = task.loss(expected.clamp(0, 1), batch)
    assert row == {"task_loss": pytest.approx(task_loss.item())}
    assert_gradients(task, gradients(task_loss, task))
    assert has_no_gradients(network)
    assert same(network.state_dict(), before)


def test_blend_is_the_average_but_in_training_where_it_lies_between_the_sources(network, task, monkeypatch):
    batch = batch_of()
    strategy = Frozen(network, task, LOSS, "blend")
    average = (batch.first + batch.second) / 2
    assert torch.equal(strategy.fuse(network, batch.first, batch.second), average)
    seen, loss = [], task.loss
    monkeypatch.setattr(task, "loss", lambda images, batch: seen.append(images.clone()) or loss(images, batch))
    for seed in range(8):
        torch.manual_seed(seed)
        strategy.backward(0, RATE, batch, batch)
    torch.manual_seed(0)
    strategy.backward(0, RATE, batch, batch)
    least, most = torch.minimum(batch.first, batch.second), torch.maximum(batch.first, batch.second)
    assert all(((image >= least - 1e-12) & (image <= most + 1e-12)).all() for image in seen)
    assert len({image.mean().item() for image in seen}) > 2
    assert torch.equal(seen[0], seen[-1])


def detfusion(network, task, detectors, weight=0.7, content=2.0):
    return DetFusion(network, task, LOSS, detectors=detectors, weight=weight, content=content, preparation=3)


def test_the_preparation_of_detfusion_trains_the_detectors_alone(network, task, detectors):
    batch = batch_of()
    boxes = [each.boxes.clone() for each in batch.objects]
    before = [snapshot(module) for module in (network, task)]
    expected = copy.deepcopy(detectors).train().loss(batch)
    strategy = detfusion(network, task, detectors.eval())
    assert strategy.own is detectors
    row = strategy.backward(2, RATE, batch, batch)
    assert row == {"detector_loss": pytest.approx(expected.item())}
    assert all(parameter.grad is not None for parameter in detectors.parameters())
    assert has_no_gradients(network)
    assert has_no_gradients(task)
    assert all(map(same, (network.state_dict(), task.state_dict()), before))
    statistics = detectors.first.stem[1]
    assert statistics.running_mean.abs().sum() > 0
    assert all(map(torch.equal, boxes, (each.boxes for each in batch.objects)))


@pytest.mark.parametrize(("weight", "content"), [(0.7, 2.0), (0.0, 0.0)])
def test_detfusion_guides_the_network_and_leaves_the_detectors_as_they_are(network, task, detectors, weight, content):
    batch = batch_of()
    boxes = [each.boxes.clone() for each in batch.objects]
    strategy = detfusion(network, task, detectors, weight, content)
    for _ in range(2):
        strategy.backward(0, RATE, batch, batch)
    detectors.zero_grad()
    before = snapshot(detectors)
    row = strategy.backward(3, RATE, batch, batch_of(1))
    assert same(detectors.state_dict(), before)
    assert has_no_gradients(detectors)
    assert all(parameter.requires_grad for parameter in detectors.parameters())
    assert all(map(torch.equal, boxes, (each.boxes for each in batch.objects)))

    detectors.eval()
    attention = detectors.attention(batch.first, batch.second).detach()
    fused = network(batch.first, batch.second, attention=attention)
    fusion_loss = LOSS(fused, batch.first, batch.second)
    by_content = object_content_loss(fused, batch.first, batch.second, boxes)
    guidance = detectors.guidance(told(fused.clamp(0, 1)), batch)
    task_loss = task.loss(fused.detach().clamp(0, 1), batch)
    # The loss of the task network has no part in what the fusion network is trained by.
    assert_gradients(network, gradients(fusion_loss + content * by_content + weight * guidance, network))
    assert_gradients(task, gradients(task_loss, task))
    expected = {"fusion_loss": fusion_loss, "content": by_content, "guidance": guidance, "task_loss": task_loss}
    assert row == pytest.approx({name: value.item() for name, value in expected.items()})


def test_the_attention_of_detfusion_is_seen_in_the_image(network, task, detectors):
    batch = batch_of()
    strategy = detfusion(network, task, detectors.train())
    plain = network(batch.first, batch.second)
    fused = strategy.fuse(network, batch.first, batch.second)
    assert (fused - plain).abs().max() > 1e-3
    attention = detectors.eval().attention(batch.first, batch.second)
    assert torch.equal(fused, network(batch.first, batch.second, attention=attention))
