"""What a network costs on a device: counts, latency tables, budgets."""

from .budget import Budget, parse_budget
from .budget_report import BudgetReport
from .cost_model import CostModel
from .cost_penalty import CostPenalty, open_cost_penalty
from .deployment_target import DeploymentTarget
from .feasibility import check_feasible, suggest_setting
from .latency_prediction import LatencyPrediction, check_latency_prediction, print_latency_prediction
from .latency_table import load_latency_table, save_latency_table
from .search_space import Choices, Decisions, SearchSpace

__all__ = [
    "Budget",
    "BudgetReport",
    "Choices",
    "CostModel",
    "CostPenalty",
    "Decisions",
    "DeploymentTarget",
    "LatencyPrediction",
    "SearchSpace",
    "check_feasible",
    "check_latency_prediction",
    "load_latency_table",
    "open_cost_penalty",
    "parse_budget",
    "print_latency_prediction",
    "save_latency_table",
    "suggest_setting",
]
