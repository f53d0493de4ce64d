"""Finetuning of a fusion network, alone or for a downstream task: detection or segmentation."""

from .finetune_config import FinetuneConfig
from .finetune_recipe import Finetuning, finetune
from .task_evaluation import TaskEvaluation, evaluate_task
from .task_table import MethodScores

__all__ = ["FinetuneConfig", "Finetuning", "MethodScores", "TaskEvaluation", "evaluate_task", "finetune"]
