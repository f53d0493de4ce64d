"""The search stage: from image pairs to a genotype."""

from ..cost.budget_report import Spending
from ..cost.latency_prediction import Prediction, check_prediction, print_prediction
from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SearchResult, print_seeds

__all__ = [
    "Prediction",
    "SearchConfig",
    "SearchResult",
    "Spending",
    "check_prediction",
    "print_prediction",
    "print_seeds",
    "search",
]
