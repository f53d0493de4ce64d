"""What a network is made of: operators, cells, mixtures of candidates, and the fusion networks themselves."""

from .build import build_network, build_operator, build_supernet, inherited_weights
from .counting import count_flops, count_memory, count_parameters, parameter_sizes
from .detfusion import DetFusionNetwork
from .folding import fold_batch_norm
from .inference import for_inference
from .networks import FusionNetwork, RefineNetwork
from .receptive_field import receptive_field
from .released import convert_released

__all__ = [
    "DetFusionNetwork",
    "FusionNetwork",
    "RefineNetwork",
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
    "parameter_sizes",
    "receptive_field",
]
