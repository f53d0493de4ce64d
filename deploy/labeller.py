"""Labels fused images by the task network of a run: files as in a data set, and pictures."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Objects, luma, to_pixels, unit_range, write_pixels
from ..data.boxes import write_boxes
from ..data.class_names import read_class_names, write_class_names
from ..data.images import Pixels
from ..downstream import Detections, load_task_network
from ..downstream.label_drawing import with_labels
from ..operators.network_folders import find_network
from ..runtime.errors import UserError
from ..runtime.run_files import PICTURES_FOLDER, TASK_FOLDER

_LEAST_SCORE = 0.05  # of a detection that is written; countless lower ones are wrong

Found = Detections | Tensor
"""The detections in an image, or its mask (H, W), on the CPU."""


class Labeller:
    """Finds objects or classes in fused images, and writes them to a folder.

    For an image NAME, a detector writes `boxes/NAME.txt`, with lines `class cx cy w h score` relative to the image and
    the best first, and `classes.txt`. A segmentation network writes `label/NAME.png`, 8-bit grey with class ids, and
    `label-classes.txt`. Both write a picture, `pictures/NAME.png`.
    """

    def __init__(self, network: nn.Module, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._network = cast(Any, network.to(device))  # nn.Module does not declare the methods of task networks
        self.classes: tuple[str, ...] = self._network.classes
        self._boxes = self._network.task == "detection"

    def label(self, name: str) -> Path:
        """Return the file of the labels of an image, which is the last file that `write` writes."""
        return self.folder / (f"boxes/{name}.txt" if self._boxes else f"label/{name}.png")

    def picture(self, name: str) -> Path:
        """Return the file of the picture of an image."""
        return self.folder / PICTURES_FOLDER / f"{name}.png"

    def write_classes(self, *, overwrite: bool) -> None:
        """Write the names of the classes; raise a `UserError` if the folder has others, unless they are overwritten."""
        path = self.folder / ("classes.txt" if self._boxes else "label-classes.txt")
        if path.exists() and not overwrite and read_class_names(path) != self.classes:
            raise UserError(
                f"{path} names other classes than those of the task network ({', '.join(self.classes)}); choose"
                " another folder for the labels, or replace them with --overwrite"
            )
        write_class_names(path, self.classes)

    def find(self, fused: Pixels) -> Found:
        """Find objects or classes in a fused image: in its luma, or in its colours where the task network sees them.

        Returns:
            The detections with a score of at least 0.05, the best first, or the mask.
        """
        planes = luma(fused)[..., None] if self._network.channels == 1 else fused.reshape(*fused.shape[:2], -1)
        image = torch.from_numpy(unit_range(planes)).permute(2, 0, 1)[None]  # (1, 1 or 3, H, W)
        image = image.expand(-1, self._network.channels, -1, -1)  # a grey image has three equal planes
        (found,) = self._network.predict(image.to(self.device))
        if isinstance(found, Tensor):
            return found.cpu()
        return Detections(*(field[found.scores >= _LEAST_SCORE].cpu() for field in found))

    def write(self, name: str, fused: Pixels, found: Found) -> None:
        """Write the picture and the labels of an image (H, W) or (H, W, 3), as `find` found them."""
        height, width = fused.shape[:2]
        image = fused if fused.dtype == np.uint8 else to_pixels(torch.from_numpy(unit_range(fused)), np.uint8)
        colour = np.broadcast_to(image.reshape(height, width, -1), (height, width, 3)).astype(np.uint8)
        write_pixels(self.picture(name), with_labels(colour, found, self.classes))
        if isinstance(found, Tensor):
            write_pixels(self.label(name), found.numpy().astype(np.uint8))
        else:
            objects = Objects(found.boxes, found.classes)
            write_boxes(self.label(name), objects, height=height, width=width, scores=found.scores)


def load_labeller(name_or_path: str | Path, folder: Path, device: torch.device) -> Labeller:
    """Load the task network that was trained together with a fusion network.

    Args:
        name_or_path: Name or folder of the fusion network, as for `load`; the folder has the task network in `task/`.

    Raises:
        UserError: If there is no such network, it has no task network, or a file of that is missing or damaged.

    Example:
        >>> from timfuse.downstream.task_network_folder import SHIPPED
        >>> load_labeller(SHIPPED / "street", Path("out"), torch.device("cpu")).classes
        ('person', 'bicycle', 'car')
    """
    run = find_network(name_or_path)
    if not (run / TASK_FOLDER).is_dir():
        raise UserError(f"{name_or_path} has no task network: name the folder of a `timfuse finetune` run")
    network = load_task_network(run)
    if network.channels not in (1, 3):
        raise UserError(f"the task network of {name_or_path} sees both sources, not a fused image; name another run")
    return Labeller(network, folder, device)
