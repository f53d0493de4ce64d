"""The pyramid network: its start, sizes, parts and the rewriting for use."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, for_inference
from timfuse.operators.borders import padded


def genotype(
    channels=(6, 8, 10), kind="successive", operators=("plain_k3", "dilated_k3_d1"), norm="none", level=1, head="bands"
):
    cells = (CellGenotype(kind, operators, level=level), CellGenotype("successive", ("plain_k5",), level=0))
    return Genotype("test", "multi-focus", "pyramid", channels, cells, norm=norm, stem="half", head=head)


def without_finest(kind="successive", norm="none"):
    """A genotype without features at the two finest levels."""
    return Genotype("test", "multi-focus", "pyramid", (0, 0, 6), (CellGenotype(kind, ("plain_k3",), level=2),),
                    norm=norm, stem="half", head="bands")  # fmt: skip


@pytest.mark.parametrize("bare", [0, 2])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (13, 30)])
def test_without_its_heads_it_takes_the_larger_band_values_and_averages_the_base(normal, size, bare):
    network = build_network(genotype() if bare == 0 else without_finest()).double()
    for head in (*network.heads, network.base):
        nn.init.zeros_(head.weight)
    first, second = (normal(1, 1, *size, seed=seed) for seed in (0, 1))
    levels = [padded(torch.cat((first, second), 1), 8)]
    for _ in range(3):
        levels.append(F.avg_pool2d(levels[-1], 2))
    expected = levels[-1].mean(1, keepdim=True)
    for fine, coarse in zip(levels[-2::-1], levels[:0:-1], strict=True):
        band = fine - F.interpolate(coarse, scale_factor=2, mode="bilinear")
        larger = torch.where(band[:, :1].abs() >= band[:, 1:].abs(), band[:, :1], band[:, 1:])
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear") + larger
    torch.testing.assert_close(network(first, second), expected[..., : size[0], : size[1]])


@pytest.mark.parametrize("side", [1, -1])
@torch.no_grad()
def test_the_head_of_sources_takes_a_region_from_one_source_by_even_maps(normal, side):
    """u = -1/2, l = 1/2 and s = 1 or -1 in every band, and the base of that source."""
    network = build_network(genotype(head="sources")).double()
    for head in (*network.heads, network.base):
        nn.init.zeros_(head.weight)
    for head in network.heads:  # four pixels for each of u, l, o and s
        head.bias.copy_(torch.tensor([-0.5, 0.5, 0.0, side], dtype=torch.float64).repeat_interleave(4))
    network.base.bias.copy_(torch.tensor([side / 2, -side / 2, 0.0]))
    images = normal(2, 1, 17, 26), normal(2, 1, 17, 26, seed=1)
    torch.testing.assert_close(network(*images), images[0 if side == 1 else 1])


def test_two_sources_that_are_one_image_give_this_image_without_the_heads(normal):
    network = build_network(genotype()).double()
    for head in (*network.heads, network.base):
        nn.init.zeros_(head.weight)
    image = normal(2, 1, 17, 26)
    torch.testing.assert_close(network(image, image), image)


@pytest.mark.parametrize("kind", ["successive", "multi_scale", "decomposition", "stage"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (19, 33)])
@torch.no_grad()
def test_any_size_is_the_crop_of_a_repeated_border_also_when_rewritten_for_use(randomise, normal, kind, norm, size):
    _any_size(randomise(build_network(genotype(kind=kind, norm=norm))).eval(), normal, size)
    _any_size(randomise(build_network(genotype(kind=kind, norm=norm, head="sources"))).eval(), normal, size)
    _any_size(randomise(build_network(without_finest(kind=kind, norm=norm))).eval(), normal, size)


def _any_size(network, normal, size):
    images = [normal(2, 1, *size, seed=seed) for seed in (0, 1)]
    whole = network(*(padded(image, network.multiple) for image in images))
    outputs = network(*images)
    assert outputs.shape == images[0].shape
    torch.testing.assert_close(outputs, whole[..., : size[0], : size[1]], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(for_inference(network)(*images), outputs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["successive", "stage"])
@torch.no_grad()
def test_the_input_of_a_cell_is_added_unless_it_is_a_stage_which_adds_it_itself(randomise, normal, kind):
    network = randomise(build_network(genotype(kind=kind))).eval()
    first, second = normal(1, 1, 16, 24), normal(1, 1, 16, 24, seed=1)
    of_cell, of_head = [], []
    network.cells[0].register_forward_hook(lambda _, arguments, output: of_cell.extend((arguments[0], output)))
    network.heads[1].register_forward_pre_hook(lambda _, arguments: of_head.append(arguments[0]))
    network(first, second)
    (x, output), (features,) = of_cell, of_head
    assert torch.equal(features, output if kind == "stage" else x + output)


@torch.no_grad()
def test_stages_of_identities_alone_change_nothing(randomise, normal):
    without = randomise(build_network(genotype(kind="stage", operators=("identity",))))
    weights = without.state_dict()
    images = normal(1, 1, 16, 24), normal(1, 1, 16, 24, seed=1)
    several = build_network(genotype(kind="stage", operators=("identity",) * 3)).double()
    several.load_state_dict(weights)
    assert torch.equal(without(*images), several(*images))


@torch.no_grad()
def test_attention_multiplies_the_features_of_each_head(randomise, normal):
    network = randomise(build_network(genotype())).eval()
    first, second, attention = (normal(1, 1, 16, 24, seed=seed) for seed in range(3))
    features = []
    for head in network.heads:
        head.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0]))
    network(first, second)
    network(first, second, attention=attention)
    for level, (plain, modulated) in enumerate(zip(features[2::-1], features[:2:-1], strict=True)):
        expected = plain * (1 + F.avg_pool2d(attention, 2 ** (level + 1)))
        torch.testing.assert_close(modulated, expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_agrees_with_finite_differences(randomise, normal):
    network = randomise(build_network(genotype(channels=(2, 2), operators=("plain_k3",))))
    first, second = normal(2, 1, 1, 4, 6)
    parameters = tuple(network.parameters())

    def run(*values):
        named = dict(zip(dict(network.named_parameters()), values, strict=True))
        return torch.func.functional_call(network, named, (first, second)).sum()

    assert torch.autograd.gradcheck(run, parameters)
