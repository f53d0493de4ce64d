"""The time of forward passes on a device."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from ..runtime.progress import Progress

ROUNDS = 9
FEWEST_RUNS, MOST_RUNS = 2, 5  # in a visit
VISIT_MILLISECONDS = 30.0  # that these runs may take, if there are more than the fewest
SLOW_MILLISECONDS = 2000.0  # of a run that is enough by itself

ForwardPass = Callable[[], object]


def measure(
    passes: Sequence[ForwardPass], device: torch.device, progress: Progress | None = None, *, rounds: int = ROUNDS
) -> list[float]:
    """Measure forward passes side by side, so that a busy moment of the machine falls on all of them.

    Every round visits each pass: one run that does not count, then a few of which the fastest counts. The result is the
    median of the rounds. A pass that takes seconds runs once.

    Returns:
        Milliseconds of each, to the tenth of a microsecond.
    """
    times: list[list[float]] = [[] for _ in passes]
    with torch.inference_mode():
        for _ in range(rounds):
            for forward, milliseconds in zip(passes, times, strict=True):
                if not milliseconds or milliseconds[0] < SLOW_MILLISECONDS:
                    milliseconds.append(_visit(forward, device))
                if progress is not None:
                    progress.advance()
    return [round(median(milliseconds), 4) for milliseconds in times]


def _visit(forward: ForwardPass, device: torch.device) -> float:
    first = _time(forward, device)
    if first >= SLOW_MILLISECONDS:
        return first
    runs = min(MOST_RUNS, max(FEWEST_RUNS, int(VISIT_MILLISECONDS / max(first, 1e-3))))
    return min(_time(forward, device) for _ in range(runs))


def _time(forward: ForwardPass, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    forward()
    _synchronise(device)
    return 1e3 * (time.perf_counter() - start)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
