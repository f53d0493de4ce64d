"""What fused images are for: networks that detect and segment, what guides a fusion by them, and their scores."""

from .detections import Detections
from .detector import CompactDetector
from .network import TaskNetwork
from .scoring import DetectionScores, SegmentationScores, score_detections, score_masks
from .shared_attention import SharedAttention
from .streams import GuidingStreams, keep_streams, load_streams
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
    "GuidingStreams",
    "SegmentationScores",
    "SharedAttention",
    "TaskNetwork",
    "build_task_network",
    "keep_streams",
    "keep_task_network",
    "load_streams",
    "load_task_network",
    "load_task_weights",
    "score_detections",
    "score_masks",
    "shipped_detectors",
    "start_from",
]
