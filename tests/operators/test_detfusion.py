"""DetFusion's network: its parts, its number of parameters, its borders, and the attention that modulates it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from timfuse.genotypes import load_genotype
from timfuse.operators import build_network, count_flops, count_parameters, for_inference, receptive_field

GENOTYPE = load_genotype("detfusion")
SMALL = replace(GENOTYPE, channels=2)


def convolved(layer, x):
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias)


def test_the_published_sizes():
    network = build_network(GENOTYPE)
    sizes = {name: value.shape for name, value in network.named_parameters() if value.ndim == 4}
    for encoder in ("first_encoder", "second_encoder"):
        assert [sizes[f"{encoder}.layers.{i}.0.weight"] for i in range(4)] == [
            (16, inputs, 3, 3) for inputs in (1, 16, 32, 48)
        ]
    maps = (128, 64, 32, 16, 1)
    assert [sizes[f"decoder.{2 * i}.weight"] for i in range(4)] == [(maps[i + 1], maps[i], 3, 3) for i in range(4)]
    assert count_parameters(network) == GENOTYPE.provenance["parameters"] == 125_100
    multiplications = sum(value.numel() for name, value in network.named_parameters() if value.ndim == 4)
    assert count_flops(network, 48, 64) == 2 * multiplications * 48 * 64


@torch.no_grad()
def test_each_layer_of_an_encoder_sees_all_before_it(randomise, normal):
    network = randomise(build_network(SMALL)).eval()
    first, second = normal(2, 1, 1, 8, 12)
    encoded = []
    for encoder, image in ((network.first_encoder, first), (network.second_encoder, second)):
        maps = []
        for layer in encoder.layers:
            x = convolved(layer[0], torch.cat(maps, 1) if maps else image)
            maps.append(torch.where(x > 0, x, layer[1].weight * x))
        encoded += maps
    x = torch.cat(encoded, 1)
    for index in (0, 2, 4, 6):
        x = convolved(network.decoder[index], x)
        if index < 6:
            x = torch.where(x > 0, x, network.decoder[index + 1].weight * x)
    torch.testing.assert_close(network(first, second), x, rtol=1e-10, atol=1e-10)


@given(
    head=st.sampled_from(["direct", "envelope"]),
    modulated=st.booleans(),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
)
@torch.no_grad()
def test_any_size_is_the_crop_of_a_replicated_border(randomise, normal, head, modulated, height, width):
    network = randomise(build_network(replace(SMALL, head=head))).eval()
    images = normal(3, 1, 1, height, width)
    more = (0, max(2 - width, 0), 0, max(2 - height, 0))  # reflected borders need two pixels
    larger = F.pad(images.flatten(1, 2), more, mode="replicate").unflatten(1, (1, 1))
    outputs = [
        network(*pair, attention=attention.sigmoid() if modulated else None) for *pair, attention in (images, larger)
    ]
    assert outputs[0].shape == images[0].shape
    torch.testing.assert_close(outputs[0], outputs[1][..., :height, :width], rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_attention_multiplies_the_features_before_the_decoder(randomise, normal):
    network = randomise(build_network(SMALL)).eval()
    first, second = normal(2, 2, 1, 9, 14)
    attention = normal(2, 1, 9, 14, seed=1).sigmoid()
    features = []
    network.decoder.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0]))
    plain, modulated = network(first, second), network(first, second, attention=attention)
    torch.testing.assert_close(features[1], features[0] * (1 + attention), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(plain, modulated)
    assert torch.equal(network(first, second, attention=torch.zeros_like(attention)), plain)


@pytest.mark.parametrize("head", ["direct", "envelope"])
@torch.no_grad()
def test_for_inference_keeps_the_output_with_attention(randomise, normal, head):
    network = randomise(build_network(replace(SMALL, head=head))).eval()
    first, second, attention = normal(3, 1, 1, 13, 18)
    expected = network(first, second, attention=attention.sigmoid())
    fast = for_inference(network)(first, second, attention=attention.sigmoid())
    torch.testing.assert_close(fast, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_an_envelope_head_starts_close_to_the_maximum():
    torch.manual_seed(0)
    images = torch.rand(2, 1, 1, 20, 30)
    fused = build_network(replace(GENOTYPE, head="envelope")).eval()(*images)
    assert (fused - 0.9 * images.amax(0) - 0.1 * images.amin(0)).abs().max() < 0.1


def test_it_looks_eight_pixels_far(randomise, normal):
    network = randomise(build_network(SMALL)).eval()
    images = normal(2, 1, 1, 24, 24).requires_grad_()
    (gradient,) = torch.autograd.grad(network(*images)[0, 0, 12, 12], images)
    rows, columns = gradient.abs().sum((0, 1, 2)).nonzero().unbind(1)
    reach = receptive_field(SMALL)
    assert reach == 8
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12 - reach, 12 + reach, 12 - reach, 12 + reach)
