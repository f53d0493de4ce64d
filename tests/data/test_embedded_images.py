import base64
import io

import numpy as np
import pytest
from PIL import Image

from timfuse.data import write_pixels
from timfuse.data.embedded_images import figure, jpeg_address
from timfuse.runtime.errors import UserError


def opened(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


@pytest.mark.parametrize(("shape", "size"), [((30, 40), (40, 30)), ((120, 60, 3), (25, 50)), ((20, 500), (50, 2))])
def test_large_images_are_reduced_and_small_ones_are_not_enlarged(shape, size):
    address = jpeg_address(np.full(shape, 80, np.uint8), 50)
    assert address.startswith("data:image/jpeg;base64,")
    image = opened(address)
    assert image.size == size
    assert np.abs(np.asarray(image).astype(int) - 80).max() <= 1


def test_a_picture_keeps_every_pixel_and_its_name_is_escaped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_pixels(tmp_path / '"><b>.png', pixels)
    element = figure(tmp_path / '"><b>.png')
    assert element.endswith(' alt="&quot;&gt;&lt;b&gt;"></figure>')
    assert np.array_equal(np.asarray(opened(element.split('"')[3])), pixels)
    with pytest.raises(UserError, match="does not exist"):
        figure(tmp_path / "none.png")
