"""The search stage: from image pairs to a genotype."""

from .config import SearchConfig
from .recipe import search

__all__ = ["SearchConfig", "search"]
