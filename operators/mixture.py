"""A mixture of candidate operators: one edge of the supernet."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .primitives import Operator, SpatialAttention

# Added to each probability: a hard zero would hide the sign of the features from the PReLU that the probability is
# folded under, and with it the derivative by the probability.
SMALLEST_PROBABILITY = 1e-20


class MixedOperator(nn.Module):
    """o(x) = sum_i p_i op_i(x) (DARTS, Liu et al., ICLR 2019, eq. 2).

    The candidates return their branches already scaled, and the input that some of them add is added once,
    so that mixing costs one addition per candidate.

    Args:
        candidates: the operators, in the order of the probabilities.
    """

    adds_input: Tensor

    def __init__(self, candidates: Sequence[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        adds_input = [isinstance(candidate, Operator) and candidate.adds_input for candidate in candidates]
        self.register_buffer("adds_input", torch.tensor(adds_input), persistent=False)
        attentions = [i for i, candidate in enumerate(candidates) if isinstance(candidate, SpatialAttention)]
        others = [i for i in range(len(candidates)) if i not in attentions]
        self.attentions = attentions
        self.folding = [i for i in others if isinstance(candidates[i], Operator)]
        self.plain = [i for i in others if not isinstance(candidates[i], Operator)]

    def forward(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Mix the candidates.

        Args:
            x: (N, C, H, W).
            probabilities: (candidates,), each at least 0; one-hot for a hard choice.

        Returns:
            (N, C, H, W).
        """
        total = x * (probabilities * self.adds_input).sum()
        scales = probabilities + SMALLEST_PROBABILITY
        for index in self.folding:
            total = total + self.candidates[index](x, scales[index])
        for index in self.plain:
            total = total + self.candidates[index](x) * scales[index]
        if self.attentions:
            operators = [cast(SpatialAttention, self.candidates[index]) for index in self.attentions]
            total = total + SpatialAttention.mixed_branch(operators, x, [scales[i] for i in self.attentions])
        return total
