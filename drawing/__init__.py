"""Pictures: genotypes as graphs, sheets of example images, and the panels of all curves."""

from .graph import genotype_graph
from .network_drawing import draw

__all__ = ["draw", "genotype_graph"]
