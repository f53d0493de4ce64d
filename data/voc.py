"""Files with the boxes of one image in the form of Pascal VOC, as LLVIP and M3FD have them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..runtime.errors import UserError
from .boxes import ReadBoxes, check_boxes
from .label_text import read_label_text

_REMEDY = "write XML in the form of Pascal VOC, in UTF-8"
_CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_SIZE = ("size/height", "size/width")


class VocFile(NamedTuple):
    """What a file says of an image.

    Attributes:
        names: Names of the classes of the K objects.
        corners: Left, top, right and bottom of each of the K objects in pixels.
        size: Height and width of the image; None if the file does not tell.
    """

    path: Path
    names: tuple[str, ...]
    corners: tuple[tuple[float, ...], ...]
    size: tuple[float, ...] | None


def read_voc(path: Path) -> VocFile:
    """Read an XML file with an `object` for each box, those marked as difficult included.

    Raises:
        UserError: If the file cannot be read, is damaged or no annotation, or has a DOCTYPE, by which a few lines can
            expand to gigabytes; or if an object has no name or no box.
    """
    text = read_label_text(path, "boxes", _REMEDY)
    if "<!DOCTYPE" in text:
        raise UserError(f"{path} has a DOCTYPE, which is not read; remove it")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is damaged or no XML ({error}); {_REMEDY}") from error
    if root.tag != "annotation":
        raise UserError(f"{path} holds {root.tag[:40]!r} and no 'annotation'; {_REMEDY}")
    names, corners = [], []
    for number, entry in enumerate(root.findall("object"), start=1):
        name = " ".join(entry.findtext("name", "").split())
        if not name:
            raise UserError(f"{path}, object {number} has no name; name its class or remove the object")
        names.append(name)
        corners.append(_numbers(f"{path}, object {number}", entry, _CORNERS))
    size = None if root.find("size") is None else _numbers(str(path), root, _SIZE)
    return VocFile(path, tuple(names), tuple(corners), size)


def voc_boxes(file: VocFile, classes: Sequence[str], *, height: int, width: int) -> ReadBoxes:
    """Give the objects of a file their class ids, and check their boxes.

    The four numbers of a box are taken as its edges, as labelImg writes them and LLVIP's and M3FD's own programs read
    them: from `xmin` 0 to `xmax` 10 are the first ten columns of pixels.

    Raises:
        UserError: If the file is of an image of another size, a name is none of the classes, or a box has no area in
            the image.
    """
    if file.size not in (None, (height, width)):
        rows, columns = file.size or (0, 0)
        raise UserError(
            f"{file.path} is of an image of {columns:g}x{rows:g}, its pair is {width}x{height}; correct the size or "
            "the boxes"
        )
    ids = {name: number for number, name in enumerate(classes)}
    places = [f"{file.path}, object {number}" for number in range(1, len(file.names) + 1)]
    for place, name in zip(places, file.names, strict=True):
        if name not in ids:
            raise UserError(f"{place}: {name[:40]!r} is none of the class names; correct it or add it to them")
    numbers = [ids[name] for name in file.names]
    remedy = "correct or remove the object"
    return check_boxes(places, numbers, file.corners, height=height, width=width, remedy=remedy)


def _numbers(place: str, element: Element, tags: Sequence[str]) -> tuple[float, ...]:
    """Read the numbers that stand in several tags below an element."""
    numbers = []
    for tag in tags:
        text = element.findtext(tag, "")
        try:
            numbers.append(float(text))
        except ValueError:
            raise UserError(f"{place}: {tag} is {text[:40]!r} and no number; write one there") from None
    return tuple(numbers)
