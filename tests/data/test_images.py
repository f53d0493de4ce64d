"""Image files of every kind the project promises to read and write."""

import errno
import logging
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from timfuse.data import luma, read_pixels, unit_range, write_pixels
from timfuse.data.images import has_8_bits, read_samples, read_size
from timfuse.data.masks import read_mask
from timfuse.runtime.errors import UserError

from ..radiometric import radiometric_jpeg

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)


def png(header: tuple[int, ...], rows: bytes, orientation: int = 1) -> bytes:
    """A PNG file by hand: 16-bit colour and images without pixels, which no dependency writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    exif = Image.Exif()
    exif[0x0112] = orientation
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *header)), (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def deep_png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """A 16-bit PNG with 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels, whose rows are stored as differences."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    content = b"".join(b"\2" + row.tobytes() for row in differences)
    return png((width, height, 16, colour_type, 0, 0, 0), content, orientation)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("pixels", [GREY8, RGB8])
def test_8_bit_files_come_back_exactly(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    assert read_pixels(path).dtype == np.uint8
    np.testing.assert_array_equal(read_pixels(path), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_all_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY16).save(path)
    assert read_pixels(path).dtype == np.uint16
    np.testing.assert_array_equal(read_pixels(path), GREY16)
    np.testing.assert_allclose(unit_range(read_pixels(path)), GREY16 / 65535, atol=1e-7)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_tiff_keeps_all_bits(tmp_path: Path, byteorder: str, planar: str) -> None:
    path = tmp_path / "a.tiff"
    data = RGB16 if planar == "contig" else np.moveaxis(RGB16, -1, 0)
    tifffile.imwrite(path, data, photometric="rgb", planarconfig=planar, byteorder=byteorder)
    np.testing.assert_array_equal(read_pixels(path), RGB16)
    expected = RGB16 @ np.array([0.299, 0.587, 0.114]) / 65535
    np.testing.assert_allclose(unit_range(luma(read_pixels(path))), expected, atol=0.51 / 65535)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_png_keeps_all_bits(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(np.dstack([RGB16, GREY16])[..., :channels]))
    assert read_pixels(path).dtype == np.uint16
    np.testing.assert_array_equal(read_pixels(path), RGB16)


def test_16_bit_grey_png_with_alpha_is_refused_instead_of_losing_its_lower_byte(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(np.dstack([GREY16, GREY16])))
    with pytest.raises(UserError, match=r"deep\.png is a 16-bit grey PNG with alpha.*without alpha"):
        read_pixels(path)


def test_a_truncated_16_bit_colour_png_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(RNG.integers(0, 65536, (64, 64, 3), dtype=np.uint16))[:9000])
    with pytest.raises(UserError, match=r"cannot read the image .*deep\.png"):
        read_pixels(path)


def test_luma_agrees_with_pillow(tmp_path: Path) -> None:
    every = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(every).convert("L")).astype(int)
    assert np.abs(luma(every).astype(int) - theirs).max() <= 1  # pillow rounds its weights to 16 bits
    assert (luma(every) == theirs).mean() > 0.99
    path = tmp_path / "white.png"
    Image.new("RGB", (3, 2), "white").save(path)
    assert unit_range(luma(read_pixels(path))).min() == 1.0


def test_alpha_is_dropped_and_palettes_are_resolved(tmp_path: Path) -> None:
    rgba = np.dstack([RGB8, np.zeros_like(GREY8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "rgba.png"), RGB8)
    palette = Image.fromarray(RGB8).quantize(8)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    Image.fromarray(np.dstack([GREY8, GREY8]), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "la.png"), GREY8)


TURNED = {
    1: GREY16,
    2: GREY16[:, ::-1],
    3: GREY16[::-1, ::-1],
    4: GREY16[::-1],
    5: GREY16.T,
    6: GREY16.T[:, ::-1],
    7: GREY16.T[::-1, ::-1],
    8: GREY16.T[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "colour.png", "colour.tif", "deep.png", "deep.tif", "16.tif"])
