"""The search stage: from image pairs to a genotype."""

from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SearchResult, print_seeds

__all__ = [
    "SearchConfig",
    "SearchResult",
    "print_seeds",
    "search",
]
