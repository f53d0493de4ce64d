"""The meta-gradients: their error against closed forms, a meta-step in plain passes, and memory per inner step.

Run: python -m benchmarks.meta_gradients (from the root of the repository, with timfuse installed).

The errors are on quadratics in float64, w'A_k w / 2 - b_k'w for step k, where the eigenvalues of each A go from 0.1 to
2. Time and memory are those of the shipped network `ivif-fast` and the loss of its task, on 4 crops of 96 x 96 for each
step and for the query. A plain pass is a loss and its gradient by all weights, and nothing else. Memory is the most
that the live tensors made on the way occupy at a time.
"""

import statistics
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.supernet import interleaved, peak_bytes, ratio
from timfuse.bilevel import META_GRADIENTS, Adaptation, MetaGradient, layers_of
from timfuse.data import SyntheticPairs, unit_range
from timfuse.objectives import TASK_LOSSES
from timfuse.operators.network_folders import find_network, load_network_folder
from timfuse.runtime.memory import keep_freed_memory

STEPS = 5
RATES = (0.1, 0.3, 0.2)  # of body, neck and head
STRENGTH = 1.0
HESSIAN_PRODUCTS = 50
CROPS, CROP = 4, 96
MEMORY_STEPS = (1, 2, 4, 8)

Batch = tuple[Tensor, Tensor]


class Layers(nn.Sequential):
    """Three layers whose weights, one after the other, are the vector w of the quadratics."""

    def __init__(self, w: Tensor) -> None:
        layers = {"body": nn.Linear(4, 4), "neck": nn.Linear(4, 2, bias=False), "head": nn.Linear(4, 2)}
        super().__init__(OrderedDict(layers))
        self.double()
        vector_to_parameters(w, self.parameters())


SIZES = (20, 8, 10)  # weights of each layer


def quadratic_loss(module: nn.Module, batch: Batch) -> Tensor:
    A, b = batch
    w = parameters_to_vector(module.parameters())
    return w @ A @ w / 2 - b @ w


