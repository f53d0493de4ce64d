"""Architectures: genotypes, their YAML files, and the published ones of the zoo.

`TASKS`, `CELL_KINDS` and `OPERATOR_KINDS` hold what a genotype may name, and `ALL_OPERATORS` the ids of all operators:

>>> TASKS["mri-ct"], list(CELL_KINDS), list(OPERATOR_KINDS)[:3]
(('MRI', 'CT'), ['successive', 'multi_scale', 'decomposition', 'stage'], ['dense', 'residual', 'dilated'])
>>> ALL_OPERATORS[:3]
('dense_k3_d1', 'dense_k3_d2', 'dense_k5_d1')

Scores in a `Provenance` have one shape, `Scores`: "mean" and each part, each with its values by name.

>>> scores: Scores = {"mean": {"loss": 0.5}, "roadscene": {"loss": 0.4}, "tno": {"loss": 0.6}}
"""

from .genotype import CELL_KINDS, TASKS, CellGenotype, Genotype, in_words
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
    "in_words",
    "load_genotype",
    "parse_operator",
    "save_genotype",
    "zoo_names",
]
