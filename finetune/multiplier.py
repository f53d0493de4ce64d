"""The Lagrange multiplier of a constraint, by dual ascent."""

import torch


class Multiplier:
    """The Lagrange multiplier mu of a constraint g <= 0.

    mu <- max(0, mu + rate g): gradient ascent on the dual of min L subject to g <= 0, whose inner problem is the
    training of L + mu g itself. (Arrow, Hurwicz and Uzawa, "Studies in Linear and Non-Linear Programming", 1958.)

    Args:
        rate: Step size of the ascent, above 0.
        value: Initial value of mu, at least 0.

    Attributes:
        buffer: The value mu as a float64 scalar, which changes in place.

    Example:
        >>> multiplier = Multiplier(rate=0.5, value=0.1)
        >>> for constraint in (0.4, -0.2, -1.0):
        ...     multiplier.ascend(constraint)
        ...     print(round(multiplier.value, 2))
        0.3
        0.2
        0.0
    """

    def __init__(self, rate: float, value: float) -> None:
        self.rate = rate
        self.buffer = torch.tensor(value, dtype=torch.float64)

    @property
    def value(self) -> float:
        """The multiplier mu."""
        return self.buffer.item()

    def ascend(self, constraint: float) -> None:
        """Update mu by the value g of the constraint, which is above 0 where the constraint is violated."""
        self.buffer.fill_(max(0.0, self.value + self.rate * constraint))
