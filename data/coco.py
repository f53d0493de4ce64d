"""Files with the boxes of many images in the form of COCO."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import BaseModel, FiniteFloat, ValidationError

from ..runtime.errors import UserError
from .boxes import ReadBoxes, check_boxes
from .class_names import check_class_names
from .label_text import read_label_file

_REMEDY = "write `images`, `categories` and `annotations` with a `bbox`, in the form of COCO"
_MEGABYTES = 1024  # twice the largest file of COCO itself


class _Image(BaseModel):
    id: int | str
    file_name: str
    height: int | None = None
    width: int | None = None


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    iscrowd: bool = False


class _File(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


class _Entry(NamedTuple):
    """An image of a file with its annotations, each with its position in the file."""

    path: Path
    image: _Image
    annotations: list[tuple[int, _Annotation]]


def read_coco(
    files: Sequence[Path], names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> tuple[tuple[str, ...], list[ReadBoxes | None]]:
    """Read the boxes of pairs from one or more JSON files, which list images by the names of their files.

    A `bbox` is left, top, width and height in pixels. Annotations of crowds (`iscrowd`) are left out. Images that are
    no pairs are ignored.

    Args:
        names: Names of the pairs, which are those of the images without folder and suffix.
        sizes: Height and width of each pair.

    Returns:
        The names of all categories in the order of their ids, and the boxes of each pair; None for a pair of which
        there is no image.

    Raises:
        UserError: If a file cannot be read or is no such file, two files contradict each other, an image is there
            twice or has another size than its pair, or a box has no area in its image.
    """
    read = [(path, _read(path)) for path in files]
    categories: dict[int, tuple[str, Path]] = {}
    for path, file in read:
        for category in file.categories:
            name, other = categories.setdefault(category.id, (category.name.strip(), path))
            if name != category.name.strip():
                raise UserError(
                    f"the category {category.id} is {name!r} in {other} and {category.name.strip()!r} in {path}; "
                    "give it one name"
                )
    order = sorted(categories)
    classes = tuple(categories[key][0] for key in order)
    check_class_names(classes, " and ".join(map(str, files)))
    positions = {key: position for position, key in enumerate(order)}
    entries = _entries(read, set(names))
    boxes = [
        _boxes(entries[name], positions, height=height, width=width) if name in entries else None
        for name, (height, width) in zip(names, sizes, strict=True)
    ]
    return classes, boxes


def _read(path: Path) -> _File:
    content = read_label_file(path, "boxes", _REMEDY, megabytes=_MEGABYTES)
    try:
        return _File.model_validate_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} holds no boxes of COCO: {place}{': ' * bool(place)}{first['msg']}; {_REMEDY}"
        ) from error


def _entries(read: Sequence[tuple[Path, _File]], names: set[str]) -> dict[str, _Entry]:
    """Find the image of each pair with its annotations."""
    entries: dict[str, _Entry] = {}
    for path, file in read:
        by_id: dict[int | str, list[tuple[int, _Annotation]]] = {image.id: [] for image in file.images}
        if len(by_id) < len(file.images):
            raise UserError(f"two images in {path} have one id; give each its own")
        for number, annotation in enumerate(file.annotations):
            if annotation.image_id not in by_id:
                raise UserError(
                    f"{path}, annotations.{number} is of the image {annotation.image_id}, which `images` does not list;"
                    " add the image or remove the annotation"
                )
            by_id[annotation.image_id].append((number, annotation))
        for image in file.images:
            name = PurePosixPath(image.file_name.replace("\\", "/")).stem
            if name not in names:
                continue
            if name in entries:
                other = entries[name]
                raise UserError(
                    f"{image.file_name} in {path} and {other.image.file_name} in {other.path} are images of one pair; "
                    "keep one of them"
                )
            entries[name] = _Entry(path, image, by_id[image.id])
    return entries


def _boxes(entry: _Entry, positions: dict[int, int], *, height: int, width: int) -> ReadBoxes:
    path, image, annotations = entry
    size = (image.height or height, image.width or width)
    if size != (height, width):
        raise UserError(
            f"{image.file_name} is {size[1]}x{size[0]} in {path}, its pair is {width}x{height}; correct the size or "
            "the boxes"
        )
    places, ids, corners = [], [], []
    for number, annotation in annotations:
        place = f"{path}, annotations.{number}"
        if annotation.category_id not in positions:
            raise UserError(f"{place}: the category {annotation.category_id} has no name; add it to `categories`")
        if annotation.iscrowd:
            continue
        left, top, columns, rows = annotation.bbox
        places.append(place)
        ids.append(positions[annotation.category_id])
        corners.append((left, top, left + columns, top + rows))
    remedy = "correct or remove the annotation"
    checked = check_boxes(places, ids, corners, height=height, width=width, remedy=remedy)
    return checked._replace(crowds=len(annotations) - len(places))