def test_images_are_read_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / kind
    stored, upright = GREY16, TURNED[orientation]
    if "16" not in kind and "deep" not in kind:
        stored, upright = (pixels.astype(np.uint8) for pixels in (stored, upright))
    if "colour" in kind or "deep" in kind:
        stored, upright = (np.stack([pixels, pixels, pixels], 2) for pixels in (stored, upright))
    if kind == "deep.png":
        path.write_bytes(deep_png(stored, orientation))
    elif path.suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    else:
        tag = (0x0112, "H", 1, orientation, True)
        tifffile.imwrite(path, stored, photometric="rgb" if stored.ndim == 3 else "minisblack", extratags=[tag])
    np.testing.assert_array_equal(read_pixels(path), upright)
    assert read_size(path) == upright.shape[:2]


def test_sixteen_bits_of_which_0_is_white_are_no_negative(tmp_path: Path) -> None:
    for pixels in (GREY8, GREY16):
        full = np.iinfo(pixels.dtype).max
        tifffile.imwrite(tmp_path / "x.tif", full - pixels, photometric="miniswhite")
        np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), pixels)


def test_signed_samples_and_several_pages_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "signed.tif", GREY8.astype(np.int8))
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY8] * 3), photometric="minisblack")
    with pytest.raises(UserError, match=r"signed\.tif holds int8 samples; stretch them with --stretch, or save"):
        read_pixels(tmp_path / "signed.tif")
    with pytest.raises(UserError, match=r"pages\.tif has 3 pages; save the one to read as a file of its own"):
        read_pixels(tmp_path / "pages.tif")


def test_what_is_no_16_bit_pixel_is_read_as_samples(tmp_path: Path) -> None:
    for samples in (GREY16.astype(np.int16), GREY8.astype(np.float32), -GREY16.astype(np.int32)):
        tifffile.imwrite(tmp_path / "x.tif", samples)
        assert read_samples(tmp_path / "x.tif").dtype == samples.dtype
        np.testing.assert_array_equal(read_samples(tmp_path / "x.tif"), samples)
        with pytest.raises(UserError, match=rf"x\.tif holds {samples.dtype} samples; stretch them"):
            read_pixels(tmp_path / "x.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("shape", [(9, 17), (9, 17, 3), (9, 17, 4)])
def test_compressed_8_bit_tiff_is_read_and_nothing_is_printed_of_its_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.tif", compression=compression)
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), pixels if len(shape) == 2 else pixels[..., :3])
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with Image.open(tmp_path / "x.tif") as image:
        start = image.tag_v2[273][0]
    for place in range(start + 4, start + 40):
        content[place] ^= 0xA5
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the image .*x\.tif"):
        read_pixels(tmp_path / "x.tif")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["lzw", "adobe_deflate", "zstd"])
@pytest.mark.parametrize("layout", [{}, {"predictor": True}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_compressed_16_bit_tiff_keeps_all_bits(tmp_path: Path, compression: str, layout: dict[str, Any]) -> None:
    for pixels in (RGB16, GREY16):
        stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in layout and pixels.ndim == 3 else pixels
        form = {} if "planarconfig" in layout and pixels.ndim == 2 else layout
        kind = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "x.tif", stored, photometric=kind, compression=compression, metadata=None, **form)
        np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), pixels)


def test_pgm_ppm_and_webp_are_read(tmp_path: Path) -> None:
    for name, header, pixels in (("8.pgm", "P5", GREY8), ("16.pgm", "P5", GREY16), ("8.ppm", "P6", RGB8)):
        full = np.iinfo(pixels.dtype).max
        (tmp_path / name).write_bytes(
            f"{header}\n9 6\n{full}\n".encode() + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
        )
        assert read_pixels(tmp_path / name).dtype == pixels.dtype
        np.testing.assert_array_equal(read_pixels(tmp_path / name), pixels)
    Image.fromarray(RGB8).save(tmp_path / "saved-from-a-web-page.jpg", format="WEBP", lossless=True)
    np.testing.assert_array_equal(read_pixels(tmp_path / "saved-from-a-web-page.jpg"), RGB8)
    (tmp_path / "16.ppm").write_bytes(b"P6\n9 6\n65535\n" + RGB16.tobytes())
    with pytest.raises(UserError, match=r"16\.ppm is a PPM file of more than 8 bits"):
        read_pixels(tmp_path / "16.ppm")
    frames = [Image.fromarray(RGB8), Image.fromarray(255 - RGB8)]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"film\.webp has 2 pages"):
        read_pixels(tmp_path / "film.webp")


