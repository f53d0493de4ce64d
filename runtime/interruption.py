"""Ctrl-C that takes effect at the end of a step, so that a checkpoint never holds half a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C instead of raising an error; the second one interrupts at once.

    Nothing changes outside the main thread, which alone receives signals, and where the caller ignores or handles
    Ctrl-C already.

    Yields:
        A function that returns whether the user wants to stop.
    """
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
