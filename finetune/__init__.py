"""The training stage: from a genotype and image pairs to a network that fuses."""

from .conclusion import Training
from .config import TrainConfig
from .recipe import train

__all__ = ["TrainConfig", "Training", "train"]
