"""The history of a run: one JSON line for each step, and TensorBoard events."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .config import dotted_items
from .errors import UserError
from .files import cannot_write, make_folder, write_atomically
from .run_files import HISTORY_FILE

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class History:
    """An append-only record of the measurements at each step.

    Every line is a JSON object with `step` first; NaN and infinities are written as null. The operating system has a
    line when `log` returns, so a killed process loses at most the line that it is writing.

    Args:
        folder: Run folder, which is made if it is missing.
        resume_step: Last step of the checkpoint from which the run resumes; later lines and an incomplete last line are
            dropped. None starts an empty history.
        tensorboard: Whether to write TensorBoard events, too. If the package is missing, `note` tells so.

    Attributes:
        path: File of the history, `history.jsonl` in the run folder.
        note: Message for the user about missing TensorBoard events, or "".

    Raises:
        UserError: If the file cannot be written.
    """

    def __init__(self, folder: Path, resume_step: int | None, *, tensorboard: bool = True) -> None:
        self.path = make_folder(folder) / HISTORY_FILE
        rows, damaged = ([], 0) if resume_step is None else _rows(self.path)
        kept = [row for row in rows if row["step"] <= (resume_step or 0)]
        write_atomically(self.path, "".join(_line(row) for row in kept))
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.note = f"{self.path} had {damaged} damaged lines, which are left out" if damaged else ""
        self._events: SummaryWriter | None = None
        if tensorboard:
            self._open_events(folder, purge_step=0 if resume_step is None else resume_step + 1)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one line.

        Args:
            step: Number of the step, larger than the last one.
            values: Numbers, texts or nested mappings of them, by name. TensorBoard gets the numbers as `name/nested`.
        """
        try:
            self._file.write(_line({"step": step, **values}))
            self._file.flush()
            if self._events:
                for name, value in dotted_items(dict(values)):
                    if isinstance(value, (int, float)):
                        self._events.add_scalar(name.replace(".", "/"), value, step)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def log_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Add an image to the TensorBoard events, if they are written.

        Args:
            image: Grey or colour image, (H, W) or (H, W, 3).
        """
        if self._events:
            try:
                self._events.add_image(name, image, step, dataformats="HW" if image.ndim == 2 else "HWC")
            except OSError as error:
                raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the files."""
        # Every line has been flushed, so an error here has already been reported.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._events:
            with contextlib.suppress(OSError):
                self._events.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_events(self, folder: Path, purge_step: int) -> None:
        if find_spec("tensorboard") is None:
            self.note += (
                "; " * bool(self.note) + "no TensorBoard events: install them with `pip install timfuse[tensorboard]`"
            )
            return
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._events = SummaryWriter(str(folder), purge_step=purge_step)
        except OSError as error:
            raise cannot_write(folder / "events.out.tfevents", error) from error


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the values of each step from a `history.jsonl`, whose last line may be incomplete.

    Raises:
        UserError: If there is no such file.
    """
    if not path.is_file():
        raise UserError(f"no history {path}; give a run folder that has one")
    return _rows(path)[0]


@contextlib.contextmanager
def drawn_history(run: Path) -> Iterator[list[dict[str, Any]]]:
    """Read the history of a run for the block that draws it.

    Yields:
        The rows, as `read_history` returns them.

    Raises:
        UserError: If there is no history, or a line lacks what the block draws: somebody has changed it.
    """
    path = run / HISTORY_FILE
    rows = read_history(path)
    try:
        yield rows
    except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, StopIteration) as error:
        raise UserError(
            f"{path} or a file beside it is damaged, so that no curves can be drawn: {error!r}; bring it back or train"
            " anew"
        ) from error


def _rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the rows whose lines are whole, and count the damaged lines that are not an incomplete last one."""
    rows: list[dict[str, Any]] = []
    damaged = 0
    # Without a line end, `12` may be the start of `120`.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # also a number of too many digits, and brackets that nest too deep
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int and all(map(_is_measured, dotted_items(row))):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _is_measured(item: tuple[str, Any]) -> bool:
    """Tell whether a value is a number that can be drawn, or no number."""
    return not isinstance(item[1], int) or abs(item[1]) < sys.float_info.max


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(_finite(row), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
