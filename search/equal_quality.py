"""The trained candidates that are as good as the best, as far as the validation pairs tell, and the fastest of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cost import DeploymentTarget
from ..deploy import load_network
from ..objectives import training_loss
from ..objectives.loss_section import fusion_loss
from ..operators import build_network
from ..runtime.device import select_device
from .candidate_training import Candidate, training_folder
from .search_config import SearchConfig

EQUAL_TIME = 0.05  # largest difference of times that count as equal, as a fraction


def fastest_of_the_best(config: SearchConfig, candidates: Sequence[Candidate]) -> dict[str, float]:
    """Measure the candidates that are as good as the best one after the last round.

    Returns:
        Milliseconds of each by its name; the first is the one to take: of those that are within 5 % as fast as the
        fastest, the one with the least loss.

    Raises:
        UserError: If a training or the pairs cannot be read.

    Example:
        >>> fastest_of_the_best(config, candidates)  # doctest: +SKIP
        {'plain-0': 11.2, 'proposed-1': 12.9}
    """
    last = max(len(candidate.losses) for candidate in candidates)
    finalists = sorted((each for each in candidates if len(each.losses) == last), key=lambda each: each.losses[-1])
    if len(finalists) > 1:
        losses = torch.stack([losses_of_pairs(config, candidate) for candidate in finalists])
        finalists = [finalists[index] for index in as_good_as_the_best(losses)]
    target = DeploymentTarget(config.cost.height, config.cost.width, select_device(config.device))
    times = target.measure([target.forward_pass(build_network(each.genotype)) for each in finalists])
    found = {each.name: time for each, time in zip(finalists, times, strict=True)}
    first = next(name for name, time in found.items() if time <= (1 + EQUAL_TIME) * min(times))
    return {first: found.pop(first), **found}


def as_good_as_the_best(losses: Tensor) -> list[int]:
    """Apply the rule of one standard error to the losses of networks on the same pairs, (networks, pairs).

    A network is as good as the one of least mean loss if its mean exceeds that by no more than the standard error of
    their difference over the pairs ("Classification and Regression Trees", Breiman et al., 1984, section 3.4.3).

    Returns:
        The indices of the networks that are as good, in rising order of the loss.

    Example:
        >>> as_good_as_the_best(torch.tensor([[1.0, 2.0, 3.0], [0.9, 2.2, 3.0], [3.0, 3.0, 3.0]]))
        [0, 1]
    """
    order: list[int] = losses.mean(1).argsort(stable=True).tolist()
    differences = losses - losses[order[0]]
    pairs = losses.shape[1]
    errors = differences.std(1) / pairs**0.5 if pairs > 1 else torch.zeros(len(losses))
    return [index for index in order if differences[index].mean() <= errors[index]]


@torch.no_grad()
def losses_of_pairs(config: SearchConfig, candidate: Candidate) -> Tensor:
    """Return the loss of a trained candidate on each validation pair of its last training."""
    device = select_device(config.device)
    network = load_network(training_folder(config, candidate, len(candidate.losses) - 1)).to(device)
    loss = fusion_loss(config.search.outer_loss, training_loss(config.task), config.data.crop)
    pairs = config.data.open_pairs(
        config.task, config.sources, config.data.seed_of(config.seed), validation_pairs=config.verify.validation_pairs
    )
    return torch.stack(
        [
            loss(network(batch.first, batch.second), batch.first, batch.second).double().cpu()
            for each in pairs.sets
            for _, batch in each.validation_pairs(device)
        ]
    )