def test_alpha_is_an_image_of_its_own(tmp_path: Path) -> None:
    alpha8, alpha16 = GREY8[..., None], GREY16[..., None]
    Image.fromarray(np.concatenate([RGB8, alpha8], axis=-1)).save(tmp_path / "8.png")
    (tmp_path / "16.png").write_bytes(deep_png(np.concatenate([RGB16, alpha16], axis=-1)))
    tifffile.imwrite(tmp_path / "16.tif", np.concatenate([RGB16, alpha16], axis=-1), photometric="rgb")
    Image.fromarray(RGB8).save(tmp_path / "rgb.png")
    for name, colour, alpha in (("8.png", RGB8, GREY8), ("16.png", RGB16, GREY16), ("16.tif", RGB16, GREY16)):
        np.testing.assert_array_equal(read_pixels(tmp_path / name), colour)
        np.testing.assert_array_equal(read_pixels(tmp_path / name, "alpha"), alpha)
    with pytest.raises(UserError, match=r"rgb\.png has no alpha channel; leave out ':alpha'"):
        read_pixels(tmp_path / "rgb.png", "alpha")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "I;16"])
def test_rows_that_are_missing_are_not_taken_for_black_ones(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY16) if mode == "I;16" else Image.fromarray(RGB8).convert(mode)
    image.save(tmp_path / "whole.png")
    content = bytearray((tmp_path / "whole.png").read_bytes())
    content[20:24] = struct.pack(">I", 60)  # the height in place of 6
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "lying.png").write_bytes(content)
    with pytest.raises(UserError, match=r"lying\.png has fewer rows than its header claims; replace or remove it"):
        read_pixels(tmp_path / "lying.png")
    black = np.zeros((6, 9, 3), np.uint8)
    Image.fromarray(black).convert("L" if mode == "I;16" else mode).save(tmp_path / "black.png")
    assert not read_pixels(tmp_path / "black.png").any()


def test_a_black_last_row_is_read_whatever_stands_for_black(tmp_path: Path) -> None:
    image = Image.fromarray(RGB8 | 1)
    image.paste((0, 0, 0), (0, 5, 9, 6))
    image.quantize(8).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.save(tmp_path / "colour.webp", lossless=True)
    deep = RGB16 | 1
    deep[-1] = 0
    planes = np.moveaxis(deep, -1, 0)
    tifffile.imwrite(tmp_path / "deep.tif", planes, photometric="rgb", planarconfig="separate", compression="lzw")
    for file in sorted(tmp_path.iterdir()):
        pixels = read_pixels(file)
        assert pixels[:-1].any(), file
        assert pixels[-1].max() < 8, file


def test_black_may_be_any_index_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (9, 6), 3)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0])  # black is the index 3
    image.save(tmp_path / "black.png")
    assert not read_pixels(tmp_path / "black.png").any()


@pytest.mark.parametrize("pixels", [GREY8, RGB8, GREY16, RGB16])
def test_tiff_strips_that_are_missing_are_not_taken_for_black_ones(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "lying.tif", pixels, rowsperstrip=2, metadata=None)
    with tifffile.TiffFile(tmp_path / "lying.tif", mode="r+b") as file:
        file.pages.first.tags["ImageLength"].overwrite(60)
    with pytest.raises(UserError, match=r"lying\.tif"):
        read_pixels(tmp_path / "lying.tif")


def test_a_giant_claim_in_a_tiny_file_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png((60000, 60000, 8, 0, 0, 0, 0), b"\0" * 10000))
    for read in (read_pixels, read_size):
        with pytest.raises(UserError, match=r"bomb\.png of 60000x60000 takes 3,600,000,000 bytes"):
            read(tmp_path / "bomb.png")


def test_large_images_are_read_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    noise = RNG.integers(0, 256, (9500, 9500), dtype=np.uint8)  # 90 megapixels, above pillow's limit
    Image.fromarray(noise).save(tmp_path / "large.bmp")
    assert read_pixels(tmp_path / "large.bmp").shape == (9500, 9500)
    assert not recwarn.list


def test_unit_range_is_by_full_scale() -> None:
    assert unit_range(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert unit_range(np.array([255, 65535], np.uint16)).tolist() == pytest.approx([1 / 257, 1])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, 0.9])
