"""Finetuning under the constraints of a downstream task: detection and segmentation."""

from .conclusion import Finetuning
from .config import FinetuneConfig
from .evaluation import MethodScores, evaluate_task
from .recipe import finetune

__all__ = ["FinetuneConfig", "Finetuning", "MethodScores", "evaluate_task", "finetune"]
