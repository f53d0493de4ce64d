"""The search stage: from image pairs to a genotype."""

from ..cost.budget_report import Spending
from ..cost.latency_prediction import Prediction, check_prediction, print_prediction
from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SeedsReport, print_seeds, search_seeds

__all__ = [
    "Prediction",
    "SearchConfig",
    "SeedsReport",
    "Spending",
    "check_prediction",
    "print_prediction",
    "print_seeds",
    "search",
    "search_seeds",
]
