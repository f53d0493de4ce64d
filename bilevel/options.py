"""Settings of the estimators by name, as in a config."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..runtime.errors import UserError
from . import ESTIMATORS

Estimator = Literal["first_order", "gauss_newton", "finite_difference", "unrolled", "neumann", "conjugate_gradient"]


def check_estimator_options(estimator: Estimator, options: Mapping[str, int | float], key: str) -> None:
    """Check that an estimator has these settings.

    Args:
        options: Settings of the estimator by name, numbers >= 0.

    Raises:
        UserError: If the estimator has no such setting, or a value is not a number of the right kind.
    """
    parameters = inspect.signature(ESTIMATORS[estimator]).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "optimizer"}
    for name, value in options.items():
        if name not in known:
            raise UserError(f"{key}.{name}: {estimator} has no such setting; it has {', '.join(known) or 'none'}")
        if value < 0 or math.isnan(value) or (known[name] is int and type(value) is not int):
            kind = "a whole number" if known[name] is int else "a number"
            raise UserError(f"{key}.{name} = {value} must be {kind} from 0 on")


def complete_options(
    estimator: Estimator, options: Mapping[str, int | float], learning_rate: float, weights: Sequence[Tensor]
) -> dict[str, Any]:
    """Add the learning rate of the inner steps to the settings of an estimator that models these steps.

    Args:
        options: Settings of the estimator by name. A learning rate among them takes precedence.
        learning_rate: Learning rate of the inner steps, > 0.
        weights: Inner variables, for an estimator that takes an optimiser.
    """
    completed: dict[str, Any] = dict(options)
    parameters = inspect.signature(ESTIMATORS[estimator]).parameters
    if "learning_rate" in parameters:
        completed.setdefault("learning_rate", learning_rate)
    if "optimizer" in parameters:
        completed["optimizer"] = torch.optim.SGD(weights, lr=learning_rate)
    return completed
