"""The interface of task networks, the detections that detectors return, and the set-up of their training."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.pair_batch import PairBatch
from ..runtime.distribution import Ranks
from ..runtime.errors import UserError

REGISTERED_KIND = "registered"
"""Kind of all networks in a specification that users register."""
MOST_DETECTIONS = 100
"""Largest number of detections in an image, because COCO scores the best 100."""


class Detections(NamedTuple):
    """The objects that a detector finds in one image, best first.

    Attributes:
        boxes: Left, top, right and bottom in pixels, inside the image, (K, 4) float32.
        scores: Confidence of each detection in [0, 1], (K,) float32.
        classes: Positions in the detector's class names, (K,) int64.

    Example:
        >>> found = Detections(torch.tensor([[4.0, 8, 30, 40]]), torch.tensor([0.5]), torch.tensor([2]))
        >>> found.boxes.shape, found.classes.tolist()
        (torch.Size([1, 4]), [2])
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class TaskNetwork(nn.Module):
    """A network that detects or segments in images.

    Attributes:
        task: Kind of the task, "detection" or "segmentation".
        kind: Name of the architecture in a specification.
        channels: Number C of planes of the images: 1 for luma, 3 for red, green and blue, 2 and 4 for both sources.
        classes: Names of the classes; in segmentation the background comes first.
        fresh_classes: Those of the classes that a network which others trained does not know, and has to learn.

    Example:
        >>> from timfuse.downstream import build_task_network
        >>> network = build_task_network("detection", "compact", ["person", "car"], width=8)
        >>> isinstance(network, TaskNetwork), network.task, network.classes
        (True, 'detection', ('person', 'car'))
    """

    task: str
    kind: str
    channels: int = 1
    classes: tuple[str, ...]
    fresh_classes: tuple[str, ...] = ()

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Return the scalar loss of images by the labels of a batch, differentiable by images and weights.

        Args:
            images: Images in [0, 1], (N, C, H, W), which replace the sources of the batch.

        Raises:
            UserError: If a registered network has no loss.
        """
        raise UserError(
            f"the task network {self.kind} has no loss by which it could learn or guide; give it a method loss, or"
            " score with it alone"
        )

    def predict(self, images: Tensor) -> Any:
        """Return N `Detections`, or masks (N, H, W) int64, for images (N, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def specification(self) -> dict[str, Any]:
        """Return the architecture as plain data, from which the network can be built again.

        By default, it is that of a registered network.
        """
        entries = {"kind": REGISTERED_KIND, "name": self.kind, "task": self.task}
        return {**entries, "classes": list(self.classes), "channels": self.channels}


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divide the trained parameters into two groups for an optimiser: kernels with weight decay, and the others.

    Biases and the scales of normalisation, which have one dimension, do not decay.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Replace the running statistics of a network by their means over the processes.

    In training each process normalises by its own part of the batch. Joint normalisation would still not give the
    gradient of the whole batch, because the loss of a detector is divided by the number of objects in a part.
    """
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    for buffer, mean in zip(statistics, ranks.average(statistics), strict=True):
        buffer.copy_(mean)
