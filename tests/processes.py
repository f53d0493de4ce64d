"""Processes that work together, as torchrun would start them, and the command line in processes that start quickly."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 240  # seconds; on a busy machine, processes are slow to start
_PROGRESS = re.compile(r"[\w -]+: \d+/\d+, ")


def start(arguments: Sequence[str], count: int, folders: Sequence[Path] | None = None) -> list[subprocess.Popen[str]]:
    """Start so many Python processes, each in its folder where these are given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "WORLD_SIZE": f"{count}"}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **common, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
            cwd=folders and folders[rank],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str], list[list[str]]]:
    """Wait for the end of all; return exit codes, outputs and the lines on stderr but for those of progress."""
    try:
        printed = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    lines = [[line for line in errors.splitlines() if not _PROGRESS.match(line)] for _, errors in printed]
    return [process.returncode for process in processes], [output for output, _ in printed], lines


# Imports everything once; each line of the input then has the arguments of a command line and a file for the output.
_SERVER = """
import importlib, json, os, signal, sys
import timfuse.finetune, timfuse.meta_init, timfuse.search, timfuse.training
from timfuse.cli import main
from timfuse.runtime.seeds import seed_everything

seed_everything(0)  # by which torch imports more of itself
for name in ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "torch.utils.tensorboard"):
    if importlib.util.find_spec(name.split(".")[0]):
        importlib.import_module(name)

for line in sys.stdin:
    arguments, output = json.loads(line)
    child = os.fork()
    if child == 0:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["timfuse", *arguments]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class CommandLine:
    """The command line in processes of its own that need no time to start: forks of one that has all imported.

    Args:
        folder: For what the commands print.
    """

    def __init__(self, folder: Path) -> None:
        self._output = folder / "printed.txt"

    def __enter__(self) -> "CommandLine":
        # Not buffered, so that a line is read as soon as it is there, and nothing but it.
        command = [sys.executable, "-c", _SERVER]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def __call__(
        self, *arguments: str, until: Callable[[], bool] | None = None, number: int = signal.SIGKILL
    ) -> tuple[int, str]:
        """Run a command line, and send the process a signal as soon as something is true.

        Returns:
            Exit code, the negative number of the signal where that ended the process, and all that was printed.
        """
        requests, answers = self._server.stdin, self._server.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps([arguments, str(self._output)]).encode() + b"\n")
        child = int(answers.readline())
        while until is not None and not select.select([answers], [], [], 0.002)[0]:
            if until():
                os.kill(child, number)
                break
        return int(answers.readline()), self._output.read_text(encoding="utf-8")
