"""A supernet of widths: with one-hot probabilities it is the derived network, and gradients reach every width."""

import itertools
import random

import pytest
import torch

from timfuse.cost import Choices, SearchSpace
from timfuse.genotypes import ALL_OPERATORS, parse_operator
from timfuse.operators import build_network, build_supernet, inherited_weights
from timfuse.operators.width_supernet import WIDENED, WidthSupernet

CANDIDATES = tuple(name for name in ALL_OPERATORS if parse_operator(name).kind in WIDENED)
SPACES = [
    {"channels": ((0, 2, 4), (2, 4, 6)), "cells": ("stage", "stage"), "levels": (0, 1)},
    {"channels": ((0, 4), (2, 6), (2, 4)), "cells": ("stage", "successive", "stage"), "levels": (1, 0, 2)},
    {"channels": ((0, 2, 4), (2, 4, 6)), "cells": ("successive", "stage", "successive"), "levels": (1, 1, 0)},
    {"channels": ((0, 4), (4, 6)), "cells": ("stage",), "levels": (1,), "head": "sources"},
    {"channels": ((2, 4, 6), (2, 6, 8)), "cells": ("successive", "stage"), "levels": (0, 1), "head": "sources"},
    {"channels": ((2, 4, 8),), "cells": ("stage", "successive"), "levels": (0, 0)},
    {"channels": ((2, 4), (4, 8), (2, 6)), "cells": ("stage", "stage"), "levels": (2, 2)},
]


def space_of(candidates=CANDIDATES, steps=3, **settings):
    return SearchSpace(
        **{"steps": steps, "operators": candidates, "norm": "none", "stem": "half", "head": "bands", **settings}
    )


def supernet_of(space):
    return build_supernet(
        channels=space.channels,
        cells=space.cells,
        steps=space.steps,
        candidates=space.operators,
        norm=space.norm,
        stem=space.stem,
        head=space.head,
        levels=space.levels,
    )


def one_hot(space, choices):
    """The probabilities of operators and of widths that are those of one network."""
    operators = torch.eye(len(space.operators), dtype=torch.float64)[torch.tensor(choices.operators)]
    return operators, torch.eye(len(space.width_options[0]), dtype=torch.float64)[torch.tensor(choices.widths)]


@pytest.mark.parametrize("settings", SPACES)
@torch.no_grad()
def test_one_hot_supernet_is_the_derived_network(randomise, normal, settings):
    """For all combinations of widths, and every operator somewhere."""
    space, draw, seen = space_of(**settings), random.Random(0), set()
    supernet = randomise(supernet_of(space))
    assert isinstance(supernet, WidthSupernet)
    first, second = normal(2, 1, 9, 14), normal(2, 1, 9, 14, seed=1)
    indices = itertools.cycle(draw.sample(range(len(CANDIDATES)), len(CANDIDATES)))
    for widths in 4 * list(itertools.product(range(len(space.width_options[0])), repeat=len(space.channels))):
        choices = Choices([[next(indices) for _ in range(space.steps)] for _ in space.cells], widths)
        seen |= {index for row in choices.operators for index in row}
        network = build_network(space.genotype(choices)).double()
        network.load_state_dict(inherited_weights(supernet, choices.operators, network))
        fused = supernet(first, second, *one_hot(space, choices))
        torch.testing.assert_close(fused, network(first, second), rtol=1e-9, atol=1e-9)
    assert len(seen) == len(CANDIDATES)


@pytest.mark.parametrize("widths", [(0, 0), (0, 2), (1, 0), (2, 1)])
@torch.no_grad()
def test_a_stage_without_blocks_is_left_out(randomise, normal, widths):
    space = space_of(("identity", "plain_k3", "residual_k3_d1"), steps=2, **SPACES[0])
    supernet = randomise(supernet_of(space))
    images = normal(2, 1, 9, 14), normal(2, 1, 9, 14, seed=1)
    for operators in ([[0, 0], [0, 0]], [[0, 1], [2, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 2]]):
        choices = Choices(operators, widths)
        network = build_network(space.genotype(choices)).double()
        network.load_state_dict(inherited_weights(supernet, operators, network))
        torch.testing.assert_close(supernet(*images, *one_hot(space, choices)), network(*images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("widths", [(0, 1), (1, 0), (2, 2)])
def test_inherited_weights_are_slices_of_those_of_the_supernet(widths):
    space = space_of(steps=2, **SPACES[0])
    supernet = supernet_of(space)
    owned = {tensor.untyped_storage().data_ptr() for tensor in supernet.state_dict().values()}
    choices = Choices([[0, 5], [9, 13]], widths)
    network = build_network(space.genotype(choices))
    weights = inherited_weights(supernet, choices.operators, network)
    assert weights.keys() == network.state_dict().keys()
    assert all(tensor.untyped_storage().data_ptr() in owned for tensor in weights.values())
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(3)
    assert all((tensor == 3).all() for tensor in weights.values())


@pytest.mark.parametrize("settings", SPACES[1:5])
def test_the_gradients_by_all_logits_agree_with_finite_differences(randomise, normal, settings):
    candidates = ("identity", "plain_k3", "inverted_k3", "channel_attention_k3")
    space = space_of(candidates, steps=1, **settings)
    supernet = randomise(supernet_of(space))
    first, second = normal(1, 1, 5, 7), normal(1, 1, 5, 7, seed=1)
    operators = normal(len(space.cells), 1, len(candidates), seed=2).requires_grad_()
    widths = normal(len(space.channels), len(space.width_options[0]), seed=3).requires_grad_()

    def fuse(operators, widths):
        return supernet(first, second, operators.softmax(-1), widths.softmax(-1)).square().mean()

    assert torch.autograd.gradcheck(fuse, (operators, widths))
    for gradient in torch.autograd.grad(fuse(operators, widths), (operators, widths)):
        assert (gradient != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widths", [(0, 1), (1, 0), (2, 2)])
def test_where_one_width_is_chosen_the_slope_of_another_is_what_a_little_of_it_changes(
    randomise, normal, widths, dtype
):
    space = space_of(steps=2, **SPACES[0])
    supernet = randomise(supernet_of(space))
    images = normal(1, 1, 9, 14), normal(1, 1, 9, 14, seed=1)
    operators, chosen = one_hot(space, Choices([[3, 5], [9, 13]], widths))

    def fuse(widths, dtype=torch.float64):
        values = (value.to(dtype) for value in (*images, operators, widths))
        return supernet.to(dtype)(*values).square().mean()

    slopes, step = torch.zeros_like(chosen), 1e-6
    with torch.no_grad():
        for index in range(chosen.numel()):
            more = chosen.clone()
            more.view(-1)[index] += step
            slopes.view(-1)[index] = (fuse(more) - fuse(chosen)) / step
    chosen.requires_grad_()
    (gradient,) = torch.autograd.grad(fuse(chosen, dtype), chosen)
    torch.testing.assert_close(gradient, slopes, rtol=1e-3, atol=1e-3 * slopes.abs().max().item())
    assert (gradient != 0).all()
