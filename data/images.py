"""Image files: reading and writing them at their own bit depth, luma, and scaling to [0, 1]."""

import io
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.memory import physical_memory

WRITTEN = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SUFFIXES = (*WRITTEN, ".webp", ".pgm", ".ppm")

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Samples: TypeAlias = NDArray[Any]  # as they are in the file: of 1, 8 or 16 bits, or signed, of 32 bits, floating-point
Channels = Literal["colour", "alpha", "thermal"]

_FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
    "PPM",
)  # pillow's other readers start programs or take what is no image
_ORIENTATION = 0x0112  # the EXIF tag
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 258, 262, 277, 339  # TIFF tags
_WHITE_IS_ZERO, _UNSIGNED, _PLAIN_TIFF = 0, 1, (0, 1, 2)
_LARGE, _BOMB = 2**26, 200  # bytes of an image and bytes for each one of its file, which no photograph exceeds together
_MOST_CHANNELS = 4
_FULL_BYTE = 255
_BYTES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "La", "RGBa")
_MEMORY = 8  # an image takes at most one part of so many of the machine's memory
_PILLOW_LIMIT = Lock()
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

# Without any handler, Python would print what tifffile logs about damaged files.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_image(path: Path) -> ImageFile:
    """Open a PNG, JPEG, TIFF, BMP, WebP, PGM or PPM file and read its header; the name's suffix does not count.

    Raises:
        UserError: If the path is a device, a pipe or a folder, which is not opened; or the image is too large for the
            machine's memory, or for its file.
        OSError: If the file cannot be read, or is none of these formats; see `PIL.Image.open`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file; replace or remove it")
    with _PILLOW_LIMIT:  # the number of pixels from which pillow warns, on any machine
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    width, height = image.size
    size = width * height * len(image.getbands()) * (1 if image.mode in _BYTES else 2)
    for too_large, reason in (
        (size > physical_memory() // _MEMORY, f"more than one {_MEMORY}th of this machine's memory; reduce it"),
        (size > max(_LARGE, _BOMB * status.st_size), f"in a file of {status.st_size:,}; replace or remove it"),
    ):
        if too_large:
            image.close()
            raise UserError(f"the image {path} of {width}x{height} takes {size:,} bytes, {reason}")
    return image


def read_pixels(path: Path, channels: Channels = "colour") -> Pixels:
    """Read an image file, upright by its EXIF orientation, without changing its bit depth.

    Palettes are resolved. The formats are those of `open_image`.

    Args:
        channels: What to read of an image with an alpha channel, in which some data sets keep a second image, or of a
            radiometric JPEG of FLIR's cameras, which has the temperatures beside a picture of them.

    Returns:
        (H, W) for grey images and alpha, (H, W, 3) for colour, uint8 or uint16.

    Raises:
        UserError: If the file is missing, damaged or too large, has neither 8 nor 16 unsigned bits in each sample, has
            several pages, or no alpha channel where it is wanted.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_pixels(Path(folder, "grey.png"), np.full((2, 3), 40000, np.uint16))
        ...     read_pixels(Path(folder, "grey.png"))
        array([[40000, 40000, 40000],
               [40000, 40000, 40000]], dtype=uint16)
    """
    samples = read_samples(path, channels)
    if samples.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path} holds {samples.dtype} samples; stretch them with --stretch, or save it with 8 or 16 unsigned bits"
        )
    return samples


def read_samples(path: Path, channels: Channels = "colour") -> Samples:
    """Read an image file as `read_pixels` does, whatever the type of its samples.

    Returns:
        (H, W) for grey images, alpha and temperatures, which are in degrees Celsius, (H, W, 3) for colour; any integer
        or floating-point type.

    Raises:
        UserError: As `read_pixels`, but for the type; or the package flyr is missing.
    """
    if channels == "thermal":
        return _temperatures(path)
    try:
        with open_image(path) as image:
            deep = _is_deep(image)  # before the orientation, for which pillow may decode the image
            upright = _UPRIGHT.get(_orientation(image), np.asarray)
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":  # a camera's preview beside its photograph
                raise UserError(f"{path} has {pages} pages; save the one to read as a file of its own")
            if image.format == "TIFF":
                _check_tiff(path, image)
                # pillow turns TIFF images itself, those on their side wrongly.
                deep = deep or upright is not np.asarray or _is_for_libtiff(image)
            decode = _decode if not deep else _decode_by_tifffile if image.format == "TIFF" else _decode_deep
            samples = decode(path, image)
            if decode is not _decode_by_tifffile and not samples[-1].any():
                _check_last_row(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is empty, damaged or no image at all; replace or remove it") from error
    except Exception as error:  # decoders raise errors of every kind where a file is damaged
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}); replace or remove it") from error
    colours, alpha = (samples, None) if samples.ndim == 2 else _apart(samples)
    if channels == "alpha" and alpha is None:
        raise UserError(f"{path} has no alpha channel; leave out ':alpha', or replace the image")
    chosen = alpha if channels == "alpha" else colours
    return np.ascontiguousarray(upright(chosen))


def _temperatures(path: Path) -> NDArray[np.float32]:
    """Read the temperatures of a radiometric JPEG, (H, W), in degrees Celsius."""
    try:
        import flyr
    except ModuleNotFoundError as error:
        raise UserError(f"temperatures need the package {error.name}; pip install 'timfuse[flir]'") from None
    try:
        with path.open("rb") as file:
            return np.ascontiguousarray(flyr.unpack(file).celsius, np.float32)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except Exception as error:  # of any kind, where a file has no temperatures or is damaged
        raise UserError(f"{path} holds no temperatures; leave out ':thermal', or replace the image") from error


def with_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Round the pixels of an image to 8 bits.

    Example:
        >>> with_8_bits(np.array([[0, 257, 65535]], np.uint16))
        array([[  0,   1, 255]], dtype=uint8)
    """
    return np.rint(pixels / 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)


