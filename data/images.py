"""Image files: reading and writing them at their own bit depth, luma, and scaling to [0, 1]."""

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from ..runtime.errors import UserError
from ..runtime.files import write_atomically

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # pillow's other readers start programs or take what is no image
_ORIENTATION = 0x0112  # the EXIF tag
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED, _PLAIN_TIFF = 0, 2, (0, 1, 2)
# What brings an image with an orientation upright, by the value of the tag.
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
    8: np.rot90,
}
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG, pillow's "L" and kornia's rgb_to_ycbcr
_JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
_SAVING: dict[str, dict[str, Any]] = {
    # Level 1 takes less than half the time of level 6, pillow's default, for files that are about a sixth larger.
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".bmp": {"format": "BMP"},
}
_BROKEN = (OSError, SyntaxError, ValueError, IndexError, KeyError, Image.DecompressionBombError)


def open_image(path: Path) -> ImageFile:
    """Open a PNG, JPEG, TIFF or BMP file and read its header; the name's suffix does not count.

    Raises:
        UserError: If the path is a device, a pipe or a folder, which is not opened.
        OSError: If the file cannot be read, or is none of these formats; see `PIL.Image.open`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is no regular file; replace or remove it")
    return Image.open(path, formats=_FORMATS)


def read_pixels(path: Path) -> Pixels:
    """Read a PNG, JPEG, TIFF or BMP file, upright by its EXIF orientation, without changing its bit depth.

    Palettes are resolved and alpha is dropped.

    Returns:
        (H, W) for grey images, (H, W, 3) for colour, uint8 or uint16.

    Raises:
        UserError: If the file is missing or damaged, has signed samples or neither 8 nor 16 bits in each, or has
            several pages.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_pixels(Path(folder, "grey.png"), np.full((2, 3), 40000, np.uint16))
        ...     read_pixels(Path(folder, "grey.png"))
        array([[40000, 40000, 40000],
               [40000, 40000, 40000]], dtype=uint16)
    """
    try:
        with open_image(path) as image:
            deep = _reduced_to_8_bits(image)  # before the orientation, for which pillow may decode the image
            upright = _UPRIGHT.get(_orientation(image), np.asarray)
            if image.format == "TIFF":
                _check_tiff(path, image)
                if deep or upright is not np.asarray:  # pillow turns TIFF images itself, those on their side wrongly
                    return np.ascontiguousarray(upright(_read_by_tifffile(path)))
            pixels = _read_deep_png(path) if deep else _read_by_pillow(path, image)
            return np.ascontiguousarray(upright(pixels))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is empty, damaged or no image at all; replace or remove it") from error
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}); replace or remove it") from error


def write_pixels(path: Path, pixels: Pixels) -> None:
    """Write an image file in the format of its suffix; an interruption leaves the old file or the new one.

    Args:
        pixels: Pixels (H, W) or (H, W, 3); uint8 for every format, uint16 for TIFF and grey PNG.

    Raises:
        UserError: If the suffix is none of `SUFFIXES`, the format cannot hold 16 bits or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_pixels(Path(folder, "new", "red.bmp"), np.full((4, 6, 3), (255, 0, 0), np.uint8))
        ...     read_pixels(Path(folder, "new", "red.bmp")).shape
        (4, 6, 3)
    """
    suffix = path.suffix.lower()
    deep = pixels.dtype == np.uint16
    file = io.BytesIO()
    if suffix in (".tif", ".tiff"):
        import tifffile  # here, because it takes half as long to import as all of timfuse

        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(file, pixels, photometric=photometric, metadata=None)
    elif suffix not in _SAVING:
        raise UserError(f"{path} is not named like an image; choose one of {', '.join(SUFFIXES)}")
    elif deep and (suffix != ".png" or pixels.ndim == 3):
        kind = "colour" if pixels.ndim == 3 else "grey"
        raise UserError(f"{path} cannot hold 16-bit {kind} pixels in its format; choose .tif")
    else:
        Image.fromarray(pixels).save(file, **_SAVING[suffix])
    write_atomically(path, file.getvalue())


def luma(pixels: Pixels) -> Pixels:
    """Compute luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded to integers of the same depth.

    Args:
        pixels: Pixels (H, W) or (H, W, 3), uint8 or uint16.

    Returns:
        (H, W) of the same dtype; a grey image itself.

    Example:
        >>> luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
        array([[ 76, 150,  29]], dtype=uint8)
    """
    if pixels.ndim == 2:
        return pixels
    grey: Pixels = np.rint(pixels @ _LUMA).astype(pixels.dtype)
    return grey


def unit_range(pixels: Pixels) -> NDArray[np.float32]:
    """Scale integers to [0, 1] by the full scale of their dtype, 255 or 65535, never by their own maximum.

    Args:
        pixels: Pixels of any shape, uint8 or uint16.

    Returns:
        float32 of the same shape.

    Example:
        >>> unit_range(np.array([0, 13107, 65535], np.uint16))
        array([0. , 0.2, 1. ], dtype=float32)
    """
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def read_size(path: Path) -> tuple[int, int]:
    """Read the height and the width of an upright image from its header.

    Raises:
        UserError: If `read_pixels` cannot read the file either.
    """
    try:
        with open_image(path) as image:
            (width, height), orientation = image.size, _orientation(image)
            if orientation == 1 or image.format != "TIFF":  # whose size pillow has turned or not, by its version
                return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    except (OSError, SyntaxError, ValueError):
        pass
    height, width = read_pixels(path).shape[:2]
    return height, width


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF does not make a damaged image
        return 1


def _check_tiff(path: Path, image: ImageFile) -> None:
    """Refuse a TIFF file that would be read as something else than it holds."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(f"{path} has {pages} pages; save the one to read as a file of its own")
    if _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):  # type: ignore[attr-defined]
        raise UserError(f"{path} holds signed samples; save it with 8 or 16 unsigned bits")


