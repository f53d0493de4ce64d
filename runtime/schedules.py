"""Learning rates over a run, as functions of the step alone, so that a resumed run needs no state for them."""

import math


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Fall from one value to another along a half cosine.

    Args:
        start: The value at step 0.
        end: The value at the last step.
        step: From 0 to `steps` - 1.
        steps: How many steps there are.

    Returns:
        end + (start − end) (1 + cos(π step / (steps − 1))) / 2.

    >>> [round(cosine(1.0, 0.0, step, 5), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return end + (start - end) * (1 + math.cos(math.pi * step / max(1, steps - 1))) / 2


def warmed_cosine(highest: float, step: int, steps: int, warmup: int) -> float:
    """Rise in a line over the warm-up, then fall to a hundredth along a half cosine.

    Args:
        highest: The value that is reached.
        step: From 0 to `steps` - 1.
        steps: How many steps there are.
        warmup: Steps of the rise, fewer than `steps`.

    Returns:
        The value at the step.

    >>> [round(warmed_cosine(1.0, step, 6, 2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.752, 0.258, 0.01]
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    return cosine(highest, highest / 100, step - warmup, steps - warmup)
