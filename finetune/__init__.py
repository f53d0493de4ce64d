"""Finetuning of a fusion network, alone or for a downstream task: detection or segmentation."""

from .finetune_config import FinetuneConfig
from .finetune_recipe import Finetuning, finetune
from .task_evaluation import MethodScores, evaluate_task

__all__ = ["FinetuneConfig", "Finetuning", "MethodScores", "evaluate_task", "finetune"]
