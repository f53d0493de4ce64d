"""The folder of a run: its lock, and whether a run starts, resumes or replaces another."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO

from .config import dotted_items
from .errors import InUseError, UserError
from .files import cannot_write, make_folder, write_atomically
from .run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    DETECTORS_FOLDER,
    EVENT_FILES,
    FIRST_STAGE_FOLDER,
    GENOTYPE_FILE,
    HISTORY_FILE,
    LAST_WEIGHTS_FILE,
    LATENCY_FILE,
    LOCK_FILE,
    PICTURES_FOLDER,
    RATES_FILE,
    SEED_FOLDERS,
    SPECIFICATION_FILE,
    TASK_FOLDER,
    WEIGHTS_FILE,
)
from .yaml_text import parse_yaml

# Everything a run writes, and so all that --overwrite deletes, except config.yaml, which is replaced: it marks a folder
# as a run, even one that a killed process has half deleted.
_OWN_FILES = (
    CHECKPOINT_FILE,
    HISTORY_FILE,
    EVENT_FILES,
    GENOTYPE_FILE,
    WEIGHTS_FILE,
    LAST_WEIGHTS_FILE,
    LATENCY_FILE,
    RATES_FILE,
    *(f"{FIRST_STAGE_FOLDER}/{name}" for name in (GENOTYPE_FILE, WEIGHTS_FILE)),
    *(f"{folder}/{name}" for folder in (DETECTORS_FOLDER, TASK_FOLDER) for name in (SPECIFICATION_FILE, WEIGHTS_FILE)),
    *(f"{PICTURES_FOLDER}/*.{suffix}" for suffix in ("png", "svg", "dot")),
)
# A search with several seeds has a run folder for each below its own.
RUN_FILES = (*_OWN_FILES, *(f"{SEED_FOLDERS}/{name}" for name in (*_OWN_FILES, CONFIG_FILE, LOCK_FILE)))


class RunFolder:
    """An open run folder, locked for this process until it is closed.

    Attributes:
        checkpoint: Path of the run's checkpoint, which may not exist yet.
        resumes: Whether the run goes on from that checkpoint.
        note: Message for the user about the start of the run, or "".
    """

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.checkpoint = path / CHECKPOINT_FILE
        self.resumes = False
        self.note = ""
        self._lock = lock

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(
    folder: Path, *, config_yaml: str, resume: bool, overwrite: bool, harmless: Collection[str] = ()
) -> RunFolder:
    """Open the folder of a run for this process alone, and write the config into it.

    Args:
        folder: Run folder, which is made if it is missing.
        config_yaml: The resolved config as YAML text.
        resume: Whether to go on from the checkpoint in the folder. Without one (the run was killed early), the run
            starts from the beginning and `note` says so.
        overwrite: Whether to delete the run in the folder. Files that no run writes stay.
        harmless: Dotted config keys that may differ on resuming, such as the number of workers.

    Raises:
        UserError: If the folder holds a run and neither flag is given, holds something else, or is in use by another
            process, or if the config of a resumed run has changed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with open_run(Path(folder), config_yaml="seed: 0", resume=False, overwrite=False) as run:
        ...         print(run.checkpoint.name, run.resumes)
        checkpoint.pt False
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
    """Tell whether a process that was killed before it wrote the config may have left a file."""
    return entry.name == LOCK_FILE or (entry.name.startswith(".") and entry.name.endswith(".tmp"))


def _lock(folder: Path) -> IO[str]:
    """Take the folder's lock, which the operating system frees when this process ends or is killed."""
    path = folder / LOCK_FILE
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
    for subfolder in sorted(subfolders, reverse=True):  # inner folders come first
        with contextlib.suppress(OSError):  # it does not exist, or holds files that no run writes
            subfolder.rmdir()


def _check_same_config(path: Path, config_yaml: str, harmless: Collection[str]) -> None:
    """Refuse to resume a run with another config than its own."""
    old = dict(dotted_items(parse_yaml(path.read_text(encoding="utf-8"), str(path))))
    new = dict(dotted_items(parse_yaml(config_yaml, "config")))
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in harmless and old.get(key) != new.get(key):
            raise UserError(
                f"cannot resume {path.parent}: {key} was {old.get(key)} and is now {new.get(key)}; "
                "resume with the run's own config or start anew with --overwrite"
            )
