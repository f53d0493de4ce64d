"""Warnings during a search: early signs that its result will be worthless."""

from typing import Any

import torch

from ..cost import Decisions, SearchSpace
from .relaxation import entropy, named_probabilities

# Operators without a convolution over the features: a cell of these alone cannot fuse.
GATES = ("identity", "spatial_attention")
ENTROPY_FALL = 0.01  # least fall of the entropy half-way through the search, as a fraction of the largest entropy
DECIDED = 0.5  # probability of a leading candidate above which its lead is no accident
NAMED = 3  # decisions that a warning names
DIVERGENCE = 2.0  # excess of the smoothed loss over its best value, as a multiple of that value's size
SMOOTHING = 0.98  # decay of the moving average of the loss


class Guards:
    """Checks of a search at each step; they give each kind of warning once.

    Args:
        warmup: Number of iterations before the architecture moves.

    Attributes:
        given: All warnings that were given so far.
    """

    def __init__(self, space: SearchSpace, steps: int, warmup: int) -> None:
        self._space = space
        self._gates = torch.tensor([operator.startswith(GATES) for operator in space.operators])
        self._half_way = warmup + (steps - warmup) // 2
        self._warmup = warmup
        self._last = steps - 1
        self._initial_entropy: float | None = None
        self._smoothed: float | None = None
        self._best = float("inf")
        self.given: list[str] = []

    def observe(self, step: int, inner_loss: float, probabilities: Decisions) -> list[str]:
        """Check the finite loss and the noiseless probabilities of a step, and return new warnings, one line each."""
        new = [self._divergence(step, inner_loss)]
        if step >= self._warmup:
            new += [self._collapse(step, probabilities), self._entropy(step, probabilities)]
        if step == self._last:
            new.append(self._undecided(probabilities))
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

    def _collapse(self, step: int, probabilities: Decisions) -> str | None:
        leading, winners = (tensor.cpu() for tensor in probabilities.operators.max(-1))  # (cells, steps)
        decided = (leading.mean(-1) > DECIDED) | (step == self._last)
        alone = (self._gates[winners].all(-1) & decided).tolist()
        # A stage without blocks is a network of less depth, as long as another cell has some.
        stages = [kind == "stage" for kind in self._space.cells]
        cells = [cell for cell, gates in enumerate(alone) if gates and (all(alone) or not stages[cell])]
        if not cells:
            return None
        names = ", ".join(sorted({self._space.operators[index] for cell in cells for index in winners[cell].tolist()}))
        where = ", ".join(f"cell {cell + 1}" for cell in cells)
        return (
            f"collapse: operators without convolution ({names}) are alone in {where}; lengthen search.warmup,"
            " lower search.architecture_learning_rate or cost.weight, or leave these operators out"
        )

    def _undecided(self, probabilities: Decisions) -> str | None:
        """Name the decisions in which no candidate has more than half of the probability at the end."""
        named = named_probabilities(probabilities, self._space)
        open_ones = {name: row for name, row in named.items() if max(row.values()) <= DECIDED}
        if not open_ones:
            return None
        texts = []
        for name, row in list(open_ones.items())[:NAMED]:
            first, second = sorted(row, key=row.__getitem__, reverse=True)[:2]
            texts.append(f"{name} ({first} {row[first]:.2f}, {second} {row[second]:.2f})")
        more = len(open_ones) - len(texts)
        return (
            f"undecided: {len(open_ones)} of {len(named)} decisions, such as {', '.join(texts)}"
            f"{' and others' if more else ''}; verify.candidates decides by training, or raise search.steps"
        )

    def _entropy(self, step: int, probabilities: Decisions) -> str | None:
        value = entropy(probabilities).item()
        if self._initial_entropy is None:
            self._initial_entropy = value
        if step == self._half_way and value > self._initial_entropy - ENTROPY_FALL:
            return (
                f"no decision: half-way the entropy of the operators is still {value:.3f} of its largest value;"
                " raise search.architecture_learning_rate or search.steps"
            )
        return None
