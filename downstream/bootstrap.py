"""Paired bootstrap over test images: whether one method scores better in a downstream task than another."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .scoring import DetectionMatches, MaskConfusions

_TAILS = 0.025, 0.975
_BLOCK = 64  # sets that are scored at a time, which bounds the memory


def resampled_scores(
    runs: Sequence[DetectionMatches | MaskConfusions], resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Score the runs of a method on sets of images that are drawn with replacement from the test images.

    The sets depend on the number of images, `resamples` and `seed` alone, so that they are the same for all methods.

    Args:
        runs: What each run made of the same test images, in the same order.
        resamples: Number of sets, each with as many images as there are test images.

    Returns:
        The mean over the classes in each set, AP50 or mean intersection over union, (runs, resamples). A class without
        a score in a set is left out there; a set without any class has nan.

    Raises:
        ValueError: If the runs differ in the number of images.

    Example:
        >>> first = MaskConfusions(np.array([[[4, 0], [0, 4]], [[2, 2], [2, 2]]]))
        >>> scores = resampled_scores([first, first], resamples=5)
        >>> scores.shape, sorted({round(score, 3) for score in scores[0].tolist()})
        ((2, 5), [0.333, 0.6, 1.0])
    """
    images = {run.images for run in runs}
    if len(images) != 1:
        raise ValueError(f"the runs of a method need the same images, not {sorted(images)} of them")
    (count,) = images
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    blocks = np.split(draws, range(_BLOCK, resamples, _BLOCK))
    by_class = np.stack([np.concatenate([run.class_scores(block) for block in blocks]) for run in runs])
    return torch.from_numpy(by_class).nanmean(dim=2).numpy()


def difference_interval(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of the first method's mean score minus the second's.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. The interval is over test images; the
    runs of each method are averaged in every set and not drawn.

    Args:
        first: Scores of the first method from `resampled_scores`, (runs, resamples).
        second: Scores of the second method on the same sets; the number of runs may differ.

    Returns:
        The lower and the upper end; nan if no set has a score.

    Example:
        >>> first = np.array([[0.5, 0.7, 0.6], [0.7, 0.7, 0.6]])
        >>> low, high = difference_interval(first, np.array([[0.5, 0.5, 0.5]]))
        >>> round(low, 3), round(high, 3)
        (0.1, 0.195)
    """
    differences = first.mean(axis=0) - second.mean(axis=0)
    known = differences[~np.isnan(differences)]
    low, high = np.quantile(known, _TAILS) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
