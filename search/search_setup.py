"""What a search starts with: pairs and task network, cost penalty, supernet, logits and optimisers."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..cost import (
    Choices,
    CostPenalty,
    Decisions,
    DeploymentTarget,
    check_feasible,
    load_latency_table,
    open_cost_penalty,
)
from ..downstream import build_task_network
from ..objectives import FusionLoss, training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_supernet
from ..operators.build import Supernet
from ..operators.training_memory import check_training_memory
from ..runtime.distribution import Ranks
from ..runtime.run_files import CHECKPOINT_FILE, LATENCY_FILE
from ..runtime.seeds import seed_everything
from ..training.first_stage import FirstStage, open_first_stage
from .guards import Guards
from .scorer import Scorer
from .search_batches import SearchBatches
from .search_config import SearchConfig
from .starting_point import even_logits, logits_at_budget


@dataclass
class SearchState:
    """Everything that a step of a search changes."""

    supernet: Supernet
    logits: Tensor  # of the operators, (cells, steps, candidates)
    width_logits: Tensor | None  # (levels, options), where widths are searched
    weight_optimizer: torch.optim.Optimizer
    architecture_optimizer: torch.optim.Optimizer
    guards: Guards
    scorer: Scorer | None  # of a search by a downstream task
    step: int = 0

    @property
    def decisions(self) -> Decisions:
        """The logits of all decisions."""
        return Decisions(self.logits, self.width_logits)


class SearchParts(NamedTuple):
    """What a search works with and does not change."""

    batches: SearchBatches
    outer: FusionLoss  # scores the architecture where no task network does
    inner: FusionLoss  # trains the weights
    penalty: CostPenalty | None
    ranks: Ranks
    first_stage: FirstStage | None = None  # whose output the refine networks of the space refine


def open_parts(
    config: SearchConfig, device: torch.device, ranks: Ranks, resume: bool, first_stage: FirstStage | None = None
) -> tuple[SearchParts, Scorer | None]:
    """Make the losses, open the pairs, and measure or count what networks cost where that matters.

    Args:
        resume: Whether the run goes on from a checkpoint, if there is one.
        first_stage: That of several searches; None for that of the config.

    Returns:
        The parts, and the task network of a search by a downstream task.

    Raises:
        UserError: If the first stage, the losses, the pairs or the task network cannot be used, or no network of the
            space meets the budget.
    """
    first_stage = first_stage or first_stage_of(config, ranks, resume)
    space, data = config.space.search_space, config.data
    # The supernet computes all candidates at every step, and so at least those of a network with all of them in a row.
    largest = tuple(len(options) - 1 for options in space.width_options)
    row = space.genotype(Choices([list(range(len(space.operators)))] * len(space.cells), largest))
    check_training_memory(row, crops=data.batch_size // ranks.count, crop=data.crop, device=device)
    usual = training_loss(config.task)
    outer = fusion_loss(config.search.outer_loss, usual, config.data.crop)
    inner = fusion_loss(config.search.inner_loss, usual, config.data.crop)
    batches, scorer = open_batches(config, device, ranks)
    penalty = ranks.from_leader(lambda: open_penalty(config, device, resume))
    return SearchParts(batches, outer, inner, penalty, ranks, first_stage), scorer


def first_stage_of(config: SearchConfig, ranks: Ranks, resume: bool) -> FirstStage | None:
    """Load the first stage of the refine networks of a space; a resumed run has its own.

    Raises:
        UserError: If there is none for refine networks, or one for others, or it cannot be used.
    """
    network = replace(config.space.search_space.bare(), name=f"the preset {config.space.base}")
    return open_first_stage(network, config.first_stage, run=config.run, resume=resume, ranks=ranks)


def open_batches(config: SearchConfig, device: torch.device, ranks: Ranks) -> tuple[SearchBatches, Scorer | None]:
    """Open the pairs and, for a downstream task, their labels, and build the task network.

    Raises:
        UserError: If a folder, a file or the task network cannot be used.
    """
    data, downstream, seed = config.data, config.downstream, config.seed
    labels = None if downstream is None else downstream.labels
    pairs = data.open_pairs(
        config.task,
        config.sources,
        data.seed_of(seed),
        labels=labels,
        architecture=data.architecture,
        shares=data.shares,
    )
    batches = SearchBatches(
        pairs, seed=seed, validation_seed=data.seed_of(seed), device=device, ranks=ranks, **data.crops
    )
    if downstream is None:
        return batches, None
    seed_everything(seed)
    network = build_task_network(
        downstream.kind, downstream.network, pairs.source.classes, downstream.width, downstream.init
    )
    rates = {"learning_rate": downstream.learning_rate, "weight_decay": downstream.weight_decay}
    return batches, Scorer(network.to(device), **rates)


def open_penalty(config: SearchConfig, device: torch.device, resume: bool) -> CostPenalty | None:
    """Measure or count what networks cost, where that matters; a resumed run keeps its table.

    Args:
        device: The device on which to measure.
        resume: Whether the run goes on from a checkpoint, if there is one.

    Raises:
        UserError: If no network of the space meets the budget.
    """
    space, cost, own = config.space.search_space, config.cost, config.run / LATENCY_FILE
    target = DeploymentTarget(cost.height, cost.width, device)
    penalty = open_cost_penalty(
        space,
        target,
        weight=cost.weight,
        budget=cost.parsed_budget,
        budget_weight=cost.budget_weight,
        front=next((budget.kind for budget in cost.parsed_front), None),
        table=load_latency_table(own, device) if resume and own.is_file() else None,
    )
    started = resume and (config.run / CHECKPOINT_FILE).is_file()
    if penalty is not None and not started:
        if penalty.budget is not None:
            check_feasible(space, penalty.budget, penalty.models[penalty.budget.kind], target)
        for budget in cost.parsed_front[:1]:  # the others are above it
            check_feasible(space, budget, penalty.models[budget.kind], target, key="cost.front")
    return penalty


def set_up(
    config: SearchConfig, device: torch.device, scorer: Scorer | None = None, penalty: CostPenalty | None = None
) -> SearchState:
    """Build the supernet, the logits and their optimisers."""
    space, settings = config.space.search_space, config.search
    supernet = build_supernet(
        channels=space.channels,
        cells=space.cells,
        steps=space.steps,
        candidates=space.operators,
        norm=space.norm,
        stem=space.stem,
        head=space.head,
        levels=space.levels,
        sources=space.sources,
        merge=space.merge,
    ).to(device)
    start = even_logits(space)
    if penalty is not None and penalty.budget is not None and penalty.reached:
        start = logits_at_budget(start, penalty.models[penalty.budget.kind], penalty.budget.amount)
    logits, *widths = (numbers.to(device).requires_grad_() for numbers in start.tensors)
    return SearchState(
        supernet,
        logits,
        widths[0] if widths else None,
        torch.optim.Adam(supernet.parameters(), lr=settings.weight_learning_rate),
        torch.optim.Adam([logits, *widths], lr=settings.architecture_learning_rate, betas=(0.5, 0.999)),
        Guards(space, settings.steps, settings.warmup),
        scorer,
    )
