"""Architectures: genotypes, their YAML files and the zoo."""

from .genotype import CELL_KINDS, TASKS, CellGenotype, Genotype
from .genotype_files import load_genotype, save_genotype, zoo_names
from .operator_names import ALL_OPERATORS, OPERATOR_KINDS, OperatorKind, OperatorName, parse_operator
from .provenance import Provenance, Scores

__all__ = [
    "ALL_OPERATORS",
    "CELL_KINDS",
    "OPERATOR_KINDS",
    "TASKS",
    "CellGenotype",
    "Genotype",
    "OperatorKind",
    "OperatorName",
    "Provenance",
    "Scores",
    "load_genotype",
    "parse_operator",
    "save_genotype",
    "zoo_names",
]
