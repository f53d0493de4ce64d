"""Scores methods by image-fusion metrics: values for every image, means, ranks and bootstrap intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ..data import Pair, Stack, luma
from ..objectives.metrics import BASKET, METRICS, fusion_metrics, is_better, ranks, ruler_of, shown_metrics
from ..runtime.errors import UserError, printable
from ..runtime.progress import Progress
from .methods import Methods, read_images

Grey = NDArray[np.uint8]

_CONFIDENCE = 0.95


def _average(*sources: Grey) -> Grey:
    return np.rint(np.mean(sources, axis=0, dtype=np.float32)).astype(np.uint8)


def _copy(*sources: Grey, place: int) -> Grey:
    return sources[place]


TRIVIAL: dict[str, Callable[..., Grey]] = {
    "average": _average,
    "maximum": lambda *sources: np.maximum.reduce(sources),
    "copy_first": partial(_copy, place=0),
    "copy_second": partial(_copy, place=1),
}
"""Methods without a network. Each of them wins some metrics, so tables need them for comparison.

For stacks, there is also the copy of each further source, such as copy_3.
"""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The values of several metrics for several methods on several images.

    Args:
        metrics: Names in `METRICS`, in the order of the third axis.
        values: The values, (methods, images, metrics), float64; NaN where a metric is undefined, which is left out of
            means and ranks.
        trivial: Methods for comparison, which are ranked but never marked as best.
        ruler: Metrics whose ranks make the mean rank of a method, where `metrics` has them.
        sources: Number of sources of each image.

    Example:
        >>> values = np.array([[[6.0], [7.0]], [[5.0], [6.0]]])
        >>> Evaluation(("ours", "theirs"), ("00001", "00002"), ("EN",), values).ranks
        array([[1.],
               [2.]])
    """

    methods: tuple[str, ...]
    images: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    trivial: frozenset[str] = frozenset()
    ruler: tuple[str, ...] = BASKET
    sources: int = 2

    def __post_init__(self) -> None:
        assert self.values.shape == (len(self.methods), len(self.images), len(self.metrics))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean over the images, (methods, metrics); NaN where the metric is undefined for every image."""
        return _mean_of_known(self.values, 1)

    @property
    def ranks(self) -> NDArray[np.float64]:
        """The rank of the mean of each method, (methods, metrics), 1 for the best; equals share their average rank.

        A method without a mean has none (NaN).
        """
        return ranks(self.mean, self.metrics)

    @property
    def ranking(self) -> tuple[str, ...]:
        """The metrics whose ranks make the mean rank: those of the ruler, or all where none of these is there."""
        return tuple(metric for metric in self.metrics if metric in self.ruler) or self.metrics

    @property
    def mean_rank(self) -> NDArray[np.float64]:
        """The mean of the ranks over the metrics of `ranking`, (methods,); NaN for a method without any."""
        return _mean_of_known(self.ranks[:, [metric in self.ranking for metric in self.metrics]], 1)

    @property
    def places(self) -> NDArray[np.int64]:
        """The places of the methods that are not trivial, (methods, metrics): 1 the best, 2 the second best, 0 others.

        Equals share the better place. A single method has no place.
        """
        competing = np.array([[method not in self.trivial] for method in self.methods]) & ~np.isnan(self.mean)
        above = (is_better(self.mean, self.metrics) & competing[:, None]).sum(axis=0)
        placed = competing & (above < 2) & (competing.sum(axis=0) > 1)
        return np.where(placed, above + 1, 0)

    def interval(self, resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
        """Compute the 95 % percentile bootstrap interval of the mean over images (Efron 1979).

        Args:
            resamples: Number of times that the images are drawn with replacement. Where all images that are drawn are
                undefined, the draw is left out.
        """
        methods, images, metrics = self.values.shape
        # A mean depends on how often each image is drawn: (resamples, images).
        counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
        values = self.values.transpose(1, 0, 2).reshape(images, -1)
        known = ~np.isnan(values)
        tail, some = (1 - _CONFIDENCE) / 2, known.any(axis=0)
        bounds = np.full((2, metrics * methods), np.nan)
        with np.errstate(invalid="ignore"):  # a mean of nothing, and distances of infinities
            means = counts @ np.where(known, values, 0) / (counts @ known)
            bounds[:, some] = np.nanquantile(means[:, some], (tail, 1 - tail), axis=0)
        return bounds.reshape(2, methods, metrics)

    def of_image(self, index: int) -> "Evaluation":
        """Return the evaluation of a single image."""
        image = self.images[index : index + 1]
        return replace(self, images=image, values=self.values[:, index : index + 1])


def _mean_of_known(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average the values that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, values, 0).sum(axis) / known.sum(axis)
    return mean


def evaluate(
    pairs: Sequence[Pair | Stack],
    methods: Methods,
    metrics: Sequence[str] | None = None,
    *,
    task: str = "infrared-visible",
    trivial: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the fused images of several methods, on luma with 8 bits.

    Names are written as text, with escapes for what is none.

    Args:
        pairs: The sources, two each, or stacks of the same number.
        metrics: Names in `METRICS`, in any case; default: the ruler of the task, and what papers print; for stacks,
            those of these that are defined for more than two sources.
        task: What is fused, which decides by what methods are ranked; see `ruler_of`.
        trivial: Whether to score the methods of `TRIVIAL` too.
        progress: Shows how far the work is, and a warning for each method whose images look wrong.

    Raises:
        UserError: If a metric is unknown, a method has the name of a trivial one, a file cannot be read, or the
            images of a pair differ in size or are too small for a metric.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from timfuse.data import match_pairs, write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pairs = match_pairs(*write_scenes(Path(folder), 1, height=64, width=64, seed=0))
        ...     evaluate(pairs, {"copy": [pairs[0].first]}, ["EN", "SD"]).methods
        ('copy', 'average', 'maximum', 'copy_first', 'copy_second')
    """
    by_name = {name.lower(): name for name in METRICS}
    count = len(pairs[0].files) if pairs else 2
    shown = [metric for metric in shown_metrics(task) if count == 2 or METRICS[metric].of_stacks]
    metrics = tuple(dict.fromkeys(by_name.get(metric.lower(), metric) for metric in metrics or shown))
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise UserError(f"no metric {', '.join(unknown)}; choose from {', '.join(METRICS)}")
    copies = {f"copy_{place + 1}": partial(_copy, place=place) for place in range(2, count)}
    added = TRIVIAL | copies if trivial else {}
    taken = [name for name in methods if name in added]
    if taken:
        raise UserError(f"{taken[0]} is the name of a trivial method; give another with NAME=FOLDER")
    names = (*methods, *added)
    values = np.empty((len(names), len(pairs), len(metrics)))
    trusted = dict(methods)
    for index, images in enumerate(read_images(pairs, methods)):
        greys = [luma(image).astype(np.uint8, copy=False) for image in images]
        sources, fused = greys[:count], greys[count:]
        for name, image in zip(methods, fused, strict=True):
            if progress is not None and name in trusted and image.max() == 1:
                file = trusted.pop(name)[index]
                progress.print(f"warning: {file} uses 1/255 of the range; if it was saved as 0 to 1, multiply by 255")
        fused += [fuse(*sources) for fuse in added.values()]
        batch = torch.from_numpy(np.stack(fused))[:, None]  # (methods, 1, H, W)
        one, other, *further = (torch.from_numpy(source)[None, None] for source in sources)  # (1, 1, H, W)
        try:
            scores = fusion_metrics(batch, one, other, metrics, further=further)
        except UserError as error:
            raise UserError(f"{pairs[index].name}: {error}") from None
        values[:, index] = np.stack([scores[metric].numpy() for metric in metrics], axis=1)
        if progress is not None:
            progress.advance()
    shown_names, names_of_pairs = (tuple(map(printable, texts)) for texts in (names, (pair.name for pair in pairs)))
    return Evaluation(shown_names, names_of_pairs, metrics, values, frozenset(added), ruler_of(task), count)
