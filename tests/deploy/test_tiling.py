"""Tiles: how they cover an image, and that a network's output on them is that on the whole image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.deploy.tiling import plan_tiles, run_tiles
from timfuse.deploy.trained_network import TrainedNetwork, load_network
from timfuse.genotypes import CellGenotype, Genotype


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    margin=st.integers(0, 20),
    multiple=st.sampled_from([1, 4, 8]),
    pixels=st.integers(1, 20_000),
)
def test_tiles_cover_the_image_once_and_see_their_surroundings(height, width, margin, multiple, pixels):
    tiles = plan_tiles(height, width, margin=margin, multiple=multiple, pixels=pixels)
    covered = torch.zeros(height, width, dtype=torch.int)
    for tile in tiles:
        covered[tile.area] += 1
        for length, area, seen, crop in zip((height, width), tile.area, tile.surroundings, tile.crop, strict=True):
            assert area.start % multiple == seen.start % multiple == 0
            assert area.stop % multiple == 0 or area.stop == length
            assert seen.stop % multiple == 0 or seen.stop == length
            assert seen.start == 0 or area.start - seen.start >= margin
            assert seen.stop == length or seen.stop - area.stop >= margin
            assert (seen.start + crop.start, seen.start + crop.stop) == (area.start, area.stop)
    assert (covered == 1).all()
    if height * width <= pixels:
        assert len(tiles) == 1


def test_tiles_keep_to_the_pixels():
    for tile in plan_tiles(2500, 4000, margin=19, multiple=8, pixels=400_000):
        rows, columns = tile.surroundings
        assert (rows.stop - rows.start) * (columns.stop - columns.start) <= 400_000


def in_tiles(network, images, margin, side):
    tiles = plan_tiles(*images[0].shape[-2:], margin=margin, multiple=network.multiple, pixels=side * side)
    assert len(tiles) >= 4
    output = torch.full_like(images[0], torch.nan)
    reads = []

    def read(area):
        reads.append(area)
        return tuple(image[..., area[0], area[1]] for image in images)

    def write(area, piece):
        output[..., area[0], area[1]] = piece

    run_tiles(network, tiles, read, write)
    return output, len(reads) / len(tiles)


def check(network, normal_images, passes, margin=None):
    """Compare with the whole image, in units of the output's range."""
    with torch.inference_mode():
        whole = network(*normal_images)
    margin = network.reach if margin is None else margin
    output, counted = in_tiles(network, normal_images, margin, 6 * margin + 16)
    assert counted == passes
    return ((output - whole).abs().max() / (whole.max() - whole.min())).item()


def images(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(2, 1, 1, height // 8, width // 8, generator=generator)
    noise = torch.rand(2, 1, 1, height, width, generator=generator)
    return tuple(
        0.7 * torch.nn.functional.interpolate(smooth[i], (height, width), mode="bicubic") + 0.3 * noise[i]
        for i in range(2)
    )


@pytest.mark.parametrize("head", ["direct", "envelope"])
@pytest.mark.parametrize("stem", ["full", "half"])
@pytest.mark.parametrize(
    ("operators", "kind", "norm", "passes"),
    [
        (("residual_k3_d1", "dilated_k3_d2"), "successive", "batch", 1),
        (("dense_k3_d1", "spatial_attention_k7"), "successive", "none", 1),
        (("channel_attention_k3", "separable_k3", "channel_attention_k5"), "successive", "batch", 3),
        (("residual_k3_d1",), "successive", "group", 5),
        (("dilated_k3_d1",), "decomposition", "batch", 1),
        (("channel_attention_k3",), "multi_scale", "batch", 5),
    ],
)
def test_no_seams(tmp_path, write_network, fusion_genotype, operators, kind, norm, passes, stem, head):
    genotype = fusion_genotype(*operators, kind=kind, norm=norm, stem=stem, head=head)
    network = load_network(write_network(tmp_path / "network", genotype))
    sides = 9 * network.reach + 21, 10 * network.reach + 11
    assert check(network, images(*sides), passes) < 1e-5


def test_a_smaller_margin_is_seen(network_folder):
    network = load_network(network_folder)
    assert check(network, images(130, 140), 1, margin=network.reach) < 1e-5
    # Eight pixels are not enough for this network.
    assert check(network, images(130, 140), 1, margin=8) > 1e-4


def test_two_stages(tmp_path, write_network, fusion_genotype):
    cells = [
        CellGenotype("successive", (name,), source)
        for name, source in (("channel_attention_k3", "first"), ("dilated_k3_d2", "second"))
    ]
    refine = Genotype("refine", "infrared-visible", "refine", 4, tuple(cells), merge="gated")
    folder = write_network(tmp_path / "network", refine)
    write_network(folder / "first_stage", fusion_genotype("channel_attention_k3", stem="half"), seed=1)
    network = load_network(folder)
    assert isinstance(network.first_stage, TrainedNetwork)
    assert network.reach == network.first_stage.reach + 4 + 2
    assert check(network, images(180, 210), 3) < 1e-5


@pytest.mark.parametrize(
    ("operator", "kind", "stem", "passes"),
    [
        ("residual_k3_d1", "successive", "full", 1),
        # The means are of maps that are padded to less than the detectors' are.
        ("channel_attention_k3", "multi_scale", "half", 5),
    ],
)
def test_a_network_that_detectors_modulate(
    tmp_path, write_network, write_guiding_detectors, fusion_genotype, operator, kind, stem, passes
):
    folder = write_network(tmp_path / "network", fusion_genotype(operator, kind=kind, stem=stem, channels=2))
    write_guiding_detectors(folder)
    network = load_network(folder)
    assert check(network, images(9 * network.reach + 21, 10 * network.reach + 11), passes) < 1e-5


def test_an_error_in_a_tile_leaves_no_hooks(tmp_path, write_network, fusion_genotype):
    network = load_network(write_network(tmp_path / "network", fusion_genotype("channel_attention_k3")))
    tiles = plan_tiles(200, 200, margin=8, multiple=4, pixels=3000)

    def read(area):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run_tiles(network, tiles, read, lambda area, piece: None)
    assert not any(module._forward_hooks for module in network.modules())
