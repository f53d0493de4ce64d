"""Genotypes as graphs and pictures."""

from .graph import genotype_graph
from .network_drawing import Drawing, draw

__all__ = ["Drawing", "draw", "genotype_graph"]
