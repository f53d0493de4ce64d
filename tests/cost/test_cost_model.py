import itertools
import random

import pytest
import torch

from timfuse.cost import Choices, CostModel, Decisions, DeploymentTarget, SearchSpace
from timfuse.cost.cost_model import count_costs
from timfuse.genotypes import ALL_OPERATORS
from timfuse.operators import build_network, count_flops, count_parameters

MODEL = CostModel("ms", 7.0, torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 3.0]], dtype=torch.float64))

REFINE = {"cells": ("successive", "multi_scale", "successive"), "sources": ("first", "second", "second")}
PYRAMID = {"cells": ("successive", "successive", "decomposition"), "norm": "none", "stem": "half", "head": "bands"}


def test_one_hot_probabilities_cost_what_the_choice_costs():
    for operators in ([[0, 1], [2, 2]], [[2, 2], [0, 1]]):
        probabilities = Decisions(torch.nn.functional.one_hot(torch.tensor(operators), 3).float())
        assert MODEL.expected(probabilities).item() == MODEL.predict(Choices(operators))
    assert MODEL.predict(Choices([[0, 1], [2, 2]])) == 7 + 1 + 2 + 3 + 3
    assert MODEL.cheapest(2) == Choices([[0, 0], [2, 2]])


def test_the_expected_cost_is_linear_and_has_the_costs_as_gradient():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 2, 2, 3, generator=generator, dtype=torch.float64).softmax(-1).unbind(0)
    mixed = MODEL.expected(Decisions(0.3 * p + 0.7 * q))
    torch.testing.assert_close(mixed, 0.3 * MODEL.expected(Decisions(p)) + 0.7 * MODEL.expected(Decisions(q)))
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(MODEL.expected(Decisions(p)), p)
    torch.testing.assert_close(gradient, MODEL.candidates.unsqueeze(1).expand(2, 2, 3))


TWO = {"channels": ((0, 2, 4), (2, 4, 6)), "levels": (0, 1, 1), "cells": ("stage", "successive", "stage")}
WIDENED = {"norm": "none", "stem": "half", "head": "bands", "operators": ALL_OPERATORS[-1:] + ALL_OPERATORS[6:18:2]}
THREE = {"channels": ((4, 8), (2, 6), (4, 6)), "levels": (2, 0, 1), "cells": ("stage",) * 3, "head": "sources"}


def random_choices(space, draw):
    operators = [[draw.randrange(len(space.operators)) for _ in range(space.steps)] for _ in space.cells]
    return Choices(operators, tuple(draw.randrange(len(options)) for options in space.width_options))


def all_choices(space):
    """All networks of a small space."""
    rows = list(itertools.product(range(len(space.operators)), repeat=space.steps))
    return [
        Choices([list(row) for row in operators], widths)
        for operators in itertools.product(rows, repeat=len(space.cells))
        for widths in itertools.product(*(range(len(options)) for options in space.width_options))
    ]


@pytest.mark.parametrize(
    ("size", "space"),
    [
        ((32, 48), {"cells": ("successive",), "stem": "half", "steps": 3, "operators": ALL_OPERATORS}),
        ((32, 48), {"cells": ("successive", "multi_scale", "stage")}),
        ((21, 34), {"cells": ("decomposition", "successive", "decomposition"), "norm": "group", "steps": 1}),
        ((21, 34), {"cells": ("multi_scale", "decomposition"), "norm": "none", "stem": "half", "head": "envelope"}),
        ((21, 34), REFINE | {"merge": "gated"}),
        ((16, 24), REFINE | {"merge": "concat", "norm": "group"}),
        ((21, 34), PYRAMID | {"channels": (4, 6), "levels": (1, 0, 1)}),
        ((21, 34), WIDENED | TWO),
        ((16, 24), WIDENED | THREE),
        ((16, 24), WIDENED | {"channels": ((2, 4, 6),), "levels": (0,), "cells": ("stage",)}),
        ((16, 24), WIDENED | {"channels": ((0, 2), (2, 6), (4, 8), (2, 4)), "levels": (3,), "cells": ("stage",)}),
    ],
)
def test_counted_costs_are_exactly_those_of_the_networks(size, space):
    space = SearchSpace(**{"channels": 4, "steps": 2, "operators": ALL_OPERATORS[2::7], **space})
    target = DeploymentTarget(*size, torch.device("cpu"))
    models = {kind: count_costs(kind, space, target) for kind in ("FLOPs", "params")}
    draw = random.Random(0)
    for _ in range(10 if space.width_options else 4):
        choices = random_choices(space, draw)
        genotype = space.genotype(choices)
        network = build_network(genotype)
        flops = count_flops(network, *size, genotype.inputs)
        assert models["FLOPs"].predict(choices) == flops == target.cost("FLOPs", network)
        assert models["params"].predict(choices) == count_parameters(network) == target.cost("params", network)


