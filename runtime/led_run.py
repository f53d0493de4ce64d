"""A run of several processes: the first one opens the folder and writes all that is kept of it, the others follow."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import load_checkpoint, save_checkpoint
from .config import Section, config_to_yaml, dotted_items
from .distribution import Ranks
from .errors import UserError
from .history import History
from .progress import Progress
from .run_folder import CHECKPOINT_FILE, RunFolder, open_run


class LedRun:
    """An open run. Every process calls what it offers; all but the first then write and show nothing.

    Attributes:
        ranks: The processes.
        path: The run folder, of the first process.
        resumes: Whether there is a checkpoint to go on from.
    """

    def __init__(self, ranks: Ranks, path: Path, opened: RunFolder | None, stack: ExitStack) -> None:
        self.ranks, self.path = ranks, path
        self.resumes = bool(ranks.agree(opened is not None and opened.resumes))
        self._opened, self._stack = opened, stack
        self._history: History | None = None
        self._progress: Progress | None = None

    def load_checkpoint(self) -> dict[str, Any]:
        """Return what was saved last, read by the first process."""
        return self.ranks.from_leader(lambda: load_checkpoint(self.path / CHECKPOINT_FILE))

    def start(self, doing: str, steps: int, step: int) -> None:
        """Open the history and the progress, and show the notes of both and of the folder.

        Args:
            doing: What is shown before the folder's name.
            steps: Of the whole run.
            step: The first one to come.
        """
        if self._opened is None:
            return
        self._history = self._stack.enter_context(History(self.path, step - 1 if self.resumes else None))
        self._progress = self._stack.enter_context(Progress(steps, f"{doing} {self.path.name}", start=step))
        for note in filter(None, (self._opened.note, self._history.note)):
            self._progress.print(note)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line to the history; see `History.log`."""
        if self._history is not None:
            self._history.log(step, values)

    def log_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Show an image in TensorBoard; see `History.log_image`."""
        if self._history is not None:
            self._history.log_image(step, name, image)

    def advance(self, status: str) -> None:
        """Count one step, with what to show beside the bar."""
        if self._progress is not None:
            self._progress.advance(status)

    def print(self, message: str) -> None:
        """Write a line above the bar."""
        if self._progress is not None:
            self._progress.print(message)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep a state to resume from; see `runtime.save_checkpoint`."""
        if self.ranks.leads:
            save_checkpoint(self.path / CHECKPOINT_FILE, state)


@contextmanager
def open_led_run(
    folder: Path,
    config: Section,
    ranks: Ranks,
    *,
    resume: bool,
    overwrite: bool,
    harmless: Collection[str],
    pairs: int,
    fingerprint: Callable[[], str],
) -> Iterator[LedRun]:
    """Check that all processes are about to do the same with the same data, and open the folder of the run.

    Args:
        folder: The run folder, of the first process.
        config: The resolved config.
        ranks: The processes.
        resume: As for `open_run`.
        overwrite: As for `open_run`.
        harmless: Dotted config keys that may differ, on resuming and among the processes.
        pairs: How many pairs this process sees.
        fingerprint: Tells the pairs, and what they are for, from all others; called only where there are more
            processes than one.

    Yields:
        The run, locked by the first process until the block ends.

    Raises:
        UserError: As `open_run`, or if the processes differ in config or data.
    """
    if ranks.count > 1:
        _check_same_config(ranks, config, harmless)
        _check_same_data(ranks, pairs, fingerprint())
    with ExitStack() as stack:
        opened = None
        if ranks.leads:
            opened = stack.enter_context(
                open_run(
                    folder, config_yaml=config_to_yaml(config), resume=resume, overwrite=overwrite, harmless=harmless
                )
            )
        yield LedRun(ranks, folder, opened, stack)


def _check_same_config(ranks: Ranks, config: Section, harmless: Collection[str]) -> None:
    first, *others = ranks.collect(dict(dotted_items(config.model_dump(mode="json"))))
    for rank, other in enumerate(others, start=1):
        for key in [*first, *(key for key in other if key not in first)]:
            if key not in harmless and first.get(key) != other.get(key):
                raise UserError(
                    f"rank {rank} has another config than rank 0: {key} is {other.get(key)} against {first.get(key)};"
                    " start all ranks with the same command"
                )


def _check_same_data(ranks: Ranks, pairs: int, fingerprint: str) -> None:
    (first, first_pairs), *others = ranks.collect((fingerprint, pairs))
    for rank, (other, other_pairs) in enumerate(others, start=1):
        if other != first:
            how = f"{other_pairs} pairs against {first_pairs}"
            if other_pairs == first_pairs:
                how = f"{pairs} pairs, of which some have other names, images, labels or purposes"
            raise UserError(f"rank {rank} sees other data than rank 0: {how}; give every machine the same folder")
