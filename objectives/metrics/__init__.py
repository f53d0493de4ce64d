"""How good fused pictures are, by the metrics of the field."""

from .pictures import Pictures
from .table import BASKET, FIELD_METRICS, METRICS, Metric, fusion_metrics

__all__ = ["BASKET", "FIELD_METRICS", "METRICS", "Metric", "Pictures", "fusion_metrics"]
