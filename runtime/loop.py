"""The loop that every stage runs: one run folder, many steps, and whatever can happen in between.

A recipe prepares its networks, hands over the state that the steps change, and gives two functions: one that makes a
step and one that validates. The loop has the rest: the processes and the device, the run folder, resuming, history and
progress, the rhythm of validations and checkpoints, interruption, and values that are not finite.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checkpoint import (
    capture_rng,
    check_alike,
    load_checkpoint,
    load_optimizer,
    restore_rng,
    restoring,
    save_checkpoint,
)
from .config import Section, config_to_yaml, dotted_items
from .device import select_device
from .distribution import Ranks, open_ranks
from .errors import DivergedError, NonFiniteError, StoppedError, UserError
from .history import History
from .interruption import deferred_interrupt
from .memory import keep_freed_memory
from .progress import Progress
from .run_files import CHECKPOINT_FILE
from .run_folder import RunFolder, open_run

T = TypeVar("T")

Row = dict[str, Any]  # what a step measured, by name: numbers, texts and nested mappings of them
Scores = dict[str, dict[str, float]]  # of a validation: "mean" and each part, each with its scores by name

HARMLESS = ("run", "data.workers", "data.cache_megabytes")
"""Config keys that change no result, so that they may differ on resuming and among the processes."""


class State(Protocol):
    """What the steps of a run change: a dataclass with the number of steps that are done.

    Each field is a number or text, a tensor, None, or an object with `state_dict` and `load_state_dict`.
    """

    step: int
    __dataclass_fields__: ClassVar[dict[str, Any]]


class Loop:
    """An open run; every process calls the same methods in the same order, and the first one alone writes.

    Attributes:
        device: Where this process computes.
        resumes: Whether the run goes on from a checkpoint; known after `open_folder`.
    """

    def __init__(
        self, config: Section, ranks: Ranks, device: torch.device, stack: ExitStack, *, resume: bool, overwrite: bool
    ) -> None:
        self.ranks, self.device = ranks, device
        self.path: Path = config.run  # type: ignore[attr-defined]
        self.resumes = False
        self._config, self._stack, self._resume, self._overwrite = config, stack, resume, overwrite
        self._data = ""
        self._folder: RunFolder | None = None
        self._history: History | None = None
        self._progress: Progress | None = None
        self._waiting: list[str] = []  # lines for above the progress bar

    def open_folder(self, *, pairs: int, fingerprint: Callable[[], str], harmless: Sequence[str] = ()) -> None:
        """Compare config and data of all processes, and open the run folder.

        Args:
            fingerprint: Returns a text that differs if a pair or its purpose differs.
            harmless: Dotted config keys beside `HARMLESS` that may differ on resuming.

        Raises:
            UserError: If the processes differ, or the folder cannot be used; see `open_run`.
        """
        harmless = (*HARMLESS, *harmless)
        self._data = fingerprint()
        if self.ranks.count > 1:
            self._check_same_config(harmless)
            self._check_same_data(pairs)
        if self.ranks.leads:
            self._folder = self._stack.enter_context(
                open_run(
                    self.path,
                    config_yaml=config_to_yaml(self._config),
                    resume=self._resume,
                    overwrite=self._overwrite,
                    harmless=harmless,
                )
            )
        self.resumes = bool(self.ranks.agree(self._folder is not None and self._folder.resumes))

    def start(self, state: State) -> None:
        """Load the state from the checkpoint, or else copy that of the first process.

        Raises:
            UserError: If the checkpoint is damaged or does not fit the state, or the data have changed.
        """
        if self.resumes:
            saved = self.ranks.from_leader(lambda: load_checkpoint(self.path / CHECKPOINT_FILE))
            if saved.get("data") != self._data:
                raise UserError(
                    f"cannot resume {self.path}: its pairs are not those that it began with, in names, images, labels"
                    " or which are for validation; bring them back or start anew with --overwrite"
                )
        elif self.ranks.count > 1:  # the processes may have read other initial weights
            saved = self.ranks.from_leader(lambda: capture(state))
        else:
            return
        with restoring(self.path):
            restore(state, saved)

    def run(
        self,
        state: State,
        *,
        steps: int,
        doing: str,
        step: Callable[[], Row],
        validate: Callable[[], Scores | None],
        validate_every: int,
        checkpoint_every: int,
        remedy: str,
        status: Callable[[Row], str] = lambda row: f"loss {row['loss']:.4f}",
        validate_after: int = 0,
        on_validation: Callable[[int, Scores], None] | None = None,
    ) -> None:
        """Make the steps that are left, with validations and checkpoints now and then and at the end.

        Args:
            state: Everything that `step` changes, as `start` left it.
            steps: Number of steps of the whole run.
            doing: The work in one word, for the progress.
            step: Makes one step and returns what it measured. It raises `NonFiniteError` before it changes anything
                but buffers and random generators.
            validate: Scores the state; returns None in processes that do not validate.
            validate_every: Number of steps between two validations.
            checkpoint_every: Number of steps between two checkpoints.
            remedy: Which settings to lower if a value is not finite.
            status: Makes the text beside the progress bar of the step's row.
            validate_after: Number of steps without a validation at the beginning.
            on_validation: Receives the step and the scores of each validation in the first process; an exception
                that it raises ends the run.

        Raises:
            UserError: If the state is after no step of the run, or a loss or gradient is not finite. The state before
                that is in the checkpoint.
            StoppedError: If the user interrupted the run. The checkpoint holds the last whole step.
        """
        with restoring(self.path):
            if not 0 <= state.step <= steps:
                raise ValueError(f"there is no step {state.step} of {steps}")
        self._open_outputs(f"{doing} {self.path.resolve().name}", steps, state.step)
        validated = ""
        with deferred_interrupt() as interrupted:
            while state.step < steps:
                row = self._guarded(state, step, remedy)
                state.step += 1
                last, beyond = state.step == steps, state.step - validate_after
                scores = None
                if last or (beyond >= 0 and beyond % validate_every == 0):
                    scores = self._guarded(state, validate, remedy, row)
                if scores is not None:
                    row["validation"] = scores
                    validated = ", validated: " + ", ".join(f"{name} {x:.3f}" for name, x in scores["mean"].items())
                if self._history is not None and self._progress is not None:
                    self._history.log(state.step - 1, row)
                    self._progress.advance(status(row) + validated)
                stop = bool(self.ranks.agree(interrupted()))
                if state.step % checkpoint_every == 0 or last or stop:
                    self.save(state)
                if stop:
                    raise StoppedError(f"stopped before step {state.step}; go on with --resume")
                if on_validation is not None and scores is not None and self.ranks.leads:
                    on_validation(state.step - 1, scores)

    def save(self, state: State) -> None:
        """Write the state as the run's checkpoint."""
        if self.ranks.leads:
            save_checkpoint(self.path / CHECKPOINT_FILE, {**capture(state), "data": self._data})

    def log_examples(self, step: int, examples: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show images in TensorBoard by their names; see `History.log_image`."""
        if self._history is not None:
            for name, image in examples.items():
                self._history.log_image(step, f"examples/{name}", image)

    def print(self, message: str) -> None:
        """Write a line above the progress bar, once it is there."""
        if self._progress is not None:
            self._progress.print(message)
        else:
            self._waiting.append(message)

    def _guarded(self, state: State, call: Callable[[], T], remedy: str, row: Row | None = None) -> T:
        """Call a function; if a value in it is not finite, keep the state before the call and end the run.

        Args:
            row: What the step measured that a validation follows; it goes into the history in either case.
        """
        buffers = _buffers(state)
        before, rng = [buffer.clone() for buffer in buffers], capture_rng()
        try:
            return call()
        except NonFiniteError as error:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)
            restore_rng(rng)
            if row is not None and self._history is not None:
                self._history.log(state.step - 1, row)
            self.save(state)
            raise DivergedError(
                f"step {state.step}: {error}; the state before it is in {self.path / CHECKPOINT_FILE}; lower {remedy} "
                "and start anew with --overwrite"
            ) from None

    def _open_outputs(self, description: str, steps: int, step: int) -> None:
        """Open history and progress, and show the notes of both and of the folder."""
        if self._folder is None:
            return
        rng = capture_rng()
        self._history = self._stack.enter_context(History(self.path, step - 1 if self.resumes else None))
        self._progress = self._stack.enter_context(Progress(steps, description, start=step))
        restore_rng(rng)  # both import packages, some of which draw a random number when they are first imported
        for note in filter(None, (self._folder.note, self._history.note, *self._waiting)):
            self._progress.print(note)

    def _check_same_config(self, harmless: Sequence[str]) -> None:
        first, *others = self.ranks.collect(dict(dotted_items(self._config.model_dump(mode="json"))))
        for rank, other in enumerate(others, start=1):
            for key in [*first, *(key for key in other if key not in first)]:
                if key not in harmless and first.get(key) != other.get(key):
                    raise UserError(
                        f"rank {rank} has another config than rank 0: {key} is {other.get(key)} against "
                        f"{first.get(key)}; start all ranks with the same command"
                    )

    def _check_same_data(self, pairs: int) -> None:
        (first, first_pairs), *others = self.ranks.collect((self._data, pairs))
        for rank, (other, other_pairs) in enumerate(others, start=1):
            if other != first:
                how = f"{other_pairs} pairs against {first_pairs}"
                if other_pairs == first_pairs:
                    how = f"{pairs} pairs, of which some have other names, images, labels or purposes"
                raise UserError(f"rank {rank} sees other data than rank 0: {how}; give every machine the same folder")


@contextmanager
def open_loop(config: Section, *, resume: bool = False, overwrite: bool = False) -> Iterator[Loop]:
    """Join the other processes of the run and choose the device; the run folder is opened by `Loop.open_folder`.

    Args:
        config: The resolved config, with `run` and `device`.

    Yields:
        The loop; folder, history and progress are closed when the block ends.

    Raises:
        UserError: If there is no such device, or the other processes cannot be reached.
    """
    keep_freed_memory()
    with open_ranks() as ranks, ExitStack() as stack:
        device = select_device(config.device, ranks.local)  # type: ignore[attr-defined]
        yield Loop(config, ranks, device, stack, resume=resume, overwrite=overwrite)


def capture(state: State) -> dict[str, Any]:
    """Return a state and the random generators as plain data for a checkpoint; tensors share memory with the state."""
    return {"state": {field.name: _plain(getattr(state, field.name)) for field in fields(state)}, "rng": capture_rng()}


def restore(state: State, saved: Mapping[str, Any]) -> None:
    """Set a state of the same kind, in place, and the random generators to what `capture` returned.

    Raises:
        ValueError: If a part is missing or of another kind or shape, or holds values that are not finite. Anything else
            that does not fit raises its own error.
    """
    check_alike(saved["state"], {field.name: _plain(getattr(state, field.name)) for field in fields(state)}, "state")
    for field in fields(state):
        value, old = getattr(state, field.name), saved["state"][field.name]
        if isinstance(value, torch.optim.Optimizer):
            load_optimizer(value, old)
        elif hasattr(value, "load_state_dict"):
            value.load_state_dict(old)
        elif isinstance(value, Tensor):
            with torch.no_grad():
                value.copy_(old)
        elif value is not None:
            setattr(state, field.name, old)
    restore_rng(saved["rng"])


def _plain(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return value.state_dict()
    return value.detach() if isinstance(value, Tensor) else value


def _buffers(state: State) -> list[Tensor]:
    values = (getattr(state, field.name) for field in fields(state))
    return [buffer for value in values if hasattr(value, "buffers") for buffer in value.buffers()]
