"""What a finetuning under a constraint promises of its fused images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """The promise to keep most of what the network at the start gains over the best method without a network.

    Losses are means over the same pairs. A network that gains nothing, such as one with fresh weights or one that takes
    the maximum of the sources, does not keep it.

    Attributes:
        start: Fusion loss of the network at the start.
        trivial: Fusion loss of the best method without a network.
        spread: Difference between the losses of the worst and the best of these methods, the unit of `excess`; above 0.
        tolerance: Fraction of the gain, trivial - start, that may be given up, in [0, 1].

    Example:
        >>> promise = Promise(start=-5.0, trivial=-4.0, spread=2.0, tolerance=0.1)
        >>> [promise.kept(loss) for loss in (-5.2, -4.95, -4.8)]
        [True, True, False]
        >>> round(promise.given_up(-4.95), 3), round(promise.excess(-4.95), 3)
        (0.05, -0.025)
    """

    start: float
    trivial: float
    spread: float
    tolerance: float

    @property
    def gain(self) -> float:
        """What the network at the start gains; 0 or less where a method without a network is as good."""
        return self.trivial - self.start

    @property
    def limit(self) -> float:
        """The largest fusion loss that keeps the promise, if it is also below that of the methods without a network."""
        return self.trivial - (1 - self.tolerance) * max(self.gain, 0.0)

    def excess(self, loss: float) -> float:
        """Return by how much a fusion loss exceeds the limit, in the spread of the methods without a network."""
        return (loss - self.limit) / self.spread

    def given_up(self, loss: float) -> float:
        """Return which part of the gain, which must be above 0, a network with a fusion loss gives up."""
        return (loss - self.start) / self.gain

    def kept(self, loss: float) -> bool:
        """Tell whether a network with a fusion loss keeps the promise."""
        return loss < self.trivial and loss <= self.limit
