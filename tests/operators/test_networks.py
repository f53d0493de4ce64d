"""The networks at any size: padding, cropping, stems, and which source reaches which output."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from timfuse.genotypes import CellGenotype, Genotype, load_genotype, zoo_names
from timfuse.operators import DetFusionNetwork, FusionNetwork, PyramidNetwork, RefineNetwork, build_network

KINDS = ["successive", "multi_scale", "decomposition"]


def fusion_genotype(kind, norm="batch", stem="full", channels=4, head="direct"):
    cells = (CellGenotype(kind, ("residual_k3_d1", "spatial_attention_k3")),)
    return Genotype("test", "infrared-visible", "fusion", channels, cells, norm=norm, stem=stem, head=head)


def refine_genotype(kind, merge, norm="batch"):
    cells = tuple(CellGenotype(kind, ("dilated_k3_d2",), source) for source in ("first", "second"))
    return Genotype("test", "mri-ct", "refine", 4, cells, norm=norm, merge=merge)


def padded(image, multiple):
    """The last pixels repeated up to the next multiple."""
    rows = torch.arange(-(-image.shape[-2] // multiple) * multiple).clamp(max=image.shape[-2] - 1)
    columns = torch.arange(-(-image.shape[-1] // multiple) * multiple).clamp(max=image.shape[-1] - 1)
    return image[..., rows, :][..., columns]


def outputs_of(network, images):
    outputs = network(*images)
    return outputs if isinstance(outputs, tuple) else (outputs,)


@given(
    kind=st.sampled_from(KINDS),
    network=st.sampled_from(["full", "half", "gated", "concat"]),
    norm=st.sampled_from(["batch", "group", "none"]),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
)
@torch.no_grad()
def test_any_size_is_the_crop_of_a_replicated_border(randomise, normal, kind, network, norm, height, width):
    if network in ("full", "half"):
        genotype, count = fusion_genotype(kind, norm, network), 2
    else:
        genotype, count = refine_genotype(kind, network, norm), 3
    module = randomise(build_network(genotype)).eval()
    images = [normal(1, 1, height, width, seed=seed) for seed in range(count)]
    larger = outputs_of(module, [padded(image, module.multiple) for image in images])
    for output, whole in zip(outputs_of(module, images), larger, strict=True):
        assert output.shape == images[0].shape
        assert output.isfinite().all()
        # Sums may run in another order where the network has padded and cropped.
        torch.testing.assert_close(output, whole[..., :height, :width], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["successive", "decomposition"])
def test_without_a_multi_scale_cell_odd_sizes_are_not_padded(randomise, normal, kind):
    network = randomise(build_network(fusion_genotype(kind))).eval()
    first, second = normal(2, 1, 1, 13, 17)
    x = network.stem(torch.cat((first, second), 1))
    for cell in network.cells:
        x = cell(x)
    torch.testing.assert_close(network(first, second), network.head(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_few_pixels_pass_with_the_fewest_channels(normal, norm, size):
    network = build_network(fusion_genotype("multi_scale", norm, channels=2)).eval()
    images = normal(2, 1, 1, *size).float()
    assert network(*images).shape == images[0].shape


@torch.no_grad()
def test_a_size_that_is_a_multiple_is_not_padded(randomise, normal):
    network = randomise(build_network(fusion_genotype("multi_scale"))).eval()
    first, second = normal(2, 1, 1, 8, 12)
    body = torch.nn.Sequential(network.stem, *network.cells, network.head)
    expected = body(torch.cat((first, second), 1))
    torch.testing.assert_close(network(first, second), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_half_stem_works_on_the_four_phases_of_each_source(randomise, normal):
    network = randomise(build_network(fusion_genotype("successive", stem="half"))).eval()
    first, second = normal(2, 1, 1, 8, 16)
    phases = [source[..., i::2, j::2] for source in (first, second) for i in range(2) for j in range(2)]
    small = torch.nn.Sequential(network.stem, *network.cells, network.head)(torch.cat(phases, 1))
    output = network(first, second)
    for index in range(4):
        i, j = divmod(index, 2)
        torch.testing.assert_close(output[:, 0, i::2, j::2], small[:, index], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stem", ["full", "half"])
@torch.no_grad()
def test_an_envelope_head_weighs_the_brighter_and_the_darker_source(randomise, normal, stem):
    network = randomise(build_network(fusion_genotype("successive", stem=stem, head="envelope"))).eval()
    images = normal(2, 1, 1, 9, 14)
    upper, lower = images.amax(0), images.amin(0)
    maps = []
    network.head.register_forward_hook(lambda _, inputs, output: maps.append(output))
    fused = network(*images)
    if stem == "half":
        maps[0] = torch.nn.functional.pixel_shuffle(maps[0], 2)
    above, below, offset = (part[..., :9, :14] for part in maps[0].split(1, 1))
    torch.testing.assert_close(fused, above * upper + below * lower + offset, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stem", ["full", "half"])
@torch.no_grad()
def test_an_envelope_head_starts_close_to_the_maximum(stem):
    torch.manual_seed(0)
    images = torch.rand(2, 1, 1, 20, 30)
    fused = build_network(fusion_genotype("successive", stem=stem, head="envelope", channels=16)).eval()(*images)
    assert (fused - 0.9 * images.amax(0) - 0.1 * images.amin(0)).abs().max() < 0.1


@pytest.mark.parametrize("name", zoo_names())
@torch.no_grad()
def test_zoo_networks_map_images_to_images(name):
    genotype = load_genotype(name)
    network = build_network(genotype).eval()
    images = torch.rand(3, 1, 1, 11, 13, generator=torch.Generator().manual_seed(0))
    kinds = {"fusion": FusionNetwork, "detfusion": DetFusionNetwork, "refine": RefineNetwork, "pyramid": PyramidNetwork}
    assert isinstance(network, kinds[genotype.network])
    if genotype.network == "refine":
        outputs = network(*images)
        assert len(outputs) == 3
    else:
        outputs = (network(*images[:2]),)
    for output in outputs:
        assert output.shape == (1, 1, 11, 13)
        assert output.isfinite().all()


@pytest.mark.parametrize("merge", ["gated", "concat"])
@torch.no_grad()
def test_each_side_image_comes_from_its_source_and_the_fused_image(randomise, normal, merge):
    network = randomise(build_network(refine_genotype("successive", merge))).eval()
    images = [normal(1, 1, 8, 8, seed=seed) for seed in range(3)]
    before = network(*images)
    for changed, moved in ((0, (True, False)), (1, (False, True)), (2, (True, True))):
        other = [image + (index == changed) for index, image in enumerate(images)]
        after = network(*other)
        assert tuple(not torch.equal(x, y) for x, y in zip(before[:2], after[:2], strict=True)) == moved
        assert not torch.equal(before[2], after[2])
    bounded = before if merge == "concat" else before[:2]
    assert all(image.abs().max() <= 1 for image in bounded)


@torch.no_grad()
def test_the_gate_blends_the_branches_by_a_mask_from_the_first(randomise, normal):
    network = randomise(build_network(refine_genotype("successive", "gated"))).eval()
    images = [normal(1, 1, 8, 8, seed=seed) for seed in range(3)]
    merged = []
    network.head.register_forward_pre_hook(lambda _, arguments: merged.append(arguments[0]))
    network(*images)
    first = network.first_cells[0](network.first_stem(torch.cat((images[0], images[2]), 1)))
    second = network.second_cells[0](network.second_stem(torch.cat((images[1], images[2]), 1)))
    maximum, mean = first.max(1).values, first.mean(1)
    weights = network.gate.weight[0, :, 0, 0]
    mask = (weights[0] * maximum + weights[1] * maximum + weights[2] * mean).sigmoid().unsqueeze(1)
    torch.testing.assert_close(merged[0], mask * first + (1 - mask) * second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stem", ["full", "half"])
@torch.no_grad()
def test_attention_multiplies_the_features_before_the_head(randomise, normal, stem):
    network = randomise(build_network(fusion_genotype("successive", stem=stem))).eval()
    first, second = normal(2, 2, 1, 9, 14)
    attention = normal(2, 1, 9, 14, seed=1).sigmoid()
    features = []
    network.head.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0]))
    plain, modulated = network(first, second), network(first, second, attention=attention)
    padding = padded(attention, network.multiple)
    expected = F.interpolate(padding, features[0].shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[1], features[0] * (1 + expected), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(plain, modulated)
    assert torch.equal(network(first, second, attention=torch.zeros_like(attention)), plain)


@torch.no_grad()
def test_convolutions_of_stem_and_head_reflect_the_border(randomise, normal):
    network = randomise(build_network(fusion_genotype("successive"))).eval()
    x, stem = normal(1, 2, 6, 7), network.stem[0]
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), stem.weight, stem.bias)
    torch.testing.assert_close(stem(x), expected, rtol=1e-12, atol=1e-12)
