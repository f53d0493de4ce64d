"""From a searched supernet to a genotype: one operator per edge, and why."""

from collections.abc import Sequence

from torch import Tensor

Choices = list[list[int]]


def choose(probabilities: Tensor) -> Choices:
    """Keep the most probable candidate of each edge.

    Args:
        probabilities: (cells, steps, candidates).

    Returns:
        For each cell and step, the index of the candidate.
    """
    choices: Choices = probabilities.argmax(-1).tolist()
    return choices


def reasons(probabilities: Tensor, operators: Sequence[str]) -> list[list[str]]:
    """Say for each edge how far its operator lay before the runner-up.

    Args:
        probabilities: (cells, steps, candidates).
        operators: ids of the candidates.

    Returns:
        For each cell and step a text like "residual_k3_d1 0.62 before dense_k3_d1 0.21".
    """
    values, indices = probabilities.topk(2, -1)
    return [
        [
            f"{operators[first]} {p:.2f} before {operators[second]} {q:.2f}"
            for (p, q), (first, second) in zip(edge_values, edge_indices, strict=True)
        ]
        for edge_values, edge_indices in zip(values.tolist(), indices.tolist(), strict=True)
    ]