def test_damaged_files_are_one_line_that_names_them(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(UserError, match=rf"broken\.{suffix}") as error:
        read_pixels(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32])
def test_other_sample_types_are_refused(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY8.astype(dtype))
    with pytest.raises(UserError, match=r"a\.tif.*8 or 16"):
        read_pixels(tmp_path / "a.tif")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(stolen) (w) file closefile showpage\n%%EOF\n"


@pytest.mark.parametrize(
    "content", [EPS, b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", b"\x0a\x05\x01\x08" + bytes(124), b"RIFF0000WEBPVP8 "]
)
@pytest.mark.parametrize("read", [read_pixels, read_mask])
def test_only_the_promised_formats_are_opened_whatever_the_name(tmp_path: Path, read: Any, content: bytes) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"0\.png"):
        read(path)


@pytest.mark.parametrize("read", [read_pixels, read_mask])
def test_what_is_no_file_is_not_opened(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # which would wait for a writer for good
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero"):
        with pytest.raises(UserError, match=rf"{name}\.png is no regular file; replace or remove it"):
            read(tmp_path / f"{name}.png")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.png does not exist"):
        read_pixels(tmp_path / "nothing.png")


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0)])
def test_images_without_pixels_are_refused(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png((width, height, 8, 0, 0, 0, 0), b""))
    bitmap = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + bitmap)
    for name in ("a.png", "a.bmp"):
        with pytest.raises(UserError, match=rf"{name} is empty, damaged or no image at all"):
            read_pixels(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF", "bmp"])
@pytest.mark.parametrize("pixels", [GREY8, RGB8, GREY8[::-1, ::2], RGB8[:, ::-1]])
def test_8_bit_files_are_written_exactly(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / "new" / f"a.{suffix}"
    write_pixels(path, pixels)
    assert read_pixels(path).dtype == np.uint8
    np.testing.assert_array_equal(read_pixels(path), pixels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "pixels"), [("a.png", GREY16), ("a.tif", GREY16), ("a.tiff", RGB16), ("a.tif", RGB16[:3, :3])]
)
def test_16_bit_files_are_written_exactly(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    write_pixels(tmp_path / name, pixels)
    assert read_pixels(tmp_path / name).dtype == np.uint16
    np.testing.assert_array_equal(read_pixels(tmp_path / name), pixels)


def test_jpeg_is_written_well_and_with_full_chroma(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    pixels = np.stack([4 * columns, 4 * rows, np.where(columns % 2, 200, 60)], axis=-1).astype(np.uint8)
    write_pixels(tmp_path / "a.jpg", pixels)
    assert (
        np.abs(read_pixels(tmp_path / "a.jpg").astype(int) - pixels).mean() < 1
    )  # 2.6 with the default quality, 26 with chroma at half size


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("a.png", RGB16, r"a\.png cannot hold 16-bit colour pixels in its format; choose \.tif"),
        ("a.jpg", GREY16, r"a\.jpg cannot hold 16-bit grey"),
        ("a.bmp", GREY16, r"a\.bmp cannot hold 16-bit grey"),
        ("a.pgm", GREY8, r"a\.pgm is not named like an image; choose one of \.png"),
        ("a.webp", GREY8, r"a\.webp is not named like an image; choose one of \.png"),
    ],
)
def test_what_no_format_holds_is_refused(tmp_path: Path, name: str, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_pixels(tmp_path / name, pixels)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.png"
    write_pixels(path, GREY8)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.png: the disk is full"):
        write_pixels(path, RGB8)
    np.testing.assert_array_equal(read_pixels(path), GREY8)
    assert list(tmp_path.iterdir()) == [path]


# The mean of the infrared and of the visible image of one scene, in all the forms that it comes in.
SCENE = {
    "rgba": (125.26, 191.73),
    "la": (125.26, 191.11),
    "palette": (125.26, 191.63),
    "one_bit": (125.26, 191.53),
    "cmyk": (125.26, 191.73),
    "icc": (125.26, 190.92),
    "exif_both": (125.28, 191.74),
    "wrong_ext": (125.26, 191.73),
    "lzw16": (125.26, 191.73),
}


@pytest.mark.parametrize("case", SCENE)
def test_images_that_people_have(shared: Path, case: str) -> None:
    for side, mean in zip(("ir", "vis"), SCENE[case], strict=True):
        (file,) = (shared / "cases" / "files" / case / side).iterdir()
        pixels = read_pixels(file)
        assert pixels.shape[:2] == (120, 160)
        assert 255 * unit_range(pixels).mean() == pytest.approx(mean, abs=0.01)


REFUSED = {
    "files/multipage/ir/b.tif": "has 2 pages; save the one to read as a file of its own",
    "files/truncated/vis/a.jpg": "image file is truncated",
    "files/empty_file/vis/a.jpg": "is empty, damaged or no image at all",
    "faults/png-180-megapixels.png": "of 13400x13400 takes 179,560,000 bytes, in a file of 201,730",
    "faults/img1-bomb-12k/c/ir/0.png": "of 12000x12000 takes 144,000,000 bytes, in a file of 170,164",
    "faults/img1-lying-more-rows/c/ir/0.png": "has fewer rows than its header claims; replace or remove it",
    "faults/img1-mut-11-0.tif/c/ir/0.tif": "has fewer pixels than its header claims",
    "faults/img1-mut-22-0.tif/c/ir/0.tif": "is empty, damaged or no image at all",
    "faults/img1-mut-26-0.tif/c/ir/0.tif": "is empty, damaged or no image at all",
    "faults/img1-tif16-h-65535/c/ir/0.tif": "has fewer pixels than its header claims",
    "faults/img1-tif16-spp-65535/c/ir/0.tif": "is empty, damaged or no image at all",
    "faults/img1-tif16-trunc-8/c/ir/0.tif": "is empty, damaged or no image at all",
    "faults/eps-named-png/ir/0.png": "is empty, damaged or no image at all",
    "faults/eps-named-png/loop/ir/0.png": "is empty, damaged or no image at all",
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pillow's, of damaged TIFF tags, which the command line hides
@pytest.mark.parametrize("file", REFUSED)
def test_damaged_and_hostile_images_are_refused(shared: Path, file: str) -> None:
    with pytest.raises(UserError, match=re.escape(REFUSED[file])):
        read_pixels(shared / "cases" / file)


def test_what_opencv_writes_by_default_is_read(shared: Path) -> None:
    pixels = read_pixels(shared / "cases" / "faults" / "img1-tif16rgb-lzw-cv2" / "c" / "ir" / "0.tif")
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint16)


def test_a_deep_png_without_pixels_is_one_line_wherever_it_is_looked_at(tmp_path: Path) -> None:
    whole = png((4, 3, 16, 2, 0, 0, 0), bytes(3 * (1 + 4 * 6)))
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    (tmp_path / "x.png").write_bytes(whole[:start] + whole[end:])
    assert has_8_bits(tmp_path / "x.png")
    for read in (read_pixels, read_samples):
        with pytest.raises(UserError, match=r"cannot read the image .*x\.png"):
            read(tmp_path / "x.png")


def test_what_tifffile_logs_of_a_damaged_tag_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((4, 3), 7000, np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", pixels, metadata=None)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<H", content, start + 2 + 12 * (count - 1) + 2, 0)  # the type of the values of the last tag
    (tmp_path / "x.tif").write_bytes(content)
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif"), pixels)
    assert capfd.readouterr() == ("", "")


def test_temperatures_of_a_radiometric_image_grow_with_its_counts(tmp_path):
    pytest.importorskip("flyr")
    counts = np.arange(9000, 15000, 10, np.uint16).reshape(20, 30)
    path = tmp_path / "a.jpg"
    path.write_bytes(radiometric_jpeg(counts, np.full((40, 60, 3), 90, np.uint8)))
    temperatures = read_samples(path, "thermal")
    assert (temperatures.shape, temperatures.dtype) == ((20, 30), np.float32)
    assert np.all(np.diff(temperatures.ravel()) > 0)
    # Planck's law as the cameras count it; an object of emissivity 1 at hardly any distance.
    expected = 1385 / np.log(14000 / (0.011 * (counts - 7000.0)) + 1) - 273.15
    np.testing.assert_allclose(temperatures, expected, atol=0.01)
    assert read_size(path, "thermal") == (20, 30)
    assert read_size(path) == (40, 60)
    assert read_pixels(path).shape == (40, 60, 3)
