"""Errors that callers distinguish: those that a user can correct, and values that are not finite."""

import math
from collections.abc import Mapping


def printable(text: str) -> str:
    r"""Escape what does not belong into a line of text, such as control characters in the name of a file.

    Example:
        >>> print(printable("a\nb\x1b[31m 测"))
        a\nb\x1b[31m 测
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_one_line(error: BaseException) -> str:
    """Return the class of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


class UserError(Exception):
    """A mistake that a user can correct: one line with what is wrong, where, and what to do.

    The command line prints this line alone and exits with code 2. Any other error is a defect of the program and keeps
    its traceback.

    Example:
        >>> import timfuse
        >>> try:
        ...     timfuse.load("ivfi")
        ... except UserError as error:
        ...     print(str(error).partition(" or ")[0])
        no network 'ivfi' (did you mean 'ivif'?): give the folder of a run,
    """

    def __init__(self, line: str = "") -> None:
        super().__init__(printable(line))


class StoppedError(UserError):
    """The user has stopped a run, which can be resumed."""


class DivergedError(UserError):
    """A run has ended because a loss or a gradient is not finite."""


class InUseError(UserError):
    """Another process uses the run folder."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is infinite or not a number.

    Example:
        >>> check_finite({"loss": 0.5, "gradient": float("nan")})
        Traceback (most recent call last):
        timfuse.runtime.errors.NonFiniteError: the gradient is not finite: nan
    """


def check_finite(values: Mapping[str, float]) -> None:
    """Check losses and norms before they are used.

    Raises:
        NonFiniteError: If a number is infinite or NaN; names the first one.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name} is not finite: {value}")
