"""Settings of the estimators by name, as in a config."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from ..runtime.errors import UserError
from . import ESTIMATORS

MODELLED = ("optimizer", "max_norm")
"""What an estimator is told of the inner step, which is no setting of its own."""

Estimator = Literal["first_order", "gauss_newton", "finite_difference", "unrolled", "neumann", "conjugate_gradient"]


def check_estimator_options(estimator: Estimator, options: Mapping[str, int | float], key: str) -> None:
    """Check that an estimator has these settings.

    Args:
        options: Settings of the estimator by name, numbers >= 0.

    Raises:
        UserError: If the estimator has no such setting, or a value is not a number of the right kind.
    """
    parameters = inspect.signature(ESTIMATORS[estimator]).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in MODELLED}
    for name, value in options.items():
        if name not in known:
            raise UserError(f"{key}.{name}: {estimator} has no such setting; it has {', '.join(known) or 'none'}")
        if value < 0 or math.isnan(value) or (known[name] is int and type(value) is not int):
            kind = "a whole number" if known[name] is int else "a number"
            raise UserError(f"{key}.{name} = {value} must be {kind} from 0 on")


def complete_options(
    estimator: Estimator,
    options: Mapping[str, int | float],
    optimizer: torch.optim.Optimizer,
    max_norm: float | None = None,
) -> dict[str, Any]:
    """Add the step of the inner variables to the settings of an estimator that models it.

    Args:
        options: Settings of the estimator by name. A learning rate among them takes precedence: that of gradient
            descent, or of the series.
        optimizer: Optimiser of the inner variables, just as it takes the step.
        max_norm: Norm to which the step clips a longer gradient; None for no bound.
    """
    completed: dict[str, Any] = dict(options)
    parameters = inspect.signature(ESTIMATORS[estimator]).parameters
    if "learning_rate" in completed:
        return completed
    if "optimizer" in parameters:
        completed |= {"optimizer": optimizer, "max_norm": max_norm}
    elif "learning_rate" in parameters:
        completed["learning_rate"] = optimizer.param_groups[0]["lr"]
    return completed
