"""The named losses. Those of the tasks are finite everywhere, and least at the image that the task asks for."""

import pytest
import torch
from torch import Tensor

from timfuse.genotypes import TASKS
from timfuse.objectives import (
    NAMED_LOSSES,
    TASK_LOSSES,
    FusionLoss,
    exposed_target,
    functional_target,
    sharper_target,
    training_loss,
)
from timfuse.objectives.window import gaussian_filter

SIZE = 64
every_task = pytest.mark.parametrize("task", TASKS)


def smooth(seed: int, sigma: float = 2.0) -> Tensor:
    """A grey texture, (1, 1, SIZE, SIZE), over all of [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    image = gaussian_filter(torch.rand(1, 1, SIZE, SIZE, generator=generator).double(), 17, sigma, "reflect")
    return (image - image.min()) / (image.max() - image.min())


def disc(radius: float, row: int = SIZE // 2, column: int = SIZE // 2) -> Tensor:
    """1 in a disc with a soft edge, (1, 1, SIZE, SIZE)."""
    rows, columns = torch.meshgrid(torch.arange(SIZE).double(), torch.arange(SIZE).double(), indexing="ij")
    distance = torch.hypot(rows - row, columns - column)
    return torch.sigmoid(radius - distance)[None, None]


def pair(task: str, seed: int) -> tuple[Tensor, Tensor]:
    """Two made-up sources."""
    texture, left = smooth(seed), torch.arange(SIZE) < SIZE // 2
    if task == "infrared-visible":  # a warm body before a cold ground, and a texture by day
        return 0.2 + 0.7 * disc(10), 0.1 + 0.6 * texture
    if task == "mri-ct":  # soft tissue, and a ring of bone
        return 0.7 * texture * disc(22), 0.95 * (disc(28) - disc(23))
    if task in ("mri-pet", "mri-spect"):  # a head, and a spot of activity in it
        return (0.4 + 0.6 * texture) * disc(28), 0.6 * disc(14, row=28)
    if task == "multi-exposure":  # each is good on the side where the other is bad
        scene = 0.3 + 0.4 * texture
        return torch.where(left, scene, 0.1 * scene), torch.where(left, 1 - 0.1 * (1 - scene), scene)
    sharp = smooth(seed, 0.7)
    blurred = gaussian_filter(sharp, 13, 2.0, "reflect")
    return torch.where(left, sharp, blurred), torch.where(left, blurred, sharp)


TARGETS = {
    "infrared-visible": torch.maximum,
    "mri-ct": torch.maximum,
    "mri-pet": functional_target,
    "mri-spect": functional_target,
    "multi-exposure": exposed_target,
    "multi-focus": sharper_target,
}


def test_every_task_has_a_loss():
    assert list(TASK_LOSSES) == list(TASKS)
    assert TASK_LOSSES.items() <= NAMED_LOSSES.items()


def test_the_losses_that_the_shipped_networks_were_trained_with_keep_their_names():
    tuned = {"intensity": 0, "gradient": 0, "ssim": 0, "structure": 3, "fidelity": 1, "edges": 2, "mef_structure": 3}
    tuned |= {"correlations": 0.7, "smear": 4, "range": 5}
    stronger = tuned | {"fidelity": 2, "edges": 5, "mef_structure": 4, "correlations": 0.9, "smear": 100}
    exposed = tuned | {"fidelity": 2, "edges": 4, "mef_structure": 80, "smear": 30}
    focused = tuned | {"edges": 20, "mef_structure": 10, "structure": 1, "correlations": 0}
    assert NAMED_LOSSES["quality"] == FusionLoss(**tuned)
    assert NAMED_LOSSES["quality-fidelity"] == FusionLoss(**stronger)
    assert NAMED_LOSSES["quality-exposure"] == FusionLoss(**exposed)
    assert NAMED_LOSSES["quality-focus"] == FusionLoss(**focused)
    searched = {"ssim": 0, "structure": 8, "edges": 8, "differences": 0.7, "information": 0.6, "range": 5}
    assert NAMED_LOSSES["search-outer"] == FusionLoss(intensity=0, gradient=0, **searched)
    assert NAMED_LOSSES["search-inner"] == FusionLoss(intensity=1, gradient=1, **searched)
    assert NAMED_LOSSES["saliency"] == FusionLoss(1.0, 0.2, 0.05)
    assert NAMED_LOSSES["saliency-outer"] == FusionLoss(0.5, 0.4, 0.1)


@pytest.mark.parametrize("task", [*TASKS, "mine"])
def test_the_default_losses_of_a_task(task):
    names = {
        "infrared-visible": "quality-fidelity",
        "multi-exposure": "quality-exposure",
        "multi-focus": "quality-focus",
        "mine": "saliency",
    }
    assert training_loss(task) == NAMED_LOSSES[names.get(task, "quality")]


@every_task
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_with_its_first_two_derivatives_at_flat_images(task, level, dtype):
    first = torch.full((1, 1, 20, 20), level, dtype=dtype)
    for second in (first, 1 - first):
        for start in (first, (first + second) / 2):
            fused = start.clone().requires_grad_()
            value = TASK_LOSSES[task](fused, first, second)
            (gradient,) = torch.autograd.grad(value, fused, create_graph=True)
            (second_derivative,) = torch.autograd.grad(gradient.square().sum(), fused, materialize_grads=True)
            assert value.isfinite()
            assert gradient.isfinite().all()
            assert second_derivative.isfinite().all()


@every_task
@pytest.mark.parametrize("seed", range(3))
def test_least_at_what_the_task_wants(task, seed):
    first, second = pair(task, seed)
    candidates = {
        "first": first,
        "second": second,
        "average": (first + second) / 2,
        "maximum": torch.maximum(first, second),
        "target": TARGETS[task](first, second),
    }
    values = {name: TASK_LOSSES[task](image, first, second).item() for name, image in candidates.items()}
    if TARGETS[task] is torch.maximum:
        del values["maximum"]
    assert min(values, key=values.get) == "target", values


@pytest.mark.parametrize("task", ["infrared-visible", "multi-exposure", "multi-focus"])
def test_symmetric_where_the_sources_are_alike(task):
    fused = smooth(9)
    first, second = pair(task, 0)
    torch.testing.assert_close(TASK_LOSSES[task](fused, first, second), TASK_LOSSES[task](fused, second, first))


@pytest.mark.parametrize("task", ["mri-pet", "mri-spect"])
def test_not_symmetric_where_one_source_is_the_activity(task):
    first, second = pair(task, 0)
    loss = TASK_LOSSES[task]
    assert loss(functional_target(first, second), first, second) < loss(functional_target(second, first), first, second)


@every_task
def test_descent_comes_near_the_best_candidate(task):
    first, second = pair(task, 0)
    loss = TASK_LOSSES[task]
    fused = ((first + second) / 2).requires_grad_()
    optimiser = torch.optim.Adam([fused], lr=0.02)
    start = loss(fused, first, second).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss(fused, first, second).backward()
        optimiser.step()
    best = loss(TARGETS[task](first, second), first, second).item()
    assert loss(fused, first, second).item() < best + 0.1 * (start - best)
