import json

import pytest
import torch

from timfuse.downstream.luma_input import LumaInput
from timfuse.runtime.errors import UserError

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def read(folder, content, channels=3):
    if content is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return LumaInput.read(folder, channels)


def test_images_are_padded_repeated_and_normalised():
    images = torch.rand(2, 1, 33, 64, dtype=torch.float64, requires_grad=True)
    inputs = LumaInput([0.5, 0.25], [0.5, 0.125]).double()(images)
    assert inputs.shape == (2, 2, 64, 64)
    torch.testing.assert_close(inputs[:, 0, :33], (images[:, 0] - 0.5) / 0.5)
    torch.testing.assert_close(inputs[:, 1, :33], (images[:, 0] - 0.25) / 0.125)
    (gradient,) = torch.autograd.grad(inputs[..., :33, :].sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, 2 + 8))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, IMAGENET),
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}, {"mean": [0.5] * 3, "std": [0.25] * 3}),
        ({"do_normalize": True, "image_mean": [0.5], "image_std": [0.25]}, {"mean": [0.5] * 3, "std": [0.25] * 3}),
        ({"do_normalize": False, "image_mean": [0.5], "image_std": [0.5]}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
        ({"do_resize": True, "image_mean": None}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
    ],
    ids=["no file", "a pair", "one value", "switched off", "not said"],
)
def test_the_saved_normalisation_is_respected(tmp_path, content, expected):
    assert read(tmp_path, content).specification() == expected


def test_a_network_for_grey_images_gets_the_average(tmp_path):
    specification = read(tmp_path, None, channels=1).specification()
    assert specification["mean"] == pytest.approx([0.449])
    again = LumaInput(**specification)
    assert again.specification() == specification
    assert not again.state_dict()


@pytest.mark.parametrize("content", [[1], {"image_mean": "grey", "image_std": [1]}, {"image_mean": [{}]}])
def test_a_damaged_file_is_named(tmp_path, content):
    with pytest.raises(UserError, match=r"cannot read .*preprocessor_config.json; get the network again"):
        read(tmp_path, content)
