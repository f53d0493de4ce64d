"""The ruler: which metrics rank the methods of a task, and how."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .metric_table import FIELD_METRICS, METRICS

BASKET: tuple[str, ...] = ("VIF", "Qabf", "SCD", "SSIM", "MEF-SSIM", "smear")
"""The metrics that rank methods of most tasks; no copy, stretch or average of the sources wins them all.

The other metrics that papers print stay in tables and out of ranks, because a formula wins each: a copy of the brighter
pixel MI, a stretch of the grey levels EN and SD, noise SF and AG, the average CC and PSNR.
"""

RULERS: dict[str, tuple[str, ...]] = {
    # The structure of the better exposure decides. Exposures differ in brightness by design, which SSIM punishes.
    "multi-exposure": ("MEF-SSIM", "Qabf", "VIF", "SCD", "smear"),
    # A choice between the sources; SCD would reward more contrast than the sharper one has.
    "multi-focus": ("Qabf", "VIF", "MEF-SSIM", "SSIM"),
}
"""The metrics of `BASKET` that rank methods of a task, where these are not all in this order."""

_TIE = 1e-9  # relative difference by rounding of values that are equal by definition


def ruler_of(task: str) -> tuple[str, ...]:
    """Return the metrics that rank the methods of a task, which may be the user's own.

    Example:
        >>> ruler_of("multi-focus"), ruler_of("mine") == BASKET
        (('Qabf', 'VIF', 'MEF-SSIM', 'SSIM'), True)
    """
    return RULERS.get(task, BASKET)


def shown_metrics(task: str) -> tuple[str, ...]:
    """Return the metrics of a table of methods of a task: first those that rank them, then what papers print.

    Example:
        >>> shown_metrics("infrared-visible")[6:]
        ('EN', 'SD', 'SF', 'AG', 'MI', 'CC', 'PSNR')
    """
    return tuple(dict.fromkeys((*ruler_of(task), *BASKET, *FIELD_METRICS)))


def is_better(means: NDArray[np.float64], metrics: Sequence[str]) -> NDArray[np.bool_]:
    """Tell whether the score of one method is better than the score of another.

    Scores below the `floor` of a metric are equal to it, and what only rounding parts is equal.

    Args:
        means: The scores of each method, (methods, metrics); NaN where a metric is undefined.
        metrics: Names in `METRICS`, in the order of the second axis.

    Returns:
        (methods, methods, metrics), for the first method against the second; never true for NaN.

    Example:
        >>> is_better(np.array([[0.9], [0.8]]), ["VIF"])[0, 1].item()
        True
    """
    floors = np.array([METRICS[name].floor for name in metrics])
    sign = np.array([1.0 if METRICS[name].higher_is_better else -1.0 for name in metrics])
    goodness = sign * np.maximum(means, floors)  # NaN stays
    margin = _TIE * np.where(np.isfinite(means), np.abs(means), 0).max(axis=0)
    with np.errstate(invalid="ignore"):  # neither of two infinities is better, and no NaN is
        better: NDArray[np.bool_] = goodness[:, None] - goodness[None] > margin
    return better


def ranks(means: NDArray[np.float64], metrics: Sequence[str]) -> NDArray[np.float64]:
    """Rank the methods by each metric, 1 for the best; equals share the mean of their ranks.

    Args:
        means: The scores of each method, (methods, metrics); NaN where a metric is undefined.
        metrics: Names in `METRICS`, in the order of the second axis.

    Returns:
        (methods, metrics); NaN for a method without a score.

    Example:
        >>> ranks(np.array([[0.9, 0.01], [0.8, 0.0], [0.7, 0.3]]), ["VIF", "smear"])  # 0.01 % is as good as none
        array([[1. , 1.5],
               [2. , 1.5],
               [3. , 3. ]])
    """
    better, known = is_better(means, metrics), ~np.isnan(means)
    above, below = better.sum(axis=0), better.sum(axis=1)
    return np.where(known, (1 + above + known.sum(axis=0) - below) / 2, np.nan)
