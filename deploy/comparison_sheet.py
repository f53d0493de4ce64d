"""The picture sheet of a comparison: sources and fused images side by side, with regions enlarged."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data import Pair
from ..runtime.errors import printable
from ..runtime.progress import Progress
from .comparison_rows import REGION_COLOURS, Row, labels, read_rows
from .methods import Methods
from .zoom_regions import Region

_WIDTH = 3600  # of a sheet with many columns, in pixels as all lengths here
_CELL = (220, 420)  # least and largest width of a column
_GAP, _INSET_GAP, _FRAME = 14, 6, 3
_MARGIN = 28
_PAPER, _INK, _QUIET = "#ffffff", "#16191d", "#6b727b"
_LABEL, _CAPTION = 27, 20  # font sizes


def comparison_sheet(
    pairs: Sequence[Pair], methods: Methods, *, zoom: Sequence[Region] = (), progress: Progress | None = None
) -> Image.Image:
    """Draw both sources and the image of every method side by side, in a row for each pair.

    Args:
        zoom: Regions to enlarge in every pair; default: two in each, where the methods differ most.

    Raises:
        UserError: If a file cannot be read, the images of a pair differ in size, or a region exceeds an image.
    """
    return sheet_of_rows(labels(pairs, methods), read_rows(pairs, methods, zoom), progress=progress)


def sheet_of_rows(columns: Sequence[str], rows: Iterable[Row], *, progress: Progress | None = None) -> Image.Image:
    """Draw a heading with the names of the columns, and each row below it."""
    cell = min(max(_WIDTH // len(columns), _CELL[0]), _CELL[1])
    strips = [_heading(columns, cell)]
    for row in rows:
        strips.append(_draw_row(row, cell))
        if progress is not None:
            progress.advance()
    sheet = Image.new("RGB", (strips[0].width + 2 * _MARGIN, sum(strip.height for strip in strips) + _MARGIN), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (_MARGIN, top))
        top += strip.height
    return sheet


def inset_size(region: Region, count: int, cell: int) -> tuple[int, int]:
    """Compute width and height of an enlarged region where `count` of them share the width of a cell."""
    width = (cell - _INSET_GAP * (count - 1)) // count
    return width, max(1, round(width * region.height / region.width))


def _heading(columns: Sequence[str], cell: int) -> Image.Image:
    strip = _strip(len(columns), cell, _LABEL + 24 + _MARGIN // 2)
    draw = ImageDraw.Draw(strip)
    for index, label in enumerate(columns):
        centre = index * (cell + _GAP) + cell / 2
        font = _font("DejaVuSans-Bold.ttf" if index > 1 else "DejaVuSans.ttf", _LABEL)
        text = _shorten(label, font, cell)
        draw.text((centre, strip.height - 8), text, _INK if index > 1 else _QUIET, font, anchor="ms")
    return strip


def _draw_row(row: Row, cell: int) -> Image.Image:
    """Draw the name of a pair, its images and, below each, the enlarged regions."""
    height, width = row.images[0].shape[:2]
    size = cell, max(1, round(height * cell / width))
    sizes = [inset_size(region, len(row.regions), cell) for region in row.regions]
    below = max((inset[1] for inset in sizes), default=0)
    caption = _CAPTION + 16
    strip = _strip(len(row.images), cell, caption + size[1] + _INSET_GAP + below + _MARGIN // 2)
    draw = ImageDraw.Draw(strip)
    font = _font("DejaVuSans.ttf", _CAPTION)
    draw.text((0, caption - 8), _shorten(row.name, font, strip.width), _QUIET, font, anchor="ls")
    for column, pixels in enumerate(row.images):
        image = Image.fromarray(pixels).convert("RGB")
        left = column * (cell + _GAP)
        strip.paste(image.resize(size, Image.Resampling.LANCZOS), (left, caption))
        inset_left = left
        for region, inset, colour in zip(row.regions, sizes, REGION_COLOURS, strict=False):
            draw.rectangle(_scaled(region, cell / width, left, caption), outline=colour, width=_FRAME - 1)
            top = caption + size[1] + _INSET_GAP
            strip.paste(image.resize(inset, Image.Resampling.BICUBIC, box=region.box), (inset_left, top))
            draw.rectangle(
                (inset_left, top, inset_left + inset[0] - 1, top + inset[1] - 1), outline=colour, width=_FRAME
            )
            inset_left += inset[0] + _INSET_GAP
    return strip


def _strip(columns: int, cell: int, height: int) -> Image.Image:
    return Image.new("RGB", (columns * (cell + _GAP) - _GAP, height), _PAPER)


def _scaled(region: Region, scale: float, left: int, top: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(edge * scale) for edge in region.box)
    return left + x0, top + y0, left + x1 - 1, top + y1 - 1


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font of matplotlib, which has more characters than the font of pillow."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = printable(text)  # a name may hold line breaks, which fonts refuse
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
