"""The search stage: from image pairs to a genotype."""

from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SearchResult, print_front, print_seeds
from .verification import Verification, print_verification, verify

__all__ = [
    "SearchConfig",
    "SearchResult",
    "Verification",
    "print_front",
    "print_seeds",
    "print_verification",
    "search",
    "verify",
]
