"""A command line in a fork of this process: what it prints, takes and changes is measured, and it can be killed."""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timfuse.cli import main
from timfuse.runtime.seeds import seed_everything

# A fork needs no time for what is imported already, also what packages import at their first use.
for _name in (
    *(f"timfuse.{name}" for name in ("deploy", "drawing", "finetune", "meta_init", "search", "training", "tuning")),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "torch.utils.tensorboard", "tifffile"),
    *("transformers", "faster_coco_eval", "torchmetrics.classification"),
):
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)
seed_everything(0)
gc.freeze()  # so that no collection in a fork touches, and so copies, the memory of this process

ALLOWED = ("out", "cache", "temporary")
"""Folders, in the one where a command runs, below which it may change files."""

_ADDRESSES = 4 * 2**30  # bytes of address space that a command may take beside what this process has
_GRACE = 10  # seconds from Ctrl-C to the end
# What a command may print on standard error beside errors.
_NOTES = re.compile(
    r"[\w .-]+: \d+/\d+(, .*)?$|warning: |.* the run starts from the beginning$|.* which are left out$"
    r"|choosing the network of the front for |study .* trials finished$"
    r"|trial \d+( failed)?: |.* have no mask \(|\d+ (boxes|polygons) of |of the classes in "
)
_STOPPED = "stopped"
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
_CONNECTS = ("socket.connect", "socket.getaddrinfo")
_CHANGES = {  # events that change files, and their arguments that are paths
    **dict.fromkeys(("open", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown"), (0,)),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), (0, 1)),
}


Moment = Callable[[int, str, Sequence[str]], bool]
"""Receives number, event and paths of each change of a file, and returns whether it is the moment."""


def after_checkpoint() -> Moment:
    """Return the moment after the first checkpoint is written."""
    written = []

    def is_after(changes: int, event: str, paths: Sequence[str]) -> bool:
        if event == "os.rename" and paths[1].endswith("checkpoint.pt"):
            written.append(changes)
        return bool(written) and changes > written[0]

    return is_after


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: Exit code, or the negative number of the signal that ended it.
        errors: The lines on standard error that are neither progress nor notes.
        harm: What it did to other folders, processes and machines.
        memory: Bytes that it took at most beside those of this process.
        changes: How often it changed files in its own folders; 0 if it was killed.
        stopped: Whether `stop_at` ended it.
    """

    code: int
    output: str
    errors: list[str]
    harm: list[str]
    seconds: float
    memory: int
    changes: int
    stopped: bool


def run(
    words: Sequence[str],
    folder: Path,
    *,
    patience: float = 60,
    kill_after: float | None = None,
    stop_at: Moment | None = None,
) -> Done:
    """Run a command line in a folder.

    Args:
        patience: Seconds after which Ctrl-C stops it.
        kill_after: Seconds after which it is killed; None to let it end.
        stop_at: Tells before which change of a file it is killed.
    """
    for name in ("cache", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    _return_freed_memory()
    here, there = os.pipe()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(words, folder, (output.fileno(), errors.fileno()), _Guard(folder, there, stop_at))
        os.close(there)
        handle = os.pidfd_open(child)
        for seconds, number in (
            (kill_after, signal.SIGKILL),
            (patience, signal.SIGUSR1),
            (patience + 0.1, signal.SIGINT),
            (patience + _GRACE, signal.SIGKILL),
        ):
            if seconds is not None:
                left = max(0.0, start + seconds - time.monotonic())
                if not select.select([handle], [], [], left)[0]:
                    os.kill(child, number)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - start
        os.close(handle)
        with os.fdopen(here, encoding="utf-8", errors="replace") as pipe:
            memory, *report = pipe.read().splitlines() or [str(2**62)]  # it was killed before it began
        printed = []
        for file in (output, errors):
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
    return Done(
        os.waitstatus_to_exitcode(status),
        printed[0],
        [line for line in printed[1].split("\n") if line.strip() and not _NOTES.match(line)],
        [line for line in report if not line.isdecimal() and line != _STOPPED],
        seconds,
        max(0, 1024 * (usage.ru_maxrss - int(memory))),
        next((int(line) for line in report if line.isdecimal()), 0),
        _STOPPED in report,
    )


def _return_freed_memory() -> None:
    """Give the system what the allocator kept, which a command would otherwise take without a page being counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _become(words: Sequence[str], folder: Path, files: tuple[int, int], guard: "_Guard") -> None:
    """Run the command in this process, and end it."""
    code = 1
    try:
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=False)  # says where it hangs
        guard.report(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        if "huggingface_hub" in sys.modules:  # a config may name a published network, which is looked for there
            importlib.import_module("huggingface_hub.constants").HF_HUB_OFFLINE = True
        os.environ["XDG_CACHE_HOME"], tempfile.tempdir = str(folder / "cache"), str(folder / "temporary")
        resource.setrlimit(resource.RLIMIT_AS, (_addresses() + _ADDRESSES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.dont_write_bytecode = True
        sys.addaudithook(guard)
        main(list(words))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        guard.report(str(guard.changes))
        os._exit(code)


class _Guard:
    """An audit hook that reports what changes files elsewhere, starts processes or reaches for other machines."""

    def __init__(self, folder: Path, pipe: int, stop_at: Moment | None) -> None:
        self._folders = tuple(f"{folder / name}" for name in ALLOWED)
        self._pipe, self._stop_at = pipe, stop_at
        self.changes = 0

    def __call__(self, event: str, arguments: Sequence[Any]) -> None:
        if event in _STARTS:
            if arguments[0] != sys.executable:  # the program draws in a Python of its own
                self.report(f"{event} {arguments[0]!r:.200}")
        elif event in _CONNECTS:
            self.report(f"{event} {arguments!r:.200}")
        elif event in _CHANGES and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            relative = arguments[-1] if event in ("os.remove", "os.mkdir", "os.rmdir") else -1
            place = os.getcwd() if relative == -1 else os.readlink(f"/proc/self/fd/{relative}")
            named = [arguments[number] for number in _CHANGES[event] if not isinstance(arguments[number], int)]
            paths = [os.path.normpath(os.path.join(place, os.fsdecode(path))) for path in named]
            outside = [path for path in paths if path != os.devnull and not path.startswith(self._folders)]
            if outside:
                self.report(f"{event} {outside[0]!r:.200}")
            elif paths:
                self.changes += 1
                if self._stop_at is not None and self._stop_at(self.changes, event, paths):
                    self.report(_STOPPED)
                    os.kill(os.getpid(), signal.SIGKILL)

    def report(self, line: str) -> None:
        os.write(self._pipe, f"{line}\n".encode(errors="replace"))


def _addresses() -> int:
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
