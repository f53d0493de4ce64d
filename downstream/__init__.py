"""Downstream tasks of fused images: networks that detect and segment, their scores, and guiding detectors."""

from .compact_detector import CompactDetector
from .guiding_detectors import GuidingDetectors, keep_guiding_detectors, load_guiding_detectors
from .registered import register_task_network
from .scoring import score_detections, score_masks
from .task_network import Detections, TaskNetwork
from .task_network_folder import (
    build_task_network,
    keep_task_network,
    load_task_network,
    load_task_weights,
    shipped_detectors,
    start_from,
)

__all__ = [
    "CompactDetector",
    "Detections",
    "GuidingDetectors",
    "TaskNetwork",
    "build_task_network",
    "keep_guiding_detectors",
    "keep_task_network",
    "load_guiding_detectors",
    "load_task_network",
    "load_task_weights",
    "register_task_network",
    "score_detections",
    "score_masks",
    "shipped_detectors",
    "start_from",
]