SMALL = SearchSpace(**WIDENED | TWO | {"operators": ("plain_k3", "identity", "inverted_k3"), "steps": 1})


@pytest.fixture(scope="module", params=["FLOPs", "params"])
def small(request):
    """The cost model of `SMALL`, of either kind."""
    return count_costs(request.param, SMALL, DeploymentTarget(16, 16, torch.device("cpu")))


def test_widths_have_a_rest_for_each_combination_and_operators_a_cost_for_each_width(small):
    assert small.rest.shape == (3, 3)
    assert small.candidates.shape == (3, 3, 3)
    assert small.levels == SMALL.levels
    assert len(small.combinations) == 9
    assert (small.candidates[0, 0] == 0).all()  # a level without feature maps has no cell
    for choices in all_choices(SMALL)[::17]:
        assert small.at(choices.widths).predict(Choices(choices.operators)) == small.predict(choices)


def test_the_expected_cost_of_operators_and_widths_is_the_mean_over_all_networks(small):
    generator = torch.Generator().manual_seed(0)
    operators = torch.randn(3, 1, 3, generator=generator, dtype=torch.float64).softmax(-1)
    widths = torch.randn(2, 3, generator=generator, dtype=torch.float64).softmax(-1)
    mean = total = 0.0
    for choices in all_choices(SMALL):
        probability = 1.0
        for (index,), (row,) in zip(choices.operators, operators.tolist(), strict=True):
            probability *= row[index]
        for index, row in zip(choices.widths, widths.tolist(), strict=True):
            probability *= row[index]
        total += probability
        mean += probability * small.predict(choices)
    assert total == pytest.approx(1, rel=1e-12)
    assert small.expected(Decisions(operators, widths)).item() == pytest.approx(mean, rel=1e-12)


def test_one_hot_operators_and_widths_cost_what_the_choice_costs(small):
    for choices in all_choices(SMALL)[::5]:
        operators = torch.eye(3, dtype=torch.float64)[torch.tensor(choices.operators)]
        widths = torch.eye(3, dtype=torch.float64)[torch.tensor(choices.widths)]
        assert small.expected(Decisions(operators, widths)).item() == small.predict(choices)


def test_the_cost_of_operators_and_widths_has_its_slopes_as_gradient(small):
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 1, 3), (2, 3))]

    def cost(operators, widths):
        return small.expected(Decisions(operators.softmax(-1), widths.softmax(-1))) / 1e3

    assert torch.autograd.gradcheck(cost, [of_kind.requires_grad_() for of_kind in logits])


def test_the_cheapest_network_of_operators_and_widths_costs_least(small):
    cheapest = small.cheapest(SMALL.steps)
    assert cheapest in all_choices(SMALL)
    assert small.predict(cheapest) == min(map(small.predict, all_choices(SMALL)))


def test_the_cheapest_network_need_not_have_the_smallest_widths():
    """Where the wider level has the cheaper operators, by more than its rest costs."""
    rest = torch.tensor([1.0, 2.0], dtype=torch.float64)
    candidates = torch.tensor([[[5.0, 3.0], [4.0, 1.0]]], dtype=torch.float64)
    model = CostModel("ms", rest, candidates, levels=(0,))
    assert model.cheapest(2) == Choices([[1, 1]], (1,))
    assert model.predict(model.cheapest(2)) == 4
