"""What a user does with a network: fuse images, evaluate, compare, export."""

from ..operators.network_folders import shipped_names
from .comparison import write_comparison
from .evaluation import TRIVIAL, Evaluation, evaluate
from .export import Export, export_onnx
from .fuse_files import FusedFiles, fuse_files
from .fuser import Fuser, load
from .labels import Labeller, load_labeller
from .methods import find_methods
from .page import comparison_page
from .rows import choose_pairs
from .sheet import comparison_sheet
from .table import print_evaluation, write_tables
from .trained_network import TrainedNetwork, load_network

__all__ = [
    "TRIVIAL",
    "Evaluation",
    "Export",
    "FusedFiles",
    "Fuser",
    "Labeller",
    "TrainedNetwork",
    "choose_pairs",
    "comparison_page",
    "comparison_sheet",
    "evaluate",
    "export_onnx",
    "find_methods",
    "fuse_files",
    "load",
    "load_labeller",
    "load_network",
    "print_evaluation",
    "shipped_names",
    "write_comparison",
    "write_tables",
]
