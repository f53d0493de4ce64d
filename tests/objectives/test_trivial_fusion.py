"""Fusion without a network, against closed forms."""

import pytest
import torch

from timfuse.objectives.trivial_fusion import TRIVIAL


@pytest.mark.parametrize("name", TRIVIAL)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40), (37, 64)])
def test_two_sources_that_are_one_image_give_this_image(name, size):
    image = torch.rand(2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(TRIVIAL[name](image, image), image)


def test_the_pyramid_takes_the_texture_of_one_source_and_the_mean_level_of_both():
    texture = 0.1 * (torch.arange(64) % 2).double().expand(1, 1, 64, 64)
    flat = torch.full_like(texture, 0.5)
    fused = TRIVIAL["laplacian"](texture, flat)
    inner = (fused - texture)[..., 8:-8, 8:-8]  # borders repeat a column, which shifts the means
    torch.testing.assert_close(inner, torch.full_like(inner, (0.5 - texture.mean().item()) / 2), atol=1e-3, rtol=0)
