"""The logits that a search starts with: equal ones, or those of the most even distribution that costs the budget."""

import torch
from torch import Tensor

from ..cost import CostModel, Decisions, SearchSpace
from .relaxation import relax_all

_HALVINGS = 60  # of the interval in which the tilt is searched
_STEEPEST = 60.0  # largest difference of logits within a decision


def even_logits(space: SearchSpace) -> Decisions:
    """Return equal logits of all decisions of a space.

    Example:
        >>> even_logits(SearchSpace(8, ("successive",), 2, ("identity", "plain_k3"))).operators
        tensor([[[0., 0.],
                 [0., 0.]]])
    """
    options = space.width_options
    operators = torch.zeros(len(space.cells), space.steps, len(space.operators))
    return Decisions(operators, torch.zeros(len(options), len(options[0])) if options else None)


def logits_at_budget(even: Decisions, model: CostModel, budget: float) -> Decisions:
    """Tilt equal logits by what the candidates cost, until the expected cost is the budget.

    A logit becomes -t c, with c the expected cost of networks that have the candidate, in units of the largest
    difference within a decision. Of distributions with an expected cost, those that fall exponentially with the cost
    have the largest entropy. So the first steps of a search need not move the cost, which would leave a tilt that the
    falling temperature sharpens.

    Args:
        budget: A cost in the unit of the model; the nearest expected cost is taken where it is out of reach.

    Example:
        >>> model = CostModel("params", 1.0, torch.tensor([[0.0, 8.0]], dtype=torch.float64))
        >>> probabilities = relax_all(logits_at_budget(Decisions(torch.zeros(1, 1, 2)), model, 3.0), 1.0)
        >>> round(model.expected(probabilities).item(), 4)
        3.0
    """
    tensors = [numbers.double().requires_grad_() for numbers in relax_all(even, 1.0).tensors]
    # The cost is linear in the probabilities of each decision, so its derivative is the candidate's expected cost.
    costs = torch.autograd.grad(model.expected(Decisions(*tensors)), tensors)
    span = max((cost.amax(-1) - cost.amin(-1)).max().item() for cost in costs) or 1.0

    def tilted(tilt: float) -> Decisions:
        logits: list[Tensor] = [-tilt * (cost - cost.mean(-1, keepdim=True)) / span for cost in costs]
        return Decisions(*logits)

    low, high = -_STEEPEST, _STEEPEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if model.expected(relax_all(tilted(middle), 1.0)) > budget:
            low = middle
        else:
            high = middle
    return Decisions(*(numbers.to(old) for numbers, old in zip(tilted(high).tensors, even.tensors, strict=True)))
