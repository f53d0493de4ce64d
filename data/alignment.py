"""The transform between two cameras: its YAML file, and pairs warped by it to their common part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.yaml_text import dump_yaml, read_mapping
from .colour import to_pixels
from .images import Pixels

MODELS = {"translation": 2, "similarity": 4, "affine": 6, "homography": 8}
"""Number of free parameters of each kind of transform."""

Frame = tuple[int, int]
"""Width and height of an image in pixels."""

_SCHEMA = 1
_KEYS = ("schema", "model", "first", "second", "matrix", "confidence")
_FINER = 0.8  # of the pixels of the first image along a line: from so many on, the second image keeps its pixels
_LARGEST = 2**16  # pixels along a side
_ON_BORDER = 1e-6  # pixels
_SINGULAR = 1e-12


@dataclass(frozen=True)
class Alignment:
    """The transform between two cameras that stay fixed to each other.

    Coordinates are (x, y) in pixels; the centre of the first pixel is (0, 0).

    Attributes:
        model: The kind of transform, a key of `MODELS`.
        first: Width and height of first images in pixels.
        second: Width and height of second images in pixels.
        matrix: Rows of the 3x3 matrix that takes (x, y, 1) in the first image to the second, up to a factor.
        confidence: How far the edges agree worse at every other shift, in [0, 1]; see `find_alignment`.

    Raises:
        UserError: If there is no such model, or the matrix does not map the whole first image.

    Example:
        >>> shifted = Alignment("translation", (64, 48), (64, 48), ((1, 0, 5), (0, 1, -2), (0, 0, 1)), 0.9)
        >>> first, second = np.eye(48, 64, dtype=np.uint8), np.eye(48, 64, 5, dtype=np.uint8)
        >>> [image.shape for image in shifted.apply(first, second)]
        [(46, 59), (46, 59)]
    """

    model: str
    first: Frame
    second: Frame
    matrix: tuple[tuple[float, ...], ...]
    confidence: float

    def __post_init__(self) -> None:
        check_choice("model", self.model, MODELS)
        width, height = self.first
        depths = [self.matrix[2] @ np.array((x, y, 1)) for x in (0, width - 1) for y in (0, height - 1)]
        if abs(np.linalg.det(self.matrix)) < _SINGULAR or min(depths) * max(depths) <= 0:
            raise UserError("matrix must map the whole first image; it has no inverse, or a horizon in the image")

    def apply(self, first: Pixels, second: Pixels) -> tuple[Pixels, Pixels]:
        """Bring a pair to one grid of pixels, which covers the common part.

        The image with the finer pixels, or the second one if they are about equal, is only cropped. The other one is
        resampled by bicubic interpolation.

        Args:
            first: Pixels (H, W) or (H, W, 3), uint8 or uint16.
            second: Pixels of the second image in any of these forms.

        Returns:
            Both images, of one size.

        Raises:
            UserError: If the images have other sizes than the transform is for, or no common part.
        """
        self.check_sizes(first.shape, second.shape)
        fixed, moved = (second, first) if self._second_stays else (first, second)
        left, top, right, bottom = self.common
        results = fixed[top:bottom, left:right], _resampled(moved, self._to_moved, self.common)
        return results[::-1] if self._second_stays else results

    def check_sizes(self, first: tuple[int, ...], second: tuple[int, ...]) -> None:
        """Check the shapes of two images, heights before widths.

        Raises:
            UserError: If the images have other sizes than the transform is for.
        """
        sizes = [(shape[1], shape[0]) for shape in (first, second)]
        if sizes != [self.first, self.second]:
            theirs, own = (" and ".join(f"{w}x{h}" for w, h in each) for each in (sizes, (self.first, self.second)))
            raise UserError(f"the transform is for images of {own}, not of {theirs}; align these pairs by themselves")

    @property
    def _to_second(self) -> NDArray[np.float64]:
        """The matrix with the factor that gives what is ahead of both cameras a positive third coordinate."""
        return np.array(self.matrix) / self.matrix[2][2]

    @cached_property
    def _second_stays(self) -> bool:
        """Whether the second image has about as many pixels as the first for the same part of the scene, or more."""
        x, y = ((length - 1) / 2 for length in self.first)
        centre, right, below = (self._to_second @ (x + a, y + b, 1) for a, b in ((0, 0), (1, 0), (0, 1)))
        sides = [point[:2] / point[2] - centre[:2] / centre[2] for point in (right, below)]
        return math.sqrt(abs(np.linalg.det(sides))) >= _FINER

    @property
    def _to_moved(self) -> NDArray[np.float64]:
        """The matrix from the pixels of the image that is cropped to those of the image that is resampled."""
        return np.linalg.inv(self._to_second).astype(np.float64) if self._second_stays else self._to_second

    @property
    def frame(self) -> Frame:
        """Width and height of the image that is only cropped."""
        return self.second if self._second_stays else self.first

    @cached_property
    def common(self) -> tuple[int, int, int, int]:
        """The largest rectangle of the cropped image that both images show: left, top, and right and bottom excluded.

        Raises:
            UserError: If the two images have no common part.
        """
        moved = self.first if self._second_stays else self.second
        x, y = _mapped(self._to_moved, (0, 0, *self.frame))
        inside = (x >= -_ON_BORDER) & (x <= moved[0] - 1 + _ON_BORDER)
        inside &= (y >= -_ON_BORDER) & (y <= moved[1] - 1 + _ON_BORDER)
        box = _largest_rectangle(inside)
        if box[2] <= box[0]:
            raise UserError("by the transform, the two images show no common part")
        return box


def save_alignment(alignment: Alignment, path: Path) -> None:
    """Write a transform to a YAML file, from which `load_alignment` loads an equal one.

    Raises:
        UserError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> alignment = Alignment("translation", (64, 48), (64, 48), ((1, 0, 5), (0, 1, -2), (0, 0, 1)), 0.9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_alignment(alignment, Path(folder, "transform.yaml"))
        ...     load_alignment(Path(folder, "transform.yaml")) == alignment
        True
    """
    content = {
        "schema": _SCHEMA,
        "model": alignment.model,
        "first": list(alignment.first),
        "second": list(alignment.second),
        "matrix": [list(row) for row in alignment.matrix],
        "confidence": alignment.confidence,
    }
    write_atomically(path, dump_yaml(content))


def load_alignment(path: Path) -> Alignment:
    """Load a transform from a YAML file, as `timfuse align` writes it.

    Raises:
        UserError: If the file cannot be read or holds no transform; names the file and the key or line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> text = "{schema: 1, model: affine, first: [4, 4], second: [4, 4], matrix: [[1, 0], [0, 1]], confidence: 1}"
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "transform.yaml")
        ...     _ = path.write_text(text)
        ...     try:
        ...         load_alignment(path)
        ...     except UserError as error:
        ...         print(str(error).partition(": ")[2])
        matrix must have three rows of three numbers
    """
    content = read_mapping(path)
    try:
        return _parsed(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _parsed(content: Mapping[str, Any]) -> Alignment:
    if content.keys() != set(_KEYS):
        raise UserError(f"a transform has the keys {', '.join(_KEYS)}, this has {', '.join(content) or 'none'}")
    if content["schema"] != _SCHEMA:
        raise UserError(f"schema must be {_SCHEMA}, not {content['schema']!r}")
    first, second = (_frame(key, content[key]) for key in ("first", "second"))
    rows = content["matrix"]
    if not (_listed(rows) and all(_listed(row) and all(map(_is_number, row)) for row in rows)):
        raise UserError("matrix must have three rows of three numbers")
    confidence = content["confidence"]
    if not (_is_number(confidence) and 0 <= confidence <= 1):
        raise UserError(f"confidence must be a number from 0 to 1, not {confidence!r}")
    matrix = tuple(tuple(map(float, row)) for row in rows)
    return Alignment(content["model"], first, second, matrix, float(confidence))


def _frame(key: str, sides: object) -> Frame:
    if isinstance(sides, list) and len(sides) == 2:
        width, height = sides
        if type(width) is int and type(height) is int and 0 < min(sides) <= max(sides) <= _LARGEST:
            return width, height
    raise UserError(f"{key} must be width and height in pixels, like [640, 480], not {sides!r}")


def _listed(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # not NaN either


def _mapped(
    matrix: NDArray[np.float64], box: tuple[int, int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map the pixels of a box by a matrix; returns x and y, (H, W) each."""
    left, top, right, bottom = box
    rows, columns = np.ogrid[top:bottom, left:right]
    x, y, depth = (a * columns + b * rows + c for a, b, c in matrix)
    ahead = np.where(depth > 0, depth, np.nan)
    return x / ahead, y / ahead


