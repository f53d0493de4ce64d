"""The mixture of candidate operators on an edge of the supernet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
from torch import Tensor, nn

from .primitives import Operator, SpatialAttention

# Added to each probability. A zero would hide the sign of the features from the PReLU that follows the scaled weights,
# and with it the derivative by the probability.
SMALLEST_PROBABILITY = 1e-20

_first_derivatives_only = ContextVar("first derivatives only", default=False)


@contextmanager
def first_derivatives_only() -> Iterator[None]:
    """Compute candidates of probability 0 without a graph within a block, in which nothing is differentiated twice.

    What such a candidate adds is the derivative by its probability; all other derivatives through it are 0.
    """
    token = _first_derivatives_only.set(True)
    try:
        yield
    finally:
        _first_derivatives_only.reset(token)


class MixedOperator(nn.Module):
    """Compute o(x) = Σ_i p_i op_i(x) (DARTS, Liu et al., ICLR 2019, eq. 2).

    The candidates return scaled branches, and the input that some of them add is added once. So mixing costs one
    addition for each candidate. Where no derivative by the probabilities is asked for, candidates of probability 0 are
    left out; see also `first_derivatives_only`.
    """

    adds_input: Tensor

    def __init__(self, candidates: Sequence[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        adds_input = [isinstance(candidate, Operator) and candidate.adds_input for candidate in candidates]
        self.register_buffer("adds_input", torch.tensor(adds_input), persistent=False)
        self.attentions = [i for i, candidate in enumerate(candidates) if isinstance(candidate, SpatialAttention)]
        others = [i for i in range(len(candidates)) if i not in self.attentions]
        self.folding = [i for i in others if isinstance(candidates[i], Operator)]
        self.plain = [i for i in others if not isinstance(candidates[i], Operator)]

    def forward(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Mix the candidates with (candidates,) probabilities, which may be one-hot, on (N, C, H, W)."""
        return self._plus(x * (probabilities * self.adds_input).sum(), self.plain, x, probabilities)

    def added(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Mix the candidates as blocks, added to their input once: x + Σ_i p_i branch_i(x), without identity."""
        return self._plus(
            x, [i for i in self.plain if not isinstance(self.candidates[i], nn.Identity)], x, probabilities
        )

    def _plus(self, total: Tensor, plain: Sequence[int], x: Tensor, probabilities: Tensor) -> Tensor:
        """Add the scaled branches of the candidates to a total, of modules that are no `Operator` those in `plain`."""
        scales = probabilities + SMALLEST_PROBABILITY
        everything = [*self.folding, *plain, *self.attentions]
        if probabilities.requires_grad and not _first_derivatives_only.get():
            chosen = everything
        else:
            chosen = [index for index in everything if probabilities[index] != 0]
        for index in chosen:
            if index in self.folding:
                total = total + self.candidates[index](x, scales[index])
            elif index in plain:
                total = total + self.candidates[index](x) * scales[index]
        if attentions := [index for index in self.attentions if index in chosen]:
            operators = [cast(SpatialAttention, self.candidates[index]) for index in attentions]
            total = total + SpatialAttention.mixed_branch(operators, x, [scales[i] for i in attentions])
        if probabilities.requires_grad:
            for index in everything:
                if index not in chosen:
                    with torch.no_grad():
                        operator, one = self.candidates[index], torch.ones_like(scales[index])
                        branch = operator(x) if index in plain else operator(x, one)
                    total = total + branch * probabilities[index]
        return total
