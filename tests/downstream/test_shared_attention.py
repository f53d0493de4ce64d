"""Shared attention: single pixels worked out by hand, and what must not matter."""

import copy
import math

import pytest
import torch

from timfuse.downstream.shared_attention import SharedAttention


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(channels, levels, seed=0):
    """Random weights and statistics, none of them zero or the identity."""
    module = SharedAttention(channels, levels).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0.0, 0.7, generator=generator)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def assign(gate, inner, inner_norm, outer, outer_norm):
    """Set a gate of one channel: two weights, and mean, variance, scale and shift of two normalisations."""
    for index, weight in ((0, inner), (3, outer)):
        gate[index].weight.data.fill_(weight)
    for index, (mean, variance, scale, shift) in ((1, inner_norm), (4, outer_norm)):
        gate[index].eps = 0.0
        gate[index].running_mean.fill_(mean)
        gate[index].running_var.fill_(variance)
        gate[index].weight.data.fill_(scale)
        gate[index].bias.data.fill_(shift)


@pytest.mark.parametrize(("x_first", "x_second"), [(0.3, -0.2), (-0.4, 0.1), (2.0, 1.5)])
def test_one_pixel_by_hand(x_first, x_second):
    module = SharedAttention(1, 1).double().eval()
    module.common[0][0].weight.data = torch.tensor([1.5, -0.5], dtype=torch.float64).view(1, 2, 1, 1)
    module.common[0][0].bias.data.fill_(0.1)
    norms = (0.2, 4.0, 3.0, 0.25), (-0.1, 0.25, 0.5, -0.3)
    assign(module.first_gates[0], 2.0, norms[0], -1.0, norms[1])
    assign(module.second_gates[0], -3.0, norms[1], 0.7, norms[0])

    common = max(0.0, 1.5 * x_first - 0.5 * x_second + 0.1)
    first, second = x_first + common, x_second + common
    inner = max(0.0, 3.0 * (2.0 * first - 0.2) / 2.0 + 0.25)
    first_attention = sigmoid(0.5 * (-1.0 * inner + 0.1) / 0.5 - 0.3)
    inner = max(0.0, 0.5 * (-3.0 * second + 0.1) / 0.5 - 0.3)
    second_attention = sigmoid(3.0 * (0.7 * inner - 0.2) / 2.0 + 0.25)

    pixels = [torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (x_first, x_second)]
    for attended, x, attention in zip(
        module([pixels[0]], [pixels[1]]), (first, second), (first_attention, second_attention), strict=True
    ):
        assert attended.attention[0].item() == pytest.approx(attention, rel=1e-12)
        assert attended.levels[0].item() == pytest.approx(x * (1 + attention), rel=1e-12)


def test_two_pixels_in_training_are_normalised_to_plus_and_minus_one():
    module = SharedAttention(1, 1).double().train()
    module.common[0][0].weight.data.zero_()
    module.common[0][0].bias.data.fill_(-1.0)  # nothing in common
    for gate in (module.first_gates[0], module.second_gates[0]):
        for index in (0, 3):
            gate[index].weight.data.fill_(1.0)
        gate[1].eps = gate[4].eps = 1e-15
    x = torch.tensor([0.2, 0.9], dtype=torch.float64).view(1, 1, 1, 2)
    first, second = module([x], [-x])
    expected = torch.tensor([sigmoid(-1.0), sigmoid(1.0)], dtype=torch.float64)
    torch.testing.assert_close(first.attention[0].flatten(), expected)
    torch.testing.assert_close(second.attention[0].flatten(), expected.flip(0))
    torch.testing.assert_close(first.levels[0].flatten(), x.flatten() * (1 + expected))


def test_swapping_the_streams_with_their_weights_swaps_the_results():
    module = randomised(3, 2)
    swapped = copy.deepcopy(module)
    swapped.first_gates, swapped.second_gates = swapped.second_gates, swapped.first_gates
    for common in swapped.common:
        common[0].weight.data = common[0].weight.data.roll(3, 1)
    sizes = (8, 4)
    first, second = ([normal(2, 3, size, size, seed=size + shift) for size in sizes] for shift in (0, 1))
    results, other = module(first, second), swapped(second, first)
    for attended, same in zip(results, reversed(other), strict=True):
        for one, two in zip((*attended.levels, *attended.attention), (*same.levels, *same.attention), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_levels_have_nothing_to_do_with_each_other():
    module = randomised(3, 2)
    first, second = ([normal(1, 3, size, size, seed=size + shift) for size in (8, 4)] for shift in (0, 1))
    before, after = module(first, second), module([first[0], first[1] + 1], second)
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one.levels[0], two.levels[0])
        assert not torch.equal(one.levels[1], two.levels[1])


def test_shapes_and_ranges():
    module = randomised(6, 3)
    pyramids = [[normal(2, 6, size, 2 * size, seed=size + shift) for size in (12, 6, 3)] for shift in (0, 1)]
    for attended, levels in zip(module(*pyramids), pyramids, strict=True):
        assert [x.shape for x in attended.levels] == [x.shape for x in levels]
        assert [a.shape for a in attended.attention] == [(2, 1, size, 2 * size) for size in (12, 6, 3)]
        assert all(((a > 0) & (a < 1)).all() for a in attended.attention)


def test_gradients_reach_both_sources_by_either_pyramid():
    module = randomised(2, 1)
    for place in range(2):
        sources = [normal(1, 2, 5, 5, seed=seed).requires_grad_() for seed in range(2)]
        module([sources[0]], [sources[1]])[place].levels[0].sum().backward()
        assert all(source.grad.abs().sum() > 0 for source in sources)


def test_a_level_too_few_is_refused():
    x = [normal(1, 2, 4, 4)]
    with pytest.raises(ValueError, match="zip"):
        randomised(2, 2)(x, x)
