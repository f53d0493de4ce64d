"""What a user does with a network: fuse images, evaluate, compare, export.

`TRIVIAL` holds the methods without a network that tables have for comparison:

>>> list(TRIVIAL)
['average', 'maximum', 'copy_first', 'copy_second']
"""

from ..operators.network_folders import shipped_names
from .comparison import write_comparison
from .comparison_page import comparison_page
from .comparison_rows import choose_pairs
from .comparison_sheet import comparison_sheet
from .evaluation import TRIVIAL, Evaluation, evaluate
from .evaluation_table import print_evaluation, write_tables
from .export import Export, export_onnx
from .fuse_files import FusedFiles, fuse_files
from .fuser import Fuser, load
from .labeller import Labeller, load_labeller
from .methods import find_methods
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