def write_pixels(path: Path, pixels: Pixels) -> None:
    """Write an image file in the format of its suffix; an interruption leaves the old file or the new one.

    Args:
        pixels: Pixels (H, W) or (H, W, 3); uint8 for every format, uint16 for TIFF and grey PNG.

    Raises:
        UserError: If the suffix is none of `WRITTEN`, the format cannot hold 16 bits or the file cannot be written.

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
        raise UserError(f"{path} is not named like an image; choose one of {', '.join(WRITTEN)}")
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


def read_size(path: Path, channels: Channels = "colour") -> tuple[int, int]:
    """Read the height and the width of an upright image, without its pixels where the header tells.

    Raises:
        UserError: If `read_samples` cannot read the file either.
    """
    if channels == "thermal":  # whose size is not that of the picture
        height, width = read_samples(path, channels).shape
        return height, width
    try:
        with open_image(path) as image:
            (width, height), orientation = image.size, _orientation(image)
            if orientation == 1 or image.format != "TIFF":  # whose size pillow has turned or not, by its version
                return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    except Exception:  # of any kind, as in `read_samples`, which tells what is wrong
        pass
    height, width = read_samples(path).shape[:2]
    return height, width


def has_8_bits(path: Path, channels: Channels = "colour") -> bool:
    """Check by its header whether an image file has at most 8 bits in a sample; true for what cannot be read."""
    if channels == "thermal":
        return False
    try:
        with open_image(path) as image:
            return not _is_deep(image)
    except Exception:  # of any kind, as in `read_samples`
        return True


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF does not make a damaged image
        return 1


def _is_deep(image: ImageFile) -> bool:
    """Recognise samples of more than 8 bits or with a sign; of some, pillow silently keeps the upper bytes alone."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, kinds = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
        return max(bits) > 8 or set(kinds) != {_UNSIGNED}
    return image.mode == "I" or (image.format == "PNG" and "16B" in str(image.tile[0][3]))


