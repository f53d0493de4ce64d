"""The synthetic pairs of every fusion task: their names, their images, and a source of them for training."""

from ...genotypes import TASKS
from ...genotypes.choices import check_choice
from ...runtime.errors import UserError
from ..fingerprint import fingerprint
from ..images import Pixels, luma
from ..masks import Mask
from ..pair_batch import Objects
from ..pair_source import Labels
from .exposures import make_exposure_stack, make_exposures
from .focus import make_focus, make_focus_stack
from .phantoms import Modality, make_phantom
from .scenes import MASK_CLASSES, SCENE_CLASSES, Scene, make_scene

_MODALITIES: dict[str, Modality] = {"mri-ct": "ct", "mri-pet": "pet", "mri-spect": "spect"}
STACKS = {"multi-exposure": make_exposure_stack, "multi-focus": make_focus_stack}
"""What renders three images of one scene, for each task that fuses any number of images."""

_SLICES = (8, 12, 16, 20, 24, 28)  # of each patient
_CROWN = 40  # the slice at the top of every head


def pair_name(task: str, index: int) -> str:
    """Name a pair: `scene_00000`, or in medical tasks a patient's number, from 101 on, and the slice in three digits.

    Names sort in the order of their indices, for up to 899 patients.
    """
    if task not in _MODALITIES:
        return f"scene_{index:05d}"
    patient, place = divmod(index, len(_SLICES))
    return f"{101 + patient}{_SLICES[place]:03d}"


def make_pair(task: str, seed: int, index: int, *, height: int, width: int) -> tuple[Pixels, Pixels]:
    """Render a pair of a task.

    Args:
        task: Name of the task, a key of `genotypes.TASKS`.
        index: Number of the pair. In medical tasks, six pairs in a row are slices of one head.
        height: Height of the images in pixels, at least 32.
        width: Width of the images in pixels, at least 32.

    Returns:
        The first and the second image, (H, W) or in colour (H, W, 3), uint8.

    Raises:
        UserError: If there is no such task.
    """
    check_choice("task", task, TASKS)
    if task in _MODALITIES:
        patient, place = divmod(index, len(_SLICES))
        level = _SLICES[place] / _CROWN
        return make_phantom([seed, patient], modality=_MODALITIES[task], level=level, height=height, width=width)
    if task == "infrared-visible":
        scene = make_scene([seed, index], height=height, width=width)
        return scene.first, scene.second
    make = make_exposures if task == "multi-exposure" else make_focus
    return make([seed, index], height=height, width=width)


class SyntheticPairs:
    """A source of synthetic luma pairs of any task; each pair is rendered when it is first asked for.

    Args:
        task: Name of the task, a key of `genotypes.TASKS`.
        count: Number of pairs, at least 1.
        size: Height and width in pixels, at least 32.
        seed: Chooses the pairs; pairs of different seeds differ.
        labels: The labels that the pairs come with, only for infrared-visible; None for no labels.

    Raises:
        UserError: If there is no such task, or its synthetic pairs have no labels.

    Example:
        >>> pairs = SyntheticPairs("mri-ct", 12, 64, seed=0)
        >>> pairs.names[:2], pairs[0][1].shape
        (('101008', '101012'), (64, 64))
        >>> SyntheticPairs("infrared-visible", 2, 64, seed=0, labels="masks").mask(1).shape
        (64, 64)
    """

    unlabelled = ()

    def __init__(self, task: str, count: int, size: int, seed: int, labels: Labels | None = None) -> None:
        check_choice("task", task, TASKS)
        if labels is not None and task != "infrared-visible":
            raise UserError(f"synthetic {task} pairs have no {labels}; give a folder of pairs that have some")
        self.names = tuple(pair_name(task, index) for index in range(count))
        self.labels = labels
        self.classes = {None: (), "boxes": SCENE_CLASSES, "masks": MASK_CLASSES}[labels]
        self._task, self._size, self._seed = task, size, seed
        self._rendered: dict[int, tuple[Pixels, Pixels]] = {}
        self._scenes: dict[int, Scene] = {}  # with their labels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.labels is not None:
            scene = self._scene(index)
            return scene.first, scene.second
        if index not in self._rendered:
            first, second = make_pair(self._task, self._seed, index, height=self._size, width=self._size)
            self._rendered[index] = luma(first), luma(second)
        return self._rendered[index]

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """Return a pair with its colours, if it has no labels; these belong to scenes of luma alone."""
        if self.labels is not None:
            return self[index]
        return make_pair(self._task, self._seed, index, height=self._size, width=self._size)

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self._size, self._size

    def objects(self, index: int) -> Objects:
        """Return the objects of a pair."""
        return self._scene(index).objects

    def mask(self, index: int) -> Mask:
        """Return the (H, W) class mask of a pair."""
        return self._scene(index).mask

    def fingerprint(self) -> str:
        """Name the pairs by the values that they are rendered from."""
        return fingerprint((self._task, len(self), self._size, self._seed, self.labels))

    def _scene(self, index: int) -> Scene:
        if index not in self._scenes:
            self._scenes[index] = make_scene([self._seed, index], height=self._size, width=self._size)
        return self._scenes[index]
