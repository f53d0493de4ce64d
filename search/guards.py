"""Warnings during a search: early signs that its result will be worthless."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .relaxation import entropy

# Operators without a convolution over the features: a network of these alone cannot fuse.
CHEAP_KINDS = ("identity", "spatial_attention")
ENTROPY_FALL = 0.01  # least fall of the entropy half-way through the search, as a fraction of the largest entropy
DECIDED = 0.5  # mean probability of the leading operators above which their lead is no accident
DIVERGENCE = 2.0  # excess of the smoothed loss over its best value, as a multiple of that value's size
SMOOTHING = 0.98  # decay of the moving average of the loss


class Guards:
    """Checks of a search at each step; they give each kind of warning once.

    Args:
        warmup: Number of iterations before the architecture moves.

    Attributes:
        given: All warnings that were given so far.
    """

    def __init__(self, operators: Sequence[str], steps: int, warmup: int) -> None:
        self._cheap = torch.tensor([operator.startswith(CHEAP_KINDS) for operator in operators])
        self._operators = operators
        self._half_way = warmup + (steps - warmup) // 2
        self._warmup = warmup
        self._last = steps - 1
        self._initial_entropy: float | None = None
        self._smoothed: float | None = None
        self._best = float("inf")
        self.given: list[str] = []

    def observe(self, step: int, inner_loss: float, probabilities: Tensor) -> list[str]:
        """Check the finite loss and the noiseless probabilities of a step, and return new warnings, one line each."""
        new = [self._divergence(step, inner_loss)]
        if step >= self._warmup:
            new += [self._collapse(step, probabilities), self._entropy(step, probabilities)]
        kinds = {warning.split(":")[0] for warning in self.given}
        fresh = [warning for warning in new if warning and warning.split(":")[0] not in kinds]
        self.given += fresh
        return fresh

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the steps change."""
        return {
            "initial_entropy": self._initial_entropy,
            "smoothed": self._smoothed,
            "best": self._best,
            "given": list(self.given),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            TypeError: If a warning is no text.
        """
        if not all(isinstance(warning, str) for warning in state["given"]):
            raise TypeError("a warning is no text")
        self._initial_entropy = state["initial_entropy"]
        self._smoothed = state["smoothed"]
        self._best = state["best"]
        self.given = list(state["given"])

    def _divergence(self, step: int, inner_loss: float) -> str | None:
        previous = inner_loss if self._smoothed is None else self._smoothed
        self._smoothed = SMOOTHING * previous + (1 - SMOOTHING) * inner_loss
        self._best = min(self._best, self._smoothed)
        # Relative to the size of the loss, whose sign is arbitrary: terms of quality count as negative.
        if self._smoothed - self._best > DIVERGENCE * abs(self._best):
            return (
                f"weights diverge: at step {step} the smoothed loss is {self._smoothed:.3g}, its best was"
                f" {self._best:.3g}; lower search.weight_learning_rate or search.weight_clip"
            )
        return None

    def _collapse(self, step: int, probabilities: Tensor) -> str | None:
        leading, winners = (tensor.flatten().cpu() for tensor in probabilities.max(-1))
        decided = leading.mean().item() > DECIDED or step == self._last
        if decided and bool(self._cheap[winners].all()):
            names = ", ".join(sorted({self._operators[index] for index in winners.tolist()}))
            return (
                f"collapse: every edge prefers an operator without convolution ({names}); lengthen search.warmup,"
                " lower search.architecture_learning_rate or cost.weight, or leave these operators out"
            )
        return None

    def _entropy(self, step: int, probabilities: Tensor) -> str | None:
        value = entropy(probabilities).item()
        if self._initial_entropy is None:
            self._initial_entropy = value
        if step == self._half_way and value > self._initial_entropy - ENTROPY_FALL:
            return (
                f"no decision: half-way the entropy of the operators is still {value:.3f} of its largest value;"
                " raise search.architecture_learning_rate or search.steps"
            )
        return None
