"""Metrics of image fusion: scores of fused pictures, as papers of the field print them.

`METRICS` holds all of them, `FIELD_METRICS` names those that papers print, and `BASKET` those that rank methods here;
some tasks have a ruler of their own, see `ruler_of`:

>>> sorted(set(METRICS) - set(FIELD_METRICS))
['FMI', 'MEF-SSIM', 'MS-SSIM', 'NMI', 'Qcv', 'smear']
>>> BASKET
('VIF', 'Qabf', 'SCD', 'SSIM', 'MEF-SSIM', 'smear')
"""

from .metric_table import FIELD_METRICS, METRICS, Metric, fusion_metrics
from .pictures import Pictures
from .ruler import BASKET, is_better, ranks, ruler_of, shown_metrics

__all__ = [
    "BASKET",
    "FIELD_METRICS",
    "METRICS",
    "Metric",
    "Pictures",
    "fusion_metrics",
    "is_better",
    "ranks",
    "ruler_of",
    "shown_metrics",
]
