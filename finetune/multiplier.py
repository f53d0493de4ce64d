"""The multiplier of a constraint, by dual ascent."""

import torch


class Multiplier:
    """The price of breaking a constraint g <= 0, which rises while it is broken and falls while it is kept.

    mu <- max(0, mu + rate g): gradient ascent on the dual of min L subject to g <= 0, whose inner problem is the
    training of L + mu g itself. (Arrow, Hurwicz and Uzawa, "Studies in Linear and Non-Linear Programming", 1958.)

    Args:
        rate: Step size of the ascent, above 0.
        value: mu at the start, at least 0.

    Attributes:
        buffer: mu, a float64 scalar that changes in place.
    """

    def __init__(self, rate: float, value: float) -> None:
        self.rate = rate
        self.buffer = torch.tensor(value, dtype=torch.float64)

    @property
    def value(self) -> float:
        """The multiplier mu."""
        return self.buffer.item()

    def ascend(self, constraint: float) -> None:
        """Take a step.

        Args:
            constraint: g, above 0 where the constraint is broken.
        """
        self.buffer.fill_(max(0.0, self.value + self.rate * constraint))


def excess(loss: float, reference: float) -> float:
    """Tell by which part of a reference a loss exceeds it.

    Args:
        loss: The loss.
        reference: What it is compared with; fusion losses may be negative.

    Returns:
        (loss − reference) / |reference|.
    """
    return (loss - reference) / max(abs(reference), 1e-12)
