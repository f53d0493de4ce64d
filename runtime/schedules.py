"""Learning rates as functions of the step alone, so that a resumed run needs no state for them."""

import math


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Decay along a half cosine.

        value = end + (start - end) (1 + cos(π step / (steps - 1))) / 2

    Args:
        start: Value at the first step, which is 0.
        end: Value at the last step, `steps` - 1.
        step: Current step, from 0 to `steps` - 1.

    Example:
        >>> [round(cosine(1.0, 0.0, step, 5), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return end + (start - end) * (1 + math.cos(math.pi * step / max(1, steps - 1))) / 2


def warmed_cosine(highest: float, step: int, steps: int, warmup: int) -> float:
    """Rise linearly over the warm-up, then decay to a hundredth along a half cosine.

    Args:
        highest: Value at the end of the warm-up.
        step: Current step, from 0 to `steps` - 1.
        warmup: Number of steps of the rise, fewer than `steps`.

    Example:
        >>> [round(warmed_cosine(1.0, step, 6, 2), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.752, 0.258, 0.01]
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    return cosine(highest, highest / 100, step - warmup, steps - warmup)
