"""Synthetic pairs as image files, in the layout of a data set."""

from pathlib import Path

from ...genotypes.choices import check_choice
from ...runtime.errors import UserError
from ..boxes import write_boxes
from ..class_names import write_class_names
from ..images import Pixels, write_pixels
from ..layouts import LAYOUTS
from .marked import MARKED_CLASSES, make_marked_scene
from .scenes import SCENE_CLASSES, Scene, make_scene
from .tasks import STACKS, make_pair, pair_name

_KINDS = {"street": (make_scene, SCENE_CLASSES), "marked": (make_marked_scene, MARKED_CLASSES)}


def write_scenes(
    folder: Path,
    count: int,
    *,
    task: str = "infrared-visible",
    kind: str = "street",
    stack: bool = False,
    height: int,
    width: int,
    seed: int,
) -> tuple[Path, ...]:
    """Write aligned synthetic images of a task, in colour where its sources have colour.

    Infrared-visible scenes have labels: `boxes/scene_00000.txt` and `label/scene_00000.png`, with the names of their
    classes in `classes.txt` and `label-classes.txt`.

    Args:
        folder: Folder of the data set, which has the first of the task's `LAYOUTS`, such as `ir/scene_00000.png` and
            `vis/scene_00000.png`; files of these names are replaced.
        task: Name of the task, a key of `genotypes.TASKS`.
        kind: What infrared-visible scenes show: `street` (see `make_scene`), or `marked` (see `make_marked_scene`) for
            objects that neither source shows alone.
        stack: Whether to write a third image of each scene, in between, to `mid/`, for the tasks multi-exposure and
            multi-focus.
        height: Height of the images in pixels, at least 32.
        width: Width of the images in pixels, at least 32.
        seed: Chooses the pairs; pairs of different seeds differ.

    Returns:
        The folders of the first and of the second images, and that of the images in between before the second.

    Raises:
        UserError: If there is no such task or kind, the task has no scenes of the kind or no stacks, or a file cannot
            be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_scenes(Path(folder), 1, task="mri-ct", height=32, width=32, seed=0)]
        ['mri', 'ct']
    """
    check_choice("task", task, LAYOUTS)
    check_choice("kind", kind, _KINDS)
    labelled = task == "infrared-visible"
    if kind != "street" and not labelled:
        raise UserError(f"kind {kind} is one of infrared-visible scenes; leave it out for {task}")
    if stack and task not in STACKS:
        raise UserError(f"a stack is one of {' or '.join(STACKS)} scenes; leave it out for {task}")
    make, classes = _KINDS[kind]
    first, second = ((folder / pattern).parent for pattern in LAYOUTS[task][0])
    folders = (first, folder / "mid", second) if stack else (first, second)
    for index in range(count):
        name = pair_name(task, index)
        if labelled:
            scene = make([seed, index], height=height, width=width)
            _write_labels(folder, name, scene)
            images: tuple[Pixels, ...] = scene.first, scene.second
        elif stack:
            images = STACKS[task]([seed, index], height=height, width=width)[:3]
        else:
            images = make_pair(task, seed, index, height=height, width=width)
        for side, pixels in zip(folders, images, strict=True):
            write_pixels(side / f"{name}.png", pixels)
    if labelled:
        write_class_names(folder / "classes.txt", classes)
        write_class_names(folder / "label-classes.txt", ("background", *classes))
    return folders


def _write_labels(folder: Path, name: str, scene: Scene) -> None:
    height, width = scene.mask.shape
    write_boxes(folder / "boxes" / f"{name}.txt", scene.objects, height=height, width=width)
    write_pixels(folder / "label" / f"{name}.png", scene.mask)
