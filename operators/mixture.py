"""A mixture of candidate operators: one edge of the supernet."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .primitives import Operator

# Added to each probability: a hard zero would hide the sign of the features from the PReLU that the probability is
# folded under, and with it the derivative by the probability.
SMALLEST_PROBABILITY = 1e-12


class MixedOperator(nn.Module):
    """o(x) = sum_i p_i op_i(x) (DARTS, Liu et al., ICLR 2019, eq. 2).

    The candidates return their branches already scaled, and the input that some of them add is added once,
    so that mixing costs one addition per candidate.

    Args:
        candidates: the operators, in the order of the probabilities.
    """

    def __init__(self, candidates: Sequence[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        self.folds = [isinstance(candidate, Operator) for candidate in candidates]
        adds_input = [isinstance(candidate, Operator) and candidate.adds_input for candidate in candidates]
        self.register_buffer("adds_input", torch.tensor(adds_input), persistent=False)

    def forward(self, x: Tensor, probabilities: Tensor) -> Tensor:
        """Mix the candidates.

        Args:
            x: (N, C, H, W).
            probabilities: (candidates,), each at least 0; one-hot for a hard choice.

        Returns:
            (N, C, H, W).
        """
        total = x * probabilities[self.adds_input].sum()
        positive = probabilities + SMALLEST_PROBABILITY
        for candidate, folds, scale in zip(self.candidates, self.folds, positive, strict=True):
            total = total + (candidate(x, scale) if folds else candidate(x) * scale)
        return total
