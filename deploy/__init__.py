"""What a user does with a network: fuse images, evaluate, compare, export, publish.

`TRIVIAL` holds the methods without a network that tables have for comparison:

>>> list(TRIVIAL)
['average', 'maximum', 'copy_first', 'copy_second']
"""

from ..operators.network_folders import shipped_names
from .align_files import align_files
from .comparison import write_comparison
from .comparison_rows import choose_pairs
from .evaluation import TRIVIAL, Evaluation, evaluate
from .evaluation_table import print_evaluation, write_tables
from .export import export_onnx
from .fuse_files import fuse_files
from .fuser import Fuser, load
from .labeller import load_labeller
from .methods import find_methods
from .network_list import list_networks
from .publishing import push_network
from .trained_network import load_network

__all__ = [
    "TRIVIAL",
    "Evaluation",
    "Fuser",
    "align_files",
    "choose_pairs",
    "evaluate",
    "export_onnx",
    "find_methods",
    "fuse_files",
    "list_networks",
    "load",
    "load_labeller",
    "load_network",
    "print_evaluation",
    "push_network",
    "shipped_names",
    "write_comparison",
    "write_tables",
]
