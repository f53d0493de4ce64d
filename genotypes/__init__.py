"""Architectures: genotypes, their YAML files and zoo, their graphs and drawings."""

from .drawing import Drawing, draw
from .files import load_genotype, save_genotype, zoo_names
from .genotype import CELL_KINDS, TASKS, CellGenotype, Genotype
from .graph import genotype_graph
from .operator_names import ALL_OPERATORS, OPERATOR_KINDS, OperatorKind, OperatorName, parse_operator

__all__ = [
    "ALL_OPERATORS",
    "CELL_KINDS",
    "OPERATOR_KINDS",
    "TASKS",
    "CellGenotype",
    "Drawing",
    "Genotype",
    "OperatorKind",
    "OperatorName",
    "draw",
    "genotype_graph",
    "load_genotype",
    "parse_operator",
    "save_genotype",
    "zoo_names",
]
