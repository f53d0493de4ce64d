"""Finetuning under the constraints of a downstream task: detection and segmentation."""

from .finetune_config import FinetuneConfig
from .finetune_recipe import Finetuning, finetune
from .task_evaluation import MethodScores, evaluate_task

__all__ = ["FinetuneConfig", "Finetuning", "MethodScores", "evaluate_task", "finetune"]
