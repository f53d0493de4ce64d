"""From a searched supernet to a genotype: one operator per edge, and why."""

from collections.abc import Sequence

from torch import Tensor

Choices = list[list[int]]


def choose(probabilities: Tensor) -> Choices:
    """Keep the most probable candidate of each edge, of equal ones the first.

    Args:
        probabilities: (cells, steps, candidates).

    Returns:
        For each cell and step, the index of the candidate.
    """
    choices: Choices = _ranked(probabilities)[1][..., 0].tolist()
    return choices


def reasons(probabilities: Tensor, operators: Sequence[str]) -> list[list[str]]:
    """Say for each edge how far its operator lay before the runner-up.

    Args:
        probabilities: (cells, steps, candidates).
        operators: ids of the candidates.

    Returns:
        For each cell and step a text like "residual_k3_d1 0.62 before dense_k3_d1 0.21".
    """
    values, indices = (ranked[..., :2] for ranked in _ranked(probabilities))
    return [
        [
            f"{operators[first]} {p:.2f} before {operators[second]} {q:.2f}"
            for (p, q), (first, second) in zip(edge_values, edge_indices, strict=True)
        ]
        for edge_values, edge_indices in zip(values.tolist(), indices.tolist(), strict=True)
    ]


def _ranked(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by falling probability; stable, so that choice and reason agree where candidates are equal."""
    values, indices = probabilities.sort(dim=-1, descending=True, stable=True)
    return values, indices
