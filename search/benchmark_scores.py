"""Ways to score the networks of the benchmark: without a search, and by the probabilities or weights of a search."""

import math
from itertools import combinations
from pathlib import Path

from ..cost import Decisions, SearchSpace
from ..genotypes import Genotype
from ..runtime.config import load_config
from ..runtime.errors import UserError
from ..runtime.run_files import CONFIG_FILE
from .benchmark import Score
from .candidates import described
from .inherited_loss import inherited_loss
from .proposals import distribution
from .search_config import SearchConfig


def scores_without_search() -> dict[str, Score]:
    """Return ways to score a network that need no search.

    Example:
        >>> list(scores_without_search())
        ['random', 'parameters', 'finest level', 'a training of a quarter']
    """
    return {
        "random": lambda network: 0.0,
        "parameters": lambda network: -network.parameters,
        "finest level": lambda network: -float(network.genotype.widths[0] > 0),
        "a training of a quarter": lambda network: network.losses[min(network.losses)][0],
    }


def scores_of_search(run: Path) -> dict[str, Score]:
    """Return ways to score a network by a finished search of the default space.

    Raises:
        UserError: If the run cannot be read, or searched another space.

    Example:
        >>> list(scores_of_search(Path("runs/search")))  # doctest: +SKIP
        ['probabilities', 'inherited weights']
    """
    config = load_config(SearchConfig, run / CONFIG_FILE)
    space = config.space.search_space
    if space != SearchConfig().space.search_space:
        raise UserError(f"{run} searched another space than that of the benchmark, which is the default")
    probabilities, loss = distribution(run, space), inherited_loss(run)
    return {
        "probabilities": lambda network: -log_probability(probabilities, space, network.genotype),
        "inherited weights": lambda network: loss(space.choices(described(network.genotype))),
    }


def log_probability(probabilities: Decisions, space: SearchSpace, genotype: Genotype) -> float:
    """Return the logarithm of the probability that networks drawn from a distribution are described by a genotype.

    Of a stage, all places of its blocks count, since the genotype does not tell them apart.

    Example:
        >>> import torch
        >>> space = SearchSpace((4,), ("stage",), 2, ("identity", "plain_k3"), "none", "half", "bands", (0,))
        >>> genotype = space.genotype(space.choices({"channels": [4], "operators": [["plain_k3"]]}))
        >>> round(math.exp(log_probability(Decisions(torch.full((1, 2, 2), 0.5)), space, genotype)), 6)
        0.5
    """
    choices = space.choices(described(genotype))
    total = 0.0
    if probabilities.widths is not None:
        for row, index in zip(probabilities.widths.tolist(), choices.widths, strict=True):
            total += math.log(row[index])
    idle = space.operators.index("identity") if "identity" in space.operators else None
    absent = [options[index] == 0 for options, index in zip(space.width_options, choices.widths, strict=True)]
    for (kind, level), rows, chosen in zip(
        space.places, probabilities.operators.tolist(), choices.operators, strict=True
    ):
        if level is not None and absent and absent[level]:
            continue
        blocks = [index for index in chosen if index != idle]
        arrangements = [tuple(range(space.steps))]
        if kind == "stage" and idle is not None:
            arrangements = list(combinations(range(space.steps), len(blocks)))
        probability = 0.0
        for places in arrangements:
            placed = dict(zip(places, blocks if kind == "stage" and idle is not None else chosen, strict=True))
            probability += math.prod(row[placed.get(step, idle)] for step, row in enumerate(rows))
        total += math.log(max(probability, 1e-300))
    return total
