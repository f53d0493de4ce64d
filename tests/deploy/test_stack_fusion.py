"""Fusing more than two images: closed forms, any order, and every kind of image."""

from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

from timfuse.deploy import load
from timfuse.deploy.stack_fusion import fuse_stack
from timfuse.objectives.trivial_fusion import average, laplacian
from timfuse.runtime.errors import UserError


@pytest.fixture
def fuser(tmp_path, write_network, fusion_genotype):
    """A function that makes a fuser of a task."""
    return lambda task: load(write_network(tmp_path / task, fusion_genotype(task=task)), "cpu")


def arrays(count, shape=(19, 22, 3), dtype="uint8"):
    values = np.random.default_rng(0).random((count, *shape))
    return [*(values * np.iinfo(dtype).max).astype(dtype)]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40), (37, 64)])
def test_a_stack_of_one_image_is_this_image(size):
    image = torch.rand(1, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ordered in (True, False):
        torch.testing.assert_close(fuse_stack(average, [image] * 4, ordered=ordered), image)


def test_the_detail_of_one_source_is_kept_and_the_levels_are_averaged():
    texture = 0.1 * torch.arange(64).remainder(2).double().expand(1, 1, 64, 64)
    levels = [torch.full_like(texture, level) for level in (0.2, 0.6)]
    fused = fuse_stack(laplacian, [levels[0], texture, levels[1]], ordered=True)[..., 8:-8, 8:-8]
    assert (fused.max() - fused.min()).item() == pytest.approx(0.1, rel=0.02)
    assert fused.mean().item() == pytest.approx((0.05 + 0.2 + 0.6) / 3, abs=0.01)


def test_darker_images_come_first_where_the_order_matters():
    first_alone = lambda first, second: first  # noqa: E731
    images = [torch.full((1, 1, 8, 8), level) for level in (0.8, 0.2, 0.5)]
    assert fuse_stack(first_alone, images, ordered=True).mean().item() == pytest.approx((0.2 + 0.2 + 0.5) / 3)
    assert fuse_stack(first_alone, images, ordered=False).mean().item() == pytest.approx(0.5)


@pytest.mark.parametrize("task", ["multi-exposure", "multi-focus"])
def test_the_order_does_not_matter(fuser, task):
    fuse, images = fuser(task), arrays(3)
    results = [fuse(*order).astype(int) for order in permutations(images)]
    assert max(np.abs(one - results[0]).max() for one in results) <= 1
    assert np.abs(fuse(*images[:2]).astype(int) - results[0]).max() > 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_kinds_of_images(fuser, dtype):
    fuse = fuser("multi-exposure")
    images = arrays(4, dtype=dtype)
    fused = fuse(*images)
    assert (fused.shape, fused.dtype) == ((19, 22, 3), dtype)
    assert (fused != fused[..., :1]).any()  # colour is kept
    grey = [image[..., 0] for image in images]
    assert fuse(*grey).shape == (19, 22)
    assert fuse(*grey[:2], images[2]).shape == (19, 22, 3)
    full = np.iinfo(dtype).max
    tensors = [torch.from_numpy(image / full).float() for image in grey]
    np.testing.assert_allclose(fuse(*tensors).numpy(), fuse(*grey) / full, atol=0.6 / full + 1e-6)
    both = fuse(*(torch.stack((tensor, tensor.flip(0)))[:, None] for tensor in tensors))
    torch.testing.assert_close(both[0, 0], fuse(*tensors))
    if dtype == "uint8":
        np.testing.assert_array_equal(np.asarray(fuse(*map(Image.fromarray, images))), fused)


def test_stacks_that_cannot_be_fused(fuser):
    fuse, images = fuser("multi-focus"), arrays(3, (8, 9))
    with pytest.raises(UserError, match="first is 9x8, source 3 8x8"):
        fuse(*images[:2], images[2][:, :8])
    with pytest.raises(UserError, match="first is a ndarray, second a ndarray, source 3 a Tensor; give all as numpy"):
        fuse(*images[:2], torch.zeros(8, 9))
    with pytest.raises(UserError, match="first holds uint8, source 3 float64; give all as integers or as floats"):
        fuse(*images[:2], images[2] / 255)
    with pytest.raises(UserError, match="small fuses two sources, MRI and CT, not 3; networks for multi-exposure and"):
        fuser("mri-ct")(*images)


def test_images_of_one_mean_come_in_any_order():
    image = torch.rand(1, 1, 32, 32)
    sources = [image, image.flip(2), image.flip(3)]
    results = [
        fuse_stack(lambda darker, brighter: 0.7 * darker + 0.3 * brighter, order, ordered=True)
        for order in permutations(sources)
    ]
    assert all(torch.allclose(results[0], other, atol=1e-6) for other in results)
