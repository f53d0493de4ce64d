"""Processes that work together, each started with the environment that torchrun would give it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
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
