"""Settings of the estimators, as a user gives them by name."""

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
        estimator: A key of `ESTIMATORS`.
        options: Its settings by name.
        key: Where the user gave them, for the error.

    Raises:
        UserError: It has no such setting, or the value is of the wrong kind.
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
    """Give an estimator that models the inner steps their learning rate, unless the user set one.

    Args:
        estimator: A key of `ESTIMATORS`.
        options: Its settings by name.
        learning_rate: Of the inner steps.
        weights: The inner variables.

    Returns:
        The keyword arguments to call it with.
    """
    completed: dict[str, Any] = dict(options)
    parameters = inspect.signature(ESTIMATORS[estimator]).parameters
    if "learning_rate" in parameters:
        completed.setdefault("learning_rate", learning_rate)
    if "optimizer" in parameters:
        completed["optimizer"] = torch.optim.SGD(weights, lr=learning_rate)
    return completed