def _reduced_to_8_bits(image: ImageFile) -> bool:
    """Recognise 16-bit files with several samples per pixel, of which pillow silently keeps the upper bytes alone."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return len(bits) > 1 and max(bits) > 8
    return image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA") and "16B" in str(image.tile[0][3])


def _read_deep_png(path: Path) -> Pixels:
    """Read a 16-bit colour PNG in two passes, since pillow decodes one byte of each sample.

    pillow's "16B" (most significant byte first) takes the first byte of a sample, "16L" the second.
    """
    halves = []
    for order in ("16B", "16L"):
        with open_image(path) as image:
            codec, extents, offset, mode = image.tile[0]
            if str(mode).startswith("LA"):
                raise UserError(f"{path} is a 16-bit grey PNG with alpha, which cannot be read; save it without alpha")
            # A plain tuple, as in the oldest pillow that is allowed.
            image.tile = [(codec, extents, offset, str(mode).replace("16B", order))]  # type: ignore[list-item]
            halves.append(np.asarray(image)[..., :3].astype(np.uint16))
    pixels: Pixels = halves[0] * np.uint16(256) + halves[1]
    return pixels


def _read_by_pillow(path: Path, image: ImageFile) -> Pixels:
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # type: ignore[attr-defined]
    image.load()
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        return np.uint16(65535) - pixels if white_is_zero else pixels  # which pillow heeds for 8 bits alone
    if image.mode in ("I", "F"):
        raise UserError(f"{path} holds 32-bit or signed samples; save it with 8 or 16 unsigned bits")
    grey = image.mode in ("1", "L", "LA", "La")
    return np.array(image.convert("L" if grey else "RGB"))


def _read_by_tifffile(path: Path) -> Pixels:
    import tifffile  # see `write_pixels`

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        samples = page.asarray()
        if page.axes == "SYX":
            samples = np.moveaxis(samples, 0, -1)
    if samples.dtype not in (np.uint8, np.uint16) or page.photometric not in _PLAIN_TIFF:
        raise UserError(f"{path} holds {samples.dtype} samples; save it with 8 or 16 unsigned bits, as grey or RGB")
    if page.photometric == _WHITE_IS_ZERO:
        samples = np.iinfo(samples.dtype).max - samples
    if samples.ndim == 2:
        return samples
    return samples[..., :3] if samples.shape[-1] >= 3 else samples[..., 0]
