"""Pictures: graphs of genotypes, sheets of example images, and figures of curves."""

from .graph import genotype_graph
from .network_drawing import draw

__all__ = ["draw", "genotype_graph"]
