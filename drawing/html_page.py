"""HTML pages without other files: templates, and images as the addresses of data."""

import base64
import html
import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data import read_pixels
from ..runtime.errors import printable

QUALITY = 95


def filled(template: Path, parts: Mapping[str, str]) -> str:
    """Fill a template: each {{name}} in it becomes the part of that name."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template.read_text(encoding="utf-8"))


def escaped(text: object) -> str:
    """Write a value as the text of an element or an attribute, whatever characters it has."""
    return html.escape(printable(str(text)))


def jpeg_address(pixels: NDArray[np.uint8], longest: int) -> str:
    """Write an image as the address of a JPEG.

    Args:
        pixels: Pixels (H, W) or (H, W, 3).
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
