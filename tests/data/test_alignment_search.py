"""The transform between two cameras is found on rendered pairs with a known warp, or refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from timfuse.data import find_alignment, luma, make_scene
from timfuse.data.edge_agreement import agreement, agreement_by_shift, edge_maps
from timfuse.runtime.errors import UserError

# From pixels of the second image, 240x180, to those of the first, 300x225: scale, turn, shift and perspective.
WARP = np.array([[1.09, -0.05, 22.0], [0.06, 1.06, 4.0], [4e-5, -3e-5, 1.0]])


def pair(seed, warp=WARP, size=(240, 180)):
    """A rendered scene as two cameras see it."""
    scene = make_scene(seed, height=225, width=300)
    centred = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pillow counts from the corner of a pixel
    matrix = centred @ warp @ np.linalg.inv(centred)
    numbers = (matrix / matrix[2, 2]).ravel()[:8].tolist()
    second = Image.fromarray(scene.second).transform(
        size, Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC
    )
    return scene.first, np.asarray(second)


def error(alignment, warp=WARP, size=(240, 180)):
    """The mean distance of the corners of the second image in the first one, in pixels."""
    corners = np.array([(x, y, 1) for x in (0, size[0] - 1) for y in (0, size[1] - 1)]).T
    found, true = (matrix @ corners for matrix in (np.linalg.inv(alignment.matrix), warp))
    return np.linalg.norm(found[:2] / found[2] - true[:2] / true[2], axis=0).mean()


@pytest.fixture(scope="module")
def pairs():
    return [pair(seed) for seed in range(3)]


def test_one_transform_from_several_pairs(pairs):
    alignment = find_alignment(pairs)
    assert (alignment.model, alignment.first, alignment.second) == ("homography", (300, 225), (240, 180))
    assert error(alignment) < 1
    assert 0.5 < alignment.confidence < 1
    first, second = alignment.apply(*pairs[0])
    assert first.shape[:2] == second.shape[:2]
    assert min(first.shape[:2]) > 150


def test_a_simpler_model_fits_less_well(pairs):
    affine, similarity = (find_alignment(pairs[:2], model) for model in ("affine", "similarity"))
    assert error(affine) < error(similarity) < 4
    assert np.array(affine.matrix)[2].tolist() == [0, 0, 1]
    rows = np.array(similarity.matrix)[:2, :2]
    assert rows[0] == pytest.approx([rows[1, 1], -rows[1, 0]], abs=1e-5)


def test_a_low_resolution_camera_with_a_smaller_field_of_view():
    first, second = pair(0, np.array([[0.7, 0, 40], [0, 0.7, 30], [0, 0, 1]]), (300, 225))
    small = np.asarray(Image.fromarray(luma(second)).resize((120, 90), Image.Resampling.BOX))
    large = np.asarray(Image.fromarray(luma(first)).resize((600, 450), Image.Resampling.BICUBIC))
    alignment = find_alignment([(small, large)])
    # From pixels of the first image to those of the second: two resized images, and the warp between them.
    shrink, enlarge = (np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]]) for k in (2.5, 2))
    true = np.linalg.inv(enlarge @ np.array([[0.7, 0, 40], [0, 0.7, 30], [0, 0, 1]]) @ shrink)
    assert error(alignment, true, (600, 450)) < 1.5
    thermal, visible = alignment.apply(small, large)
    assert thermal.shape == visible.shape
    assert thermal.shape[1] > 350  # the pixels of the visible image, of which the thermal camera sees 0.7


def test_what_cannot_be_aligned_is_refused(pairs):
    with pytest.raises(UserError, match=r"confidence 0\.\d\d, 0.45 is needed"):
        find_alignment([(pairs[0][0], pairs[1][1])])
    blank = np.full((64, 64), 90, np.uint8)
    with pytest.raises(UserError, match=r"confidence 0\.00"):
        find_alignment([(blank, blank)])
    with pytest.raises(UserError, match="these have 64x64 and 300x225; align each pair by itself"):
        find_alignment([pairs[0], (blank, blank)])
    with pytest.raises(UserError, match="a translation is between images of one size"):
        find_alignment(pairs, "translation")
    with pytest.raises(UserError, match="at least 32x32 pixels"):
        find_alignment([(blank[:31], blank[:31])])
    with pytest.raises(UserError, match="model must be one of"):
        find_alignment(pairs, "spline")


def test_edges_do_not_depend_on_contrast():
    image = torch.rand(1, 1, 40, 50)
    assert torch.allclose(edge_maps(image), edge_maps(0.9 - 0.5 * image), atol=0.05)
    turned = edge_maps(image.transpose(2, 3)).transpose(2, 3)
    assert torch.allclose(turned, edge_maps(image) * torch.tensor([1, -1, 1, 1])[:, None, None], atol=1e-4)


def test_black_that_a_warp_left_has_no_weight_and_does_not_change_the_agreement():
    images = [torch.rand(1, 1, 60, 80) / 2 + 0.25 for _ in range(2)]
    framed = [torch.nn.functional.pad(image, (9, 0, 0, 6)) for image in images]
    maps = [edge_maps(image) for image in images], [edge_maps(image) for image in framed]
    weights = maps[1][0][0, -1]
    assert weights[:55, 14:].min() == 1
    assert weights.sum() == weights[:55, 14:].sum()
    inside = [each[..., 5:55, 14:] for each in maps[1]]
    plain = [each[..., 5:55, 5:] for each in maps[0]]
    assert torch.allclose(agreement(*inside), agreement(*plain), atol=0.01)
    image = torch.zeros(1, 1, 40, 40)
    image[..., 10:30, 5:35] = torch.rand(20, 30) + 0.1
    image[..., 18:22, 18:22] = 0  # black within the image stays
    assert edge_maps(image)[0, -1, 20, 20] == 1


def test_the_agreement_at_a_shift_is_that_of_the_shifted_maps():
    maps = [torch.rand(2, 4, 30, 40, dtype=torch.float64) for _ in range(2)]
    for each in maps:
        each[:, :3] -= each[:, :3].mean((2, 3), keepdim=True)
        each[:, 3:] = 1
    shifts = agreement_by_shift(*maps, 0.1)
    assert float(shifts[0, 0]) == pytest.approx(float(agreement(*maps).mean()), abs=1e-6)
    first, second = maps[0][:, :3, 4:, :-3], maps[1][:, :3, :-4, 3:]
    cosine = (first * second).sum((1, 2, 3)) / (first.square().sum((1, 2, 3)) * second.square().sum((1, 2, 3))).sqrt()
    share = 26 * 37 / (30 * 40)
    assert float(shifts[4, -3]) == pytest.approx(float(cosine.mean()) * share**0.5, abs=1e-6)
    assert float(shifts[29, 0]) == -1  # only a row is common
