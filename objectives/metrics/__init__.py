"""Metrics of image fusion: scores of fused pictures, as papers of the field print them.

`METRICS` holds all of them, `FIELD_METRICS` names those that papers print, and `BASKET` those that rank methods here:

>>> sorted(set(METRICS) - set(FIELD_METRICS))
['FMI', 'MEF-SSIM', 'MS-SSIM', 'NMI', 'Qcv', 'smear']
>>> BASKET
('MI', 'VIF', 'Qabf', 'SCD', 'SSIM', 'EN', 'SD')
"""

from .metric_table import BASKET, FIELD_METRICS, METRICS, Metric, fusion_metrics
from .pictures import Pictures

__all__ = ["BASKET", "FIELD_METRICS", "METRICS", "Metric", "Pictures", "fusion_metrics"]
