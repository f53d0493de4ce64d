"""What fused images are for: networks that detect and segment, what guides a fusion by them, and their scores."""

from .detections import Detections
from .detector import CompactDetector
from .guiding_detectors import GuidingDetectors, keep_guiding_detectors, load_guiding_detectors
from .network import TaskNetwork
from .scoring import DetectionScores, SegmentationScores, score_detections, score_masks
from .shared_attention import SharedAttention
from .task_network import (
    build_task_network,
    keep_task_network,
    load_task_network,
    load_task_weights,
    shipped_detectors,
    start_from,
)

__all__ = [
    "CompactDetector",
    "DetectionScores",
    "Detections",
    "GuidingDetectors",
    "SegmentationScores",
    "SharedAttention",
    "TaskNetwork",
    "build_task_network",
    "keep_guiding_detectors",
    "keep_task_network",
    "load_guiding_detectors",
    "load_task_network",
    "load_task_weights",
    "score_detections",
    "score_masks",
    "shipped_detectors",
    "start_from",
]