def quadratics(count: int) -> tuple[Tensor, list[Batch]]:
    """The initial weights and some quadratics."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, dtype=torch.float64, generator=generator)
    size = sum(SIZES)
    bases = [torch.linalg.qr(normal(size, size))[0] for _ in range(count)]
    eigenvalues = torch.diag(torch.linspace(0.1, 2.0, size, dtype=torch.float64))
    return normal(size), [(basis @ eigenvalues @ basis.T, normal(size)) for basis in bases]


def closed_form(name: str, theta: Tensor, support: list[Batch], query: Batch, rates: tuple[float, ...]) -> Tensor:
    """The gradient by the initial weights as the method defines it, with matrices alone."""
    adapting = [rate if name != "anil" or layer == 2 else 0.0 for layer, rate in enumerate(rates)]
    by_weight = torch.cat([torch.full((size,), rate).double() for size, rate in zip(SIZES, adapting, strict=True)])
    eye = torch.eye(len(theta)).double()
    pull = STRENGTH if name == "imaml" else 0.0
    w, jacobian, followed = theta, eye, torch.zeros_like(theta)
    for A, b in support:
        gradient = A @ w - b + pull * (w - theta)
        jacobian = (eye - torch.diag(by_weight) @ A) @ jacobian
        w, followed = w - by_weight * gradient, followed + gradient
    outer = query[0] @ w - query[1]
    if name == "imaml":
        curvature = torch.stack([A for A, _ in support]).mean(0)
        return torch.linalg.solve(eye + curvature / STRENGTH, outer)
    return {"maml": jacobian.T @ outer, "anil": jacobian.T @ outer, "fomaml": outer, "reptile": followed}[name]


def on_quadratics(name: str, steps: int, rates: tuple[float, ...] = RATES) -> tuple[Tensor, Tensor]:
    """The gradient that the method gives, and its closed form."""
    theta, (query, *support) = quadratics(1 + steps)
    module = Layers(theta.clone())
    layers = layers_of(module)
    chosen = {layer: rate for layer, rate in zip(layers, rates, strict=True) if name != "anil" or layer == "head"}
    adaptation = Adaptation([layers[layer] for layer in chosen], torch.tensor(list(chosen.values())).double())
    exact = {"strength": STRENGTH, "iterations": HESSIAN_PRODUCTS, "tolerance": 1e-12}
    options = exact if name == "imaml" else {}
    estimate = META_GRADIENTS[name](module, quadratic_loss, support, query, adaptation, **options)
    return parameters_to_vector(estimate.initial), closed_form(name, theta, support, query, rates)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def errors() -> Table:
    table = Table("method", *(f"{steps} steps" for steps in (1, STEPS, 20)), title="error against the closed form")
    for name in META_GRADIENTS:
        table.add_row(name, *(f"{relative(*on_quadratics(name, steps)):.1e}" for steps in (1, STEPS, 20)))
    return table


def towards_maml() -> Table:
    """How far FOMAML is from MAML as all rates go to zero together."""
    scales = (1.0, 1e-1, 1e-2, 1e-3)
    differences = []
    for scale in scales:
        rates = tuple(scale * rate for rate in RATES)
        differences.append(relative(on_quadratics("fomaml", STEPS, rates)[0], on_quadratics("maml", STEPS, rates)[0]))
    table = Table("", *(f"rates x {scale:g}" for scale in scales), title=f"FOMAML against MAML, {STEPS} steps")
    table.add_row("relative difference", *(f"{difference:.1e}" for difference in differences))
    return table


class FewShot:
    """One task of the shipped network: its loss, batches and adaptation."""

    def __init__(self) -> None:
        genotype, self.network = load_network_folder(find_network("ivif-fast"))
        self.fusion_loss = TASK_LOSSES[genotype.task]
        scenes = SyntheticPairs("infrared-visible", (1 + max(MEMORY_STEPS)) * CROPS, CROP, seed=0)
        sources = (
            torch.stack([torch.from_numpy(unit_range(scenes[index][source]))[None] for index in range(len(scenes))])
            for source in (0, 1)
        )
        self.query, *self.support = list(zip(*(images.split(CROPS) for images in sources), strict=True))

        self.losses = 0

    def loss(self, network: nn.Module, pair: Batch) -> Tensor:
        self.losses += 1
        return self.fusion_loss(network(*pair), *pair)

    def plain_pass(self, pair: Batch) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.loss(self.network, pair), list(self.network.parameters()))

    def plain_passes(self) -> None:
        for pair in (*self.support[:STEPS], self.query):
            self.plain_pass(pair)

    def meta_gradient(self, name: str, steps: int) -> MetaGradient:
        layers = list(layers_of(self.network, "head" if name == "anil" else "").values())
        adaptation = Adaptation(layers, torch.full((len(layers),), 1e-3))
        return META_GRADIENTS[name](self.network, self.loss, self.support[:steps], self.query, adaptation)


def times(task: FewShot) -> Table:
    unit = f"{STEPS + 1} plain passes"
    actions: dict[str, Callable[[], Any]] = {unit: task.plain_passes}
    actions |= {
        name: partial(task.meta_gradient, name, STEPS) for name in ("fomaml", "reptile", "maml", "anil", "imaml")
    }
    seconds = interleaved(actions)
    table = Table(title=f"one meta-step of one task, {STEPS} inner steps, {torch.get_num_threads()} threads")
    for column in ("what", "losses", "median ms", f"in {unit}"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, values in seconds.items():
        before = task.losses
        actions[name]()
        losses, milliseconds = task.losses - before, f"{1e3 * statistics.median(values):.0f}"
        table.add_row(name, str(losses), milliseconds, f"{ratio(seconds, name, unit):.3f}")
    return table


def slope(values: list[float]) -> float:
    """Of the least-squares line through the values at `MEMORY_STEPS`."""
    steps, heights = torch.tensor(MEMORY_STEPS).double(), torch.tensor(values).double()
    centred = steps - steps.mean()
    return ((centred @ heights) / (centred @ centred)).item()


def memory(task: FewShot) -> Table:
    unit = peak_bytes(lambda: task.plain_pass(task.query)) / 2**20
    table = Table(title=f"peak memory of one meta-gradient in MB, where a plain pass has {unit:.1f}")
    columns = ("method", *(f"K = {steps}" for steps in MEMORY_STEPS), "per step", "in plain passes")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    for name in ("maml", "fomaml"):
        peaks = [peak_bytes(partial(task.meta_gradient, name, steps)) / 2**20 for steps in MEMORY_STEPS]
        table.add_row(name, *(f"{peak:.1f}" for peak in peaks), f"{slope(peaks):.2f}", f"{slope(peaks) / unit:.2f}")
    return table


def main() -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    console = Console(width=110)
    console.print(errors())
    console.print(towards_maml())
    task = FewShot()
    console.print(times(task))
    console.print(memory(task))


if __name__ == "__main__":
    main()
