"""The cells: what they are made of, in which order, and what they keep."""

import pytest
import torch

from timfuse.operators import build_operator
from timfuse.operators.cells import CELLS, DecompositionCell, MultiScaleCell, StageCell, SuccessiveCell
from timfuse.operators.primitives import added

OPERATORS = ["residual_k3_d1", "spatial_attention_k3"]


def build(name, channels):
    return build_operator(name, channels)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4)])
def test_shape_is_kept_and_images_of_a_batch_do_not_mix(randomise, normal, kind, size):
    cell = randomise(CELLS[kind](6, OPERATORS, "batch", build)).eval()
    x = normal(3, 6, *size)
    output = cell(x)
    assert output.shape == x.shape
    torch.testing.assert_close(output[1:2], cell(x[1:2]), rtol=1e-8, atol=1e-8)


def test_successive_cell_applies_its_operators_in_order(randomise, normal):
    cell = randomise(SuccessiveCell(6, OPERATORS, "batch", build)).eval()
    x = normal(2, 6, 5, 7)
    projected = torch.einsum("oc,nchw->nohw", cell.preprocess[1].weight[:, :, 0, 0], x.relu())
    features = cell.preprocess[2](projected)
    for operator in cell.operators:
        features = operator(features)
    torch.testing.assert_close(cell(x), features, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_a_stage_without_blocks_is_the_identity(normal, count):
    cell = StageCell(6, ["identity"] * count, "batch", build)
    x = normal(2, 6, 5, 7)
    assert torch.equal(cell(x), x)
    assert not cell.state_dict()


def test_a_stage_adds_the_input_of_each_block_once(randomise, normal):
    names = ["plain_k3", "identity", "inverted_k3", "spatial_attention_k3"]
    cell = randomise(StageCell(6, names, "batch", build)).eval()
    x = normal(2, 6, 5, 7)
    plain, _, inverted, attention = cell.operators
    first = x + plain(x)
    second = inverted(first)  # which adds its input itself
    torch.testing.assert_close(cell(x), second + attention(second), rtol=1e-12, atol=1e-12)


def test_blocks_without_a_branch_leave_their_input(randomise, normal):
    x = normal(2, 4, 6, 5)
    for name in ("plain_k3", "residual_k3_d1", "inverted_k5", "separable_k3", "channel_attention_k3"):
        operator = build_operator(name, 4, "none").double()
        for parameter in operator.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(added(operator, x), x)


def test_multi_scale_cell_merges_three_sizes(randomise, normal):
    cell = randomise(MultiScaleCell(4, OPERATORS, "batch", build)).eval()
    sizes = []
    for chain in (cell.operators, cell.operators_half, cell.operators_quarter):
        chain.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    merged = []
    cell.merge.register_forward_hook(lambda _, arguments, output: merged.append((arguments[0], output)))
    x = normal(1, 4, 8, 12)
    output = cell(x)
    assert sizes == [(4, 8, 12), (8, 4, 6), (16, 2, 3)]
    ((scales, fused),) = merged
    assert [scale.shape for scale in scales] == [x.shape] * 3
    torch.testing.assert_close(output, cell.preprocess(x) + fused, rtol=1e-12, atol=1e-12)


def bands(cell, x):
    """The inputs of the two projections: the low and the high part of each radius and epsilon."""
    seen = []
    hooks = [
        projection.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        for projection in (cell.low_projection, cell.high_projection)
    ]
    cell(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_decomposition_splits_features_without_loss_and_keeps_brightness_low(normal):
    cell = DecompositionCell(3, OPERATORS, "none", build).double()
    x = normal(2, 3, 10, 12)
    low, high = bands(cell, x)
    assert low.shape == high.shape == (2, 6 * 3, 10, 12)
    torch.testing.assert_close(low + high, x.repeat(1, 6, 1, 1), rtol=1e-10, atol=1e-10)
    # The guide is the spread over the channels: brightness does not move it, so all of it is low-frequency.
    brighter_low, brighter_high = bands(cell, x + 0.7)
    torch.testing.assert_close(brighter_low, low + 0.7, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(brighter_high, high, rtol=1e-8, atol=1e-8)
