"""The machine's memory: its size, and the reuse of what was freed, so that large tensors cause no page faults."""

import ctypes
import os
import sys

from .errors import UserError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Make glibc's allocator reuse large blocks instead of returning them to the operating system.

    By default every tensor of more than a few megabytes is mapped anew, and the page faults at its first use can take
    longer than the computation. In return, the process keeps the memory of its largest moment. The environment variable
    TIMFUSE_KEEP_MEMORY=0 leaves the allocator unchanged, and so does a system without glibc.
    """
    if os.environ.get("TIMFUSE_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)


def physical_memory() -> int:
    """Return the size of the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(needed: float, what: str, remedy: str, there: int | None = None) -> None:
    """Refuse what does not fit into a memory, before the system ends the process for it.

    Args:
        needed: Number of bytes that are needed in any case.
        what: The work that needs them, as the subject of a sentence.
        remedy: What the user can lower, as an imperative.
        there: Size of the memory in bytes; None for that of this machine.

    Raises:
        UserError: If there are fewer.
    """
    there = physical_memory() if there is None else there
    if needed > there:
        raise UserError(
            f"{what} would need {needed / 1e9:,.0f} GB of memory, and there are {there / 1e9:,.0f}; {remedy}"
        )
