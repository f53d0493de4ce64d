"""The training stage: from a genotype and image pairs to a network that fuses.

One step on synthetic pairs, for the sake of brevity:

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> data = {"synthetic_pairs": 3, "validation_pairs": 1, "crop": 16, "batch_size": 1}
>>> with TemporaryDirectory() as run:
...     config = TrainConfig(run=Path(run), task="mri-ct", data=data, train={"steps": 1, "warmup": 0})
...     training: Training = train(config)
>>> training.genotype.task, training.best_step, list(training.scores)
('mri-ct', 0, ['best', 'average', 'maximum'])
"""

from .train_config import TrainConfig
from .train_recipe import Training, train

__all__ = ["TrainConfig", "Training", "train"]
