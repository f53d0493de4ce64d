"""The training stage: from a genotype and image pairs to a network that fuses."""

from .train_config import TrainConfig
from .train_recipe import Training, train

__all__ = ["TrainConfig", "Training", "train"]