def _is_for_libtiff(image: ImageFile) -> bool:
    """Recognise a plain TIFF file that pillow would hand to libtiff, which prints on standard error what is damaged."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    plain = tags.get(_PHOTOMETRIC) in _PLAIN_TIFF and set(tags.get(_BITS_PER_SAMPLE, (1,))) == {8}
    return plain and image.info.get("compression") in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")


def _check_tiff(path: Path, image: ImageFile) -> None:
    """Refuse a TIFF file that would be read as something else than it holds."""
    samples = image.tag_v2.get(_SAMPLES_PER_PIXEL, 1)  # type: ignore[attr-defined]
    if samples > _MOST_CHANNELS:
        raise UserError(f"{path} has {samples} channels; save those to read as a file of their own")


def _decode(path: Path, image: ImageFile) -> Samples:
    arguments = image.tile[0][3] if image.format == "PPM" else ()  # with the largest value where it is not 255
    if isinstance(arguments, tuple) and max(arguments[1:], default=0) > _FULL_BYTE:
        raise UserError(f"{path} is a PPM file of more than 8 bits, which pillow would round; save it as TIFF")
    image.load()
    if image.mode in ("LA", "La", "RGBA", "RGBa", "RGB"):
        return np.array(image)
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _decode_deep(path: Path, image: ImageFile) -> Samples:
    """Read 16 bits; PNG in colour or with alpha in two passes, since pillow decodes one byte of each sample.

    pillow's "16B" (most significant byte first) takes the first byte of a sample, "16L" the second.
    """
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    halves = []
    for order in ("16B", "16L"):
        with open_image(path) as half:
            codec, extents, offset, mode = half.tile[0]
            if str(mode).startswith("LA"):
                raise UserError(f"{path} is a 16-bit grey PNG with alpha, which cannot be read; save it without alpha")
            # A plain tuple, as in the oldest pillow that is allowed.
            half.tile = [(codec, extents, offset, str(mode).replace("16B", order))]  # type: ignore[list-item]
            halves.append(np.asarray(half).astype(np.uint16))
    samples: Samples = halves[0] * np.uint16(256) + halves[1]
    return samples


def _decode_by_tifffile(path: Path, image: ImageFile) -> Samples:
    import tifffile  # see `write_pixels`

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.photometric not in _PLAIN_TIFF:
            raise UserError(f"{path} is neither grey nor RGB; save it as one of them")
        size = file.filehandle.size
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if len(ends) < np.prod(page.chunked) or 0 in page.databytecounts or max(ends) > size:
            raise UserError(f"{path} has fewer pixels than its header claims; replace or remove it")
        samples = page.asarray()
        if page.axes == "SYX":
            samples = np.moveaxis(samples, 0, -1)
    if page.photometric == _WHITE_IS_ZERO and samples.dtype.kind == "u":
        samples = np.iinfo(samples.dtype).max - samples
    return samples


def _check_last_row(path: Path) -> None:
    """Refuse an image whose last row is black because it is missing: pillow leaves what it did not decode as it was."""
    rows = []
    for value in (0, _FULL_BYTE):
        with open_image(path) as image:
            bands = len(image.getbands())
            image.im = Image.new(image.mode, image.size, value if bands == 1 else (value,) * bands).im
            image.load()
            rows.append(np.array(image)[-1])
    if not np.array_equal(*rows):
        raise UserError(f"{path} has fewer rows than its header claims; replace or remove it")


def _apart(samples: Samples) -> tuple[Samples, Samples | None]:
    """Part (H, W, C) into colours, (H, W) or (H, W, 3), and alpha."""
    count = samples.shape[-1]
    colours = samples[..., :3] if count >= 3 else samples[..., 0]
    return colours, samples[..., -1] if count in (2, 4) else None
