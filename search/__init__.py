"""The search stage: from image pairs to a genotype."""

from .config import SearchConfig
from .prediction import Prediction, check_prediction, print_prediction
from .recipe import search
from .seeds import SeedsReport, print_seeds, search_seeds
from .spending import Spending

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