def _resampled(pixels: Pixels, matrix: NDArray[np.float64], box: tuple[int, int, int, int]) -> Pixels:
    """Sample an image where a matrix maps the pixels of a box."""
    height, width = pixels.shape[:2]
    x, y = _mapped(matrix, box)
    grid = torch.from_numpy(np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1))
    planes = torch.from_numpy(pixels.astype(np.float64)).reshape(height, width, -1).permute(2, 0, 1)
    sampled = F.grid_sample(planes[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    unit = sampled[0].permute(1, 2, 0).reshape(*x.shape, *pixels.shape[2:]) / int(np.iinfo(pixels.dtype).max)
    return to_pixels(unit, pixels.dtype)


def _largest_rectangle(inside: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Find the largest rectangle in a convex region: left, top, right and bottom, both excluded."""
    height, width = inside.shape
    columns = inside.any(0)
    tops = np.where(columns, inside.argmax(0), height)
    bottoms = np.where(columns, height - inside[::-1].argmax(0), 0)
    best, box = 0, (0, 0, 0, 0)
    for left in range(width):
        # Between two columns of a convex region, every row is in it that is in both.
        top, bottom = (ends(of[left], of[left:]) for ends, of in ((np.maximum, tops), (np.minimum, bottoms)))
        areas = (bottom - top).clip(0) * np.arange(1, width - left + 1)
        right = int(areas.argmax())
        if areas[right] > best:
            best, box = int(areas[right]), (left, int(top[right]), left + right + 1, int(bottom[right]))
    return box
