"""The errors that callers tell apart: those that a user can put right, and values that are not finite."""

import math
from collections.abc import Mapping


class UserError(Exception):
    """A mistake that a user can make and mend: one line with what is wrong, where, and what to do.

    The command line prints the line alone and exits with code 2; everything else is a defect of the
    program and keeps its traceback.
    """


class StoppedError(UserError):
    """The user stopped a run, which can be resumed."""


class InUseError(UserError):
    """Another process has the run folder."""


class NonFiniteError(ArithmeticError):
    """A loss or gradient is infinite or not a number."""


def check_finite(values: Mapping[str, float]) -> None:
    """Check losses and norms before they are used.

    Args:
        values: Numbers by what they are, such as "loss" or "gradient".

    Raises:
        NonFiniteError: If a number is infinite or NaN; names the first one.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name} is not finite: {value}")
