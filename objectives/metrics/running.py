"""The metrics of image fusion in the interface of torchmetrics: means over all batches of an evaluation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...runtime.errors import UserError
from .metric_table import FIELD_METRICS, fusion_metrics

try:
    from torchmetrics import Metric
except ImportError:
    raise UserError("FusionMetrics needs the package torchmetrics; pip install timfuse[tasks]") from None


class FusionMetrics(Metric):
    """The means of `fusion_metrics` over all pairs, on the device to which it is moved.

    Args:
        names: Names of the metrics, keys of `METRICS`.
        options: Options of every metric of torchmetrics, such as `sync_on_compute`.

    Example:
        >>> metrics = FusionMetrics(["SD", "CC"])
        >>> first = torch.full((1, 1, 16, 16), 255.0).tril()
        >>> for fused in (first, first.mT.contiguous()):
        ...     metrics.update(fused, first, first.mT.contiguous())
        >>> {name: round(value.item(), 1) for name, value in metrics.compute().items()}
        {'SD': 127.3, 'CC': 0.1}
    """

    full_state_update = False
    totals: Tensor
    counts: Tensor

    def __init__(self, names: Sequence[str] = FIELD_METRICS, **options: Any) -> None:
        super().__init__(**options)
        self.names = tuple(names)
        for state in ("totals", "counts"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, fused: Tensor, first: Tensor, second: Tensor) -> None:
        """Add a batch of pictures, (N, 1, H, W) in 0..255, as `fusion_metrics` takes them."""
        scores = torch.stack(list(fusion_metrics(fused, first, second, self.names).values()), 1)  # (N, metrics)
        self.totals += scores.nansum(0)
        self.counts += scores.isfinite().sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each metric over the pairs for which it is defined; NaN if there is none."""
        return dict(zip(self.names, self.totals / self.counts, strict=True))
