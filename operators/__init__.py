"""What a network is made of: operators, cells, mixtures of candidates, and the fusion networks themselves."""

from .build import build_network, build_operator, build_supernet, inherited_weights
from .counting import count_flops, count_memory, count_parameters, parameter_sizes
from .detfusion import DetFusionNetwork
from .folding import fold_batch_norm
from .inference import for_inference
from .network_folders import load_network_folder, save_network_folder
from .networks import FusionNetwork, RefineNetwork
from .normalisation import synchronised
from .operator_files import load_operators
from .pyramid import PyramidNetwork
from .receptive_field import beyond_crops, receptive_field
from .registration import register_operator
from .released import convert_released

__all__ = [
    "DetFusionNetwork",
    "FusionNetwork",
    "PyramidNetwork",
    "RefineNetwork",
    "beyond_crops",
    "build_network",
    "build_operator",
    "build_supernet",
    "convert_released",
    "count_flops",
    "count_memory",
    "count_parameters",
    "fold_batch_norm",
    "for_inference",
    "inherited_weights",
    "load_network_folder",
    "load_operators",
    "parameter_sizes",
    "receptive_field",
    "register_operator",
    "save_network_folder",
    "synchronised",
]
