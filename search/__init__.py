"""The search stage: from image pairs to a genotype."""

from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SeedsReport, print_seeds, search_seeds

__all__ = [
    "SearchConfig",
    "SeedsReport",
    "print_seeds",
    "search",
    "search_seeds",
]
