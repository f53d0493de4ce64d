"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

from .errors import printable
from .terminal import leads

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console

# Without a terminal: a line after the shortest time if this part of the work is done, else after the longest time.
_SHORTEST_SECONDS = 5.0
_LONGEST_SECONDS = 60.0
_PART = 0.05


class Progress:
    """A report of how far work has come, its rate and the time left, on standard error.

    Of several processes in one run, only the first shows it.

    Args:
        total: Number of steps of the whole work; None if nobody knows.
        start: Number of steps that an earlier process has done; they do not count for the rate.
        unit: Name of the steps in the plural, for the rate.

    Example:
        >>> with Progress(3, "counting") as progress:
        ...     for number in range(3):
        ...         progress.advance(f"at {number}")
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        start: int = 0,
        *,
        unit: str = "steps",
        console: "Console | None" = None,
    ) -> None:
        from rich.console import Console  # here and below, because loading a network has to be quick

        self.total = total
        self.description = printable(description)
        self.completed = start
        self._unit = unit
        self._console = console or Console(stderr=True, quiet=not leads())
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        # The rate is measured over the last hundred steps, so that it adapts from one phase to the next.
        self._times = deque([self._started], maxlen=101)
        self._shown_at, self._shown = float("-inf"), self.completed
        if self._console.is_terminal:
            import rich.progress
            from rich.table import Column

            # On a narrow terminal the status is cut first, then the bar; the numbers stay.
            whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False, table_column=whole),
                rich.progress.BarColumn(bar_width=None, table_column=Column(max_width=16, min_width=4)),
                rich.progress.MofNCompleteColumn(table_column=whole),
                rich.progress.TextColumn("{task.fields[speed]}", table_column=whole),
                rich.progress.TimeElapsedColumn(table_column=whole),
                rich.progress.TextColumn("{task.fields[status]}", markup=False, table_column=cut),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task(
                self.description, total=self.total, completed=self.completed, speed="", status=""
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def advance(self, status: str = "") -> None:
        """Count one step, and show text beside the bar, such as the loss."""
        self.completed += 1
        status = printable(status)
        self._times.append(time.monotonic())
        if self._bar:
            self._bar.update(self._task, completed=self.completed, speed=self._speed(), status=status)
        elif self._line_is_due():
            self._shown_at, self._shown = self._times[-1], self.completed
            elapsed = _clock(self._times[-1] - self._started)
            count = str(self.completed) if self.total is None else f"{self.completed}/{self.total}"
            facts = [count, self._speed(), f"{elapsed} elapsed", status]
            self.print(f"{self.description}: {', '.join(fact for fact in facts if fact)}")

    def print(self, message: str) -> None:
        """Write a line above the bar."""
        self._console.print(printable(message), markup=False, highlight=False, soft_wrap=True)

    @property
    def rate(self) -> float:
        """Steps per second over the last hundred steps of this process; 0 before the first."""
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)

    def _speed(self) -> str:
        rate = self.rate
        digits = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
        left = "" if self.total is None else f", {_clock(max(self.total - self.completed, 0) / rate)} left"
        return f"{digits} {self._unit}/s{left}"

    def _line_is_due(self) -> bool:
        waited = self._times[-1] - self._shown_at
        part = self.total is not None and self.completed - self._shown >= _PART * self.total
        enough = part or waited >= _LONGEST_SECONDS
        return self.completed == self.total or (waited >= _SHORTEST_SECONDS and enough)


def _clock(seconds: float) -> str:
    """Format a time as h:mm:ss."""
    return str(timedelta(seconds=round(min(seconds, timedelta.max.total_seconds() - 1))))
