"""The training stage: from a genotype and image pairs to a network that fuses."""

from .train_conclusion import Training
from .train_config import TrainConfig
from .train_recipe import train

__all__ = ["TrainConfig", "Training", "train"]
