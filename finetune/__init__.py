"""Finetuning of a fusion network, alone or for a downstream task: detection or segmentation.

One step on synthetic pairs, for the sake of brevity:

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> data = {"synthetic_pairs": 3, "validation_pairs": 1, "crop": 32, "batch_size": 1}
>>> with TemporaryDirectory() as run:
...     config = FinetuneConfig(run=Path(run), data=data, train={"steps": 1, "warmup": 0, "images": 0})
...     finetuning: Finetuning = finetune(config)
>>> finetuning.best_step, list(finetuning.scores["mean"])
(0, ['loss'])

Finetunings for a downstream task can be compared with images that need no fusion network:

>>> runs = [Path("runs/joint"), Path("runs/lagrangian")]
>>> for method in evaluate_task(runs, None, Path("runs/comparison")):  # doctest: +SKIP
...     print(method.name, method.mean("AP50"))
>>> MethodScores("joint", (0, 1), ({"AP50": 0.5}, {"AP50": 0.7})).mean("AP50")
0.6
"""

from .finetune_config import FinetuneConfig
from .finetune_recipe import Finetuning, finetune
from .task_evaluation import MethodScores, evaluate_task

__all__ = ["FinetuneConfig", "Finetuning", "MethodScores", "evaluate_task", "finetune"]
