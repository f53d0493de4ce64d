"""What a meta-initialisation starts with: the network and its tasks, the learning rates and the optimiser."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..genotypes import Genotype, load_genotype
from ..operators import build_network
from ..operators.training_memory import check_training_memory
from ..runtime.errors import UserError
from ..runtime.weights import load_into
from .meta_init_config import MetaInitConfig
from .meta_tasks import Task
from .rates import adapting_layers
from .trials import Trial, make_trials

EPISODES = 2  # of each task in a validation


@dataclass
class MetaInitState:
    """Everything that a step or a validation of a meta-initialisation changes."""

    network: nn.Module
    log_rates: Tensor  # (layers,), logarithms of the inner learning rates
    optimizer: torch.optim.Optimizer
    step: int = 0
    best_loss: float = math.inf
    best_step: int = -1

    @property
    def rates(self) -> Tensor:
        """The inner learning rates, (layers,)."""
        return self.log_rates.detach().exp()


class MetaInitParts(NamedTuple):
    """What a meta-initialisation works with and does not change, except for the parameters of the layers."""

    genotype: Genotype
    tasks: Sequence[Task]  # those that are trained on
    trials: Sequence[Trial]  # of all tasks
    layers: Mapping[str, list[nn.Parameter]]  # those that adapt, by name


def open_tasks(config: MetaInitConfig, device: torch.device) -> tuple[Genotype, list[Task]]:
    """Read the network's genotype and open the pairs of all tasks.

    Args:
        device: Where the network is trained.

    Raises:
        UserError: If the genotype or a folder of pairs cannot be used, or a task has too few pairs.
    """
    genotype = load_genotype(config.genotype)
    if genotype.network not in ("fusion", "pyramid"):
        raise UserError(
            f"{genotype.name} is a {genotype.network} network; a meta-initialisation is for fusion and pyramid networks"
        )
    tasks, data = [], config.data
    check_training_memory(genotype, crops=max(data.support, data.query), crop=data.crop, device=device)
    for name, section in config.used_tasks.items():
        task = config.data.open_task(name, section, config.seed)
        count, wanted = len(task.training), config.data.support + config.data.query
        if count < wanted:
            raise UserError(
                f"task {name} has {count} training pairs, fewer than data.support + data.query = {wanted}; "
                "lower these or leave the task out"
            )
        tasks.append(task)
    return genotype, tasks


def open_trials(config: MetaInitConfig, tasks: Sequence[Task], steps: int, device: torch.device) -> list[Trial]:
    """Cut the crops of one trial for each task, with the given number of steps of adaptation."""
    sizes = config.data.model_dump(include={"support", "query", "crop"})
    return make_trials(tasks, **sizes, steps=steps, episodes=EPISODES, seed=config.seed, device=device)


def set_up(config: MetaInitConfig, genotype: Genotype, device: torch.device) -> MetaInitState:
    """Build the network with its weights, the inner learning rates and the optimiser.

    Raises:
        UserError: If the initial weights, or the part of the network that is to adapt, cannot be used.
    """
    network = build_network(genotype).to(device)
    if config.init is not None:
        load_into(network, config.init.expanduser())
    count, rate = len(adapting_layers(network, config.adapting_part)), config.inner.learning_rate
    log_rates = torch.full((count,), math.log(rate), device=device, requires_grad=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.meta.learning_rate)
    optimizer.add_param_group({"params": [log_rates]})
    return MetaInitState(network, log_rates, optimizer)
