"""The synthetic pairs of every fusion task: their names, their images, and a source of them for training."""

from ...genotypes import TASKS
from ...genotypes.choices import check_choice
from ..fingerprint import fingerprint
from ..images import Pixels, luma
from .exposures import make_exposures
from .focus import make_focus
from .phantoms import Modality, make_phantom
from .scenes import make_scene

_MODALITIES: dict[str, Modality] = {"mri-ct": "ct", "mri-pet": "pet", "mri-spect": "spect"}
_SLICES = (8, 12, 16, 20, 24, 28)  # of each patient
_CROWN = 40  # the slice at the top of every head


def pair_name(task: str, index: int) -> str:
    """Name a pair: `scene_00000`, or for medical tasks a patient's number, from 101 on, and a slice's of three digits.

    Args:
        task: A key of `genotypes.TASKS`.
        index: Of the pair.

    Returns:
        The name; names sort as their indices do, those of the medical tasks up to 899 patients.
    """
    if task not in _MODALITIES:
        return f"scene_{index:05d}"
    patient, place = divmod(index, len(_SLICES))
    return f"{101 + patient}{_SLICES[place]:03d}"


def make_pair(task: str, seed: int, index: int, *, height: int, width: int) -> tuple[Pixels, Pixels]:
    """Render a pair of a task.

    Args:
        task: A key of `genotypes.TASKS`.
        seed: Chooses the pairs; pairs of different seeds differ.
        index: Of the pair. In medical tasks six in a row are slices of one head.
        height: Pixels, at least 32.
        width: Pixels, at least 32.

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
    """A source of synthetic luma pairs of any task, each rendered when it is first asked for.

    Args:
        task: A key of `genotypes.TASKS`.
        count: How many pairs, at least 1.
        size: Height and width in pixels, at least 32.
        seed: Chooses the pairs; pairs of different seeds differ.

    Raises:
        UserError: If there is no such task.
    """

    def __init__(self, task: str, count: int, size: int, seed: int) -> None:
        check_choice("task", task, TASKS)
        self.names = tuple(pair_name(task, index) for index in range(count))
        self._task, self._size, self._seed = task, size, seed
        self._rendered: dict[int, tuple[Pixels, Pixels]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        if index not in self._rendered:
            if not 0 <= index < len(self):
                raise IndexError(index)
            first, second = make_pair(self._task, self._seed, index, height=self._size, width=self._size)
            self._rendered[index] = luma(first), luma(second)
        return self._rendered[index]

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a pair."""
        return self._size, self._size

    def fingerprint(self) -> str:
        """Tell these pairs from all others."""
        return fingerprint((self._task, len(self), self._size, self._seed))
