"""The folder of a run: who may write into it, and whether a run starts, resumes or replaces another."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO

from .config import dotted_items
from .errors import InUseError, UserError
from .files import cannot_write, make_folder, write_atomically
from .yaml_text import parse_yaml

CONFIG_FILE = "config.yaml"
CHECKPOINT_FILE = "checkpoint.pt"
_LOCK_FILE = ".lock"

# Everything a run writes, and so all that --overwrite deletes, except config.yaml, which is replaced: as long
# as it is there, a folder that was half deleted by a killed process is still known to be a run.
_OWN_FILES = (
    CHECKPOINT_FILE,
    "genotype.yaml",
    "latency.yaml",
    "rates.yaml",
    "weights.safetensors",
    "weights-last.safetensors",
    "first_stage/genotype.yaml",
    "first_stage/weights.safetensors",
    "detectors/specification.yaml",
    "detectors/weights.safetensors",
    "task/specification.yaml",
    "task/weights.safetensors",
    "history.jsonl",
    "events.out.tfevents.*",
    "pictures/*.png",
    "pictures/*.svg",
    "pictures/*.dot",
)
# Runs of several seeds are below the one that sums them up.
RUN_FILES = (*_OWN_FILES, *(f"seed-*/{name}" for name in (*_OWN_FILES, CONFIG_FILE, _LOCK_FILE)))


class RunFolder:
    """An open run folder, locked for this process until it is closed.

    Attributes:
        path: The folder.
        checkpoint: Where the run's checkpoint is or will be.
        resumes: Whether there is a checkpoint to go on from.
        note: What the user should know about the start, or "".
    """

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT_FILE
        self.resumes = False
        self.note = ""
        self._lock = lock

    def close(self) -> None:
        """Let other processes into the folder."""
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_run(
    folder: Path, *, config_yaml: str, resume: bool, overwrite: bool, harmless: Collection[str] = ()
) -> RunFolder:
    """Open the folder of a run for this process alone, and write the config into it.

    Args:
        folder: The run folder; made if missing.
        config_yaml: The resolved config.
        resume: Go on from the checkpoint in the folder. Where there is none yet (the run was killed early),
            the run starts from the beginning and `note` says so.
        overwrite: Delete the run that is in the folder. Files that no run writes stay.
        harmless: Dotted config keys that may differ on resuming, such as the number of workers.

    Returns:
        The open folder; close it or use it in a `with` statement.

    Raises:
        UserError: If the folder holds a run and neither flag is given, holds something else, is in use by
            another process, or if the config to resume with differs from the run's.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one of them")
    config_path = folder / CONFIG_FILE
    try:
        present = [entry for entry in folder.iterdir() if not _is_leftover(entry)] if folder.is_dir() else []
    except OSError as error:
        raise cannot_write(config_path, error) from error
    if present and config_path not in present:
        raise UserError(f"{folder} has files in it but no run ({CONFIG_FILE}); choose another folder")
    run = RunFolder(make_folder(folder), _lock(folder))
    try:
        if config_path.is_file():
            if overwrite:
                _delete_run(folder)
            elif resume:
                _check_same_config(config_path, config_yaml, harmless)
            else:
                raise UserError(
                    f"{folder} holds a run; go on with --resume, replace it with --overwrite, or name another"
                )
        run.resumes = resume and run.checkpoint.is_file()
        if resume and not run.resumes:
            run.note = f"{folder} has no checkpoint yet; the run starts from the beginning"
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        write_atomically(config_path, config_yaml)
    except BaseException:
        run.close()
        raise
    return run


def _is_leftover(entry: Path) -> bool:
    """Know what a process that was killed before it wrote the config leaves behind."""
    return entry.name == _LOCK_FILE or (entry.name.startswith(".") and entry.name.endswith(".tmp"))


def _lock(folder: Path) -> IO[str]:
    """Take the folder's lock, which the operating system frees when this process ends in whatever way."""
    path = folder / _LOCK_FILE
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        # A POSIX lock, because data-loading processes that outlive a killed run must not inherit it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise InUseError(
                f"{folder} is in use by process {owner}; wait for it, end it, or choose another folder"
            ) from None
        # Some network file systems have no locks; there the user has to take care.
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _delete_run(folder: Path) -> None:
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot delete {path}: {error.strerror}; delete it yourself") from None
    patterns = {str(Path(pattern).parent) for pattern in RUN_FILES} - {"."}
    subfolders = [subfolder for pattern in patterns for subfolder in folder.glob(pattern)]
    for subfolder in sorted(subfolders, reverse=True):  # what is in a folder goes before it
        with contextlib.suppress(OSError):  # it is not there, or holds files that no run writes
            subfolder.rmdir()


def _check_same_config(path: Path, config_yaml: str, harmless: Collection[str]) -> None:
    """Refuse to go on with another config than the one the run began with."""
    old = dict(dotted_items(parse_yaml(path.read_text(encoding="utf-8"), str(path))))
    new = dict(dotted_items(parse_yaml(config_yaml, "config")))
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in harmless and old.get(key) != new.get(key):
            raise UserError(
                f"cannot resume {path.parent}: {key} was {old.get(key)} and is now {new.get(key)}; "
                "resume with the run's own config or start anew with --overwrite"
            )
