"""Images inside HTML pages, which need no other files."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.html_text import escaped
from .images import read_pixels

QUALITY = 95


def jpeg_address(pixels: NDArray[np.uint8], longest: int) -> str:
    """Write an image as an address that holds a JPEG.

    Args:
        pixels: Grey or colour image, (H, W) or (H, W, 3).
        longest: Height and width in pixels that larger images are reduced to.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _address(image, "jpeg", quality=QUALITY, subsampling=0)


def figure(path: Path) -> str:
    """Make the element of a picture in a file. It is a PNG, because JPEG blurs curves.

    Raises:
        UserError: If the file cannot be read.
    """
    address = _address(Image.fromarray(read_pixels(path)), "png")
    return f'<figure class="card"><img src="{address}" alt="{escaped(path.stem)}"></figure>'


def _address(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
