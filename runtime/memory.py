"""Keep freed memory in the process, so that large tensors do not fault in fresh pages at every allocation."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the system.

    By default every tensor of more than a few megabytes is mapped afresh, and the page faults of its first use can
    cost more than the computation. The process then keeps the memory of its largest moment. Set the environment
    variable TIMFUSE_KEEP_MEMORY=0 to leave the allocator as it is. Does nothing where there is no glibc.
    """
    if os.environ.get("TIMFUSE_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
