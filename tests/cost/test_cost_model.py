import random

import pytest
import torch

from timfuse.cost import CostModel, DeploymentTarget, SearchSpace
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import ALL_OPERATORS
from timfuse.operators import build_network, count_flops, count_parameters

MODEL = CostModel("ms", 7.0, torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 3.0]], dtype=torch.float64))

PYRAMID = {"cells": ("successive", "successive", "decomposition"), "norm": "none", "stem": "half", "head": "bands"}


def test_one_hot_probabilities_cost_what_the_choice_costs():
    for choices in ([[0, 1], [2, 2]], [[2, 2], [0, 1]]):
        probabilities = torch.nn.functional.one_hot(torch.tensor(choices), 3).float()
        assert MODEL.expected(probabilities).item() == MODEL.predict(choices)
    assert MODEL.predict([[0, 1], [2, 2]]) == 7 + 1 + 2 + 3 + 3
    assert MODEL.cheapest(2) == [[0, 0], [2, 2]]


def test_the_expected_cost_is_linear_and_has_the_costs_as_gradient():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 2, 2, 3, generator=generator, dtype=torch.float64).softmax(-1).unbind(0)
    mixed = MODEL.expected(0.3 * p + 0.7 * q)
    torch.testing.assert_close(mixed, 0.3 * MODEL.expected(p) + 0.7 * MODEL.expected(q))
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(MODEL.expected(p), p)
    torch.testing.assert_close(gradient, MODEL.candidates.unsqueeze(1).expand(2, 2, 3))


@pytest.mark.parametrize(
    ("size", "space"),
    [
        ((32, 48), {"cells": ("successive",), "stem": "half", "steps": 3, "operators": ALL_OPERATORS}),
        ((32, 48), {"cells": ("successive", "multi_scale")}),
        ((21, 34), {"cells": ("decomposition", "successive", "decomposition"), "norm": "group", "steps": 1}),
        ((21, 34), {"cells": ("multi_scale", "decomposition"), "norm": "none", "stem": "half", "head": "envelope"}),
        ((21, 34), PYRAMID | {"channels": (4, 6), "levels": (1, 0, 1)}),
    ],
)
def test_counted_costs_are_exactly_those_of_the_networks(size, space):
    space = SearchSpace(**{"channels": 4, "steps": 2, "operators": ALL_OPERATORS[2::7], **space})
    target = DeploymentTarget(*size, torch.device("cpu"))
    models = {kind: count_costs(kind, space, target) for kind in ("FLOPs", "params")}
    draw = random.Random(0)
    for _ in range(4):
        choices = [[draw.randrange(len(space.operators)) for _ in range(space.steps)] for _ in space.cells]
        network = build_network(space.genotype(choices))
        assert models["FLOPs"].predict(choices) == count_flops(network, *size) == target.cost("FLOPs", network)
        assert models["params"].predict(choices) == count_parameters(network) == target.cost("params", network)
