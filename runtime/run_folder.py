"""The folder of a run: its lock, and whether a run starts, resumes or replaces another."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO

from .config import dotted_items
from .errors import InUseError, UserError
from .files import cannot_write, make_folder, observing_writes, remove_leftovers, write_atomically
from .run_files import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    DETECTORS_FOLDER,
    EVENT_FILES,
    FIRST_STAGE_FOLDER,
    FRONT_FOLDER,
    GENOTYPE_FILE,
    HISTORY_FILE,
    LAST_WEIGHTS_FILE,
    LATENCY_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    PICTURES_FOLDER,
    RATES_FILE,
    REPORT_FILE,
    SEED_FOLDERS,
    TASK_FOLDER,
    VERIFICATION_FILE,
    VERIFICATION_FOLDER,
    WEIGHTS_FILE,
)
from .yaml_text import parse_yaml, read_mapping

# Names that a run has for itself. None of them may be a link: what a run writes or deletes lies in its folder.
_FILES = (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    GENOTYPE_FILE,
    HISTORY_FILE,
    LAST_WEIGHTS_FILE,
    LATENCY_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    RATES_FILE,
    REPORT_FILE,
    VERIFICATION_FILE,
    WEIGHTS_FILE,
)
_RESERVED = (
    *_FILES,
    DETECTORS_FOLDER,
    FIRST_STAGE_FOLDER,
    FRONT_FOLDER,
    PICTURES_FOLDER,
    TASK_FOLDER,
    VERIFICATION_FOLDER,
)
_LENGTHS = ("train.steps", "meta.steps")  # keys with the number of steps of a run


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
        self._path, self._lock = path, lock
        self._manifest = path / MANIFEST_FILE
        self._written = set(_names_in(self._manifest))
        self._observing = observing_writes(self._record)
        self._observing.__enter__()

    def close(self) -> None:
        """Release the lock."""
        if not self._lock.closed:
            self._observing.__exit__(None, None, None)
            self._lock.close()

    def delete(self) -> None:
        """Delete all that the run wrote, and nothing else, but for the config: it marks the folder as that of a run."""
        own = [name for name in self._written if name != CONFIG_FILE and _lies_within(self._path, name)]
        folders = {self._path, *((self._path / name).parent for name in own)}
        events = [path for folder in folders for path in folder.glob(EVENT_FILES)]
        # Of the runs below this one.
        locks = [folder / name for folder in folders - {self._path} for name in (LOCK_FILE, MANIFEST_FILE)]
        # Checkpoints go first, so that nothing resumes from what is half deleted, and the manifest goes last, so that
        # an overwriting that was killed can be repeated.
        own.sort(key=lambda name: Path(name).name != CHECKPOINT_FILE)
        for path in (*(self._path / name for name in own), *events, *locks, self._manifest):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot delete {path}: {error.strerror}; delete it yourself") from None
        self._written.clear()
        for folder in sorted(folders - {self._path}, reverse=True):  # inner folders come first
            with contextlib.suppress(OSError):  # it does not exist, or holds files that no run wrote
                folder.rmdir()

    def _record(self, path: Path) -> None:
        """Add a file to the manifest before it is written."""
        with contextlib.suppress(ValueError):  # it lies elsewhere
            name = str(path.relative_to(self._path))
            if name not in self._written:
                self._written.add(name)
                try:
                    with self._manifest.open("a", encoding="utf-8", errors="surrogateescape") as file:
                        file.write(f"{json.dumps(name)}\n")
                except OSError as error:
                    raise cannot_write(self._manifest, error) from error

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
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise cannot_write(config_path, error) from error
    for entry in entries:
        if entry.is_symlink() and (entry.name in _RESERVED or entry.match(SEED_FOLDERS)):
            raise UserError(f"{entry} is a link, and a run writes into its own folder alone; remove the link")
        if entry.name in _FILES and entry.is_dir():
            raise UserError(f"{entry} is a folder, where a run has a file; move it elsewhere")
    present = [entry for entry in entries if not _is_leftover(entry)]
    if present and config_path not in present:
        raise UserError(f"{folder} has files in it but no run ({CONFIG_FILE}); choose another folder")
    run = RunFolder(make_folder(folder), _lock(folder))
    try:
        if config_path.is_file():
            if overwrite:
                run.delete()
            elif resume:
                _check_same_config(config_path, config_yaml, harmless)
            else:
                raise UserError(
                    f"{folder} holds a run; go on with --resume, replace it with --overwrite, or name another"
                )
        run.resumes = resume and run.checkpoint.is_file()
        if resume and not run.resumes:
            run.note = f"{folder} has no checkpoint yet; the run starts from the beginning"
        for place in (".", PICTURES_FOLDER, FIRST_STAGE_FOLDER, TASK_FOLDER, DETECTORS_FOLDER):
            remove_leftovers(folder / place)
        write_atomically(config_path, config_yaml)
    except BaseException:
        run.close()
        raise
    return run


def _is_leftover(entry: Path) -> bool:
    """Tell whether a process that was killed before it wrote the config may have left a file."""
    return entry.name in (LOCK_FILE, MANIFEST_FILE) or (entry.name.startswith(".") and entry.name.endswith(".tmp"))


def _lock(folder: Path) -> IO[str]:
    """Take the folder's lock, which the operating system frees when this process ends or is killed."""
    path = folder / LOCK_FILE
    try:
        # Not through a link, which would let the lock change a file elsewhere.
        file = os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+", encoding="utf-8"
        )
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


def _names_in(manifest: Path) -> list[str]:
    """Read the names in a manifest; a line that a killed process left incomplete has no file yet."""
    names = []
    try:
        lines = manifest.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError):
            if isinstance(name := json.loads(line), str):
                names.append(name)
    return names


def _lies_within(folder: Path, name: str) -> bool:
    """Tell whether a name is that of a file in a folder, without a link on the way: a manifest may be anybody's."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        return False
    *ways, path = (folder.joinpath(*parts[:count]) for count in range(1, len(parts) + 1))
    return not any(way.is_symlink() for way in ways) and (path.is_symlink() or not path.is_dir())


def _check_same_config(path: Path, config_yaml: str, harmless: Collection[str]) -> None:
    """Refuse to resume a run with another config than its own."""
    old = dict(dotted_items(read_mapping(path)))
    new = dict(dotted_items(parse_yaml(config_yaml, "config")))
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in harmless and old.get(key) != new.get(key):
            remedy = "resume with the run's own config or start anew with --overwrite"
            if key in _LENGTHS and "init" in new:
                remedy = (
                    f"its learning rates follow a curve over {old.get(key)} steps; "
                    f"go on from its weights in another folder, with --set init={path.parent}"
                )
            raise UserError(
                f"cannot resume {path.parent}: {key} was {old.get(key)} and is now {new.get(key)}; {remedy}"
            )
